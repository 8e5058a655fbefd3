"""Many rounds, many at once, and every accident of a TPM, of its users and of the service itself.

Each is seen from outside: over HTTP, in the TPM's own lists, in the processes. What waits, waits for an
event; nothing here is measured with a clock.
"""

import concurrent.futures
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.evidence.simulator.backend import SimulatorBackend
from app.evidence.vtpm.vtpm import Vtpm
from app.tpm.transport import Transport
from tests.acceptance import session
from tests.acceptance.both_roles import (
    BothRoles,
    both_roles,
    objections,
    refused,
    whole_round,
)
from tests.acceptance.own_process import children, serving
from tests.acceptance.tool_guest import Json, b64, unb64
from tests.api.services import SettingsMaker
from tests.evidence.simulator.processes import WITHIN_S, has_ended, kill, swtpm_of
from tests.interop.software_tpm import demand

QUOTES = 500
ROUNDS = 50
CALLERS = 12
TRANSIENT, LOADED_SESSIONS, SAVED_SESSIONS = 0x80000000, 0x02000000, 0x03000000
RETRY = bytes.fromhex("8001 0000000a 00000922")


@pytest.fixture(scope="module")
def roles(new_settings: SettingsMaker) -> Iterator[BothRoles]:
    """Both roles; the attester has the simulated VM's TPM."""
    demand("swtpm")
    with both_roles(new_settings(allow_simulator=True)) as running:
        yield running


def handles(roles: BothRoles, first: int) -> int:
    """How many of one kind are in the TPM, asked by TPM2_GetCapability written out by hand."""
    assert roles.simulator.vtpm is not None
    command = bytes.fromhex(f"8001 00000016 0000017a 00000001 {first:08x} 00000040")
    answer = roles.simulator.vtpm.open().exchange(command, timeout_s=WITHIN_S)
    assert answer[6:15] == bytes.fromhex("00000000 00 00000001")
    return int.from_bytes(answer[15:19], "big")


def demand_clean(roles: BothRoles) -> None:
    """The SVSM's own EK is there, and nothing else."""
    assert handles(roles, TRANSIENT) == 1
    assert handles(roles, LOADED_SESSIONS) == handles(roles, SAVED_SESSIONS) == 0


def demand_affirmed(roles: BothRoles) -> None:
    verdict = whole_round(roles)
    assert (objections(verdict), verdict["verdict"]) == ({}, "affirming")


def test_many_rounds_leave_nothing_behind(roles: BothRoles) -> None:
    name = bytes.fromhex(roles.ask("/ak")["name"])
    before = descriptors_open()
    for number in range(QUOTES):
        nonce = os.urandom(64)
        quote = roles.ask("/quote", nonce=b64(nonce), event_log=number % 50 == 0)
        attest = unb64(quote["attest"])
        assert attest[44:76] == session.qualifying(nonce, name, None)
    for number in range(ROUNDS):
        method = "import" if number % 2 else "activate"
        key = "rsa2048" if number % 10 == 0 else "p256"
        assert whole_round(roles, key, method=method)["verdict"] == "affirming"
    demand_clean(roles)
    assert descriptors_open() <= before + 2


def descriptors_open() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_everybody_at_once(roles: BothRoles) -> None:
    """Rounds of several keys, quotes and reports: each gets the answer to its own question.

    They begin on a VM that has just been booted, so that the SVSM makes its EK in between.
    """
    assert roles.simulator.vtpm is not None
    roles.simulator.vtpm.reboot()

    def one(number: int) -> str:
        nonce = os.urandom(64)
        if number % 3 == 0:
            return str(whole_round(roles, "rsa2048" if number % 2 else "p256")["verdict"])
        if number % 3 == 1:
            quote = roles.ask("/quote", nonce=b64(nonce))
            name = bytes.fromhex(roles.ask("/ak")["name"])
            assert unb64(quote["attest"])[44:76] == session.qualifying(nonce, name, None)
            return "affirming"
        return str(roles.verify(nonce, roles.ask("/attest", nonce=b64(nonce)))["verdict"])

    with concurrent.futures.ThreadPoolExecutor(CALLERS) as pool:
        assert set(pool.map(one, range(3 * CALLERS))) == {"affirming"}
    demand_clean(roles)


def test_a_reboot_between_challenge_and_answer(roles: BothRoles) -> None:
    assert roles.simulator.vtpm is not None
    before = roles.ask("/ak")
    for method in ("activate", "import"):
        challenge = roles.challenge(unb64(before["ek_public"]), unb64(before["ak_public"]), method=method)
        roles.simulator.vtpm.reboot()
        for _ in range(2):
            parts = {name: part for name, part in challenge.items() if name in PARTS}
            problem = refused(roles.post("/ak/activate", **parts), kind="challenge-refused")
            assert "was not handed out since the TPM" in problem["detail"]
        demand_affirmed(roles)
    assert roles.ask("/ak") == before


PARTS = {"method", "credential_blob", "encrypted_secret", "public_area", "duplicate", "encrypted_seed"}


def test_the_tpm_is_killed_while_it_serves(roles: BothRoles) -> None:
    assert roles.simulator.vtpm is not None
    before = roles.ask("/ak")
    kill(swtpm_of(roles.simulator.vtpm))
    verdict = whole_round(roles)
    assert (objections(verdict), verdict["claims"]["vtpm"]["ek_name"]) == ({}, before["ek_name"])
    demand_clean(roles)
    assert "quotes are available" in vtpm_check(roles.client)


def vtpm_check(client: httpx.Client) -> str:
    checks = client.get("/readyz").json()["checks"]
    return str(next(check["detail"] for check in checks if check["name"] == "vtpm"))


# --- a TPM that somebody holds up ---------------------------------------------------------------


class Held:
    """The attester's way to the TPM: what becomes of a command is up to the test."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.released = threading.Event()
        self.instead: Callable[[bytes], bytes | None] = lambda _: None

    def until_released(self, _: bytes) -> None:
        self.reached.set()
        self.released.wait(WITHIN_S)

    def over(self, channel: Transport) -> Transport:
        return _HeldChannel(self, channel)


class _HeldChannel:
    def __init__(self, held: Held, channel: Transport) -> None:
        self._held = held
        self._channel = channel

    def exchange(self, command: bytes, *, timeout_s: float) -> bytes:
        """See Transport."""
        answer = self._held.instead(command)
        return self._channel.exchange(command, timeout_s=timeout_s) if answer is None else answer

    def close(self) -> None:
        """See Transport."""
        self._channel.close()


@contextmanager
def held_up(new_settings: SettingsMaker, **options: float) -> Iterator[tuple[BothRoles, Held]]:
    demand("swtpm")
    held = Held()

    def reach(simulator: SimulatorBackend) -> Vtpm:
        return Vtpm(
            lambda: held.over(simulator.open_vtpm()),
            name="the TPM",
            event_log=simulator.event_log,
            **options,  # type: ignore[arg-type]
        )

    with both_roles(new_settings(allow_simulator=True), reach=reach) as roles:
        try:
            yield roles, held
        finally:
            held.released.set()


def test_a_tpm_that_asks_for_patience(new_settings: SettingsMaker) -> None:
    with held_up(new_settings) as (roles, held):
        asked: dict[bytes, int] = {}

        def busy(command: bytes) -> bytes | None:
            asked[command] = asked.get(command, 0) + 1
            return RETRY if asked[command] <= 4 else None

        held.instead = busy
        demand_affirmed(roles)
        assert len(asked) > 10
        held.instead = lambda _: None
        demand_clean(roles)


def test_a_slow_tpm_holds_up_nobody_else(new_settings: SettingsMaker) -> None:
    """While a quote is under way: liveness, metrics, reports and verdicts are not."""
    with held_up(new_settings) as (roles, held), concurrent.futures.ThreadPoolExecutor(1) as pool:
        held.instead = held.until_released
        nonce = os.urandom(64)
        slow = pool.submit(roles.ask, "/quote", nonce=b64(nonce))
        assert held.reached.wait(WITHIN_S)
        for _ in range(3):
            assert roles.client.get("/livez").json() == {"status": "alive"}
        assert roles.client.get("/metrics").status_code == 200
        assert roles.verify(nonce, roles.ask("/attest", nonce=b64(nonce)))["verdict"] == "affirming"
        assert "is busy" in vtpm_check(roles.client)
        assert not slow.done()
        held.released.set()
        assert set(slow.result()["pcrs"]) == {"sha256"}
        demand_affirmed(roles)
        demand_clean(roles)


def test_a_tpm_that_hangs_leaves_the_queue_bounded_and_comes_back(new_settings: SettingsMaker) -> None:
    with (
        held_up(new_settings, timeout_s=0.5, max_waiting=2) as (roles, held),
        concurrent.futures.ThreadPoolExecutor(CALLERS) as pool,
    ):
        held.instead = held.until_released
        first = pool.submit(roles.post, "/quote", nonce=b64(os.urandom(64)))
        assert held.reached.wait(WITHIN_S)
        others = [pool.submit(roles.post, "/quote", nonce=b64(os.urandom(64))) for _ in range(CALLERS - 1)]
        answers = [one.result() for one in (first, *others)]
        assert {answer.status_code for answer in answers} <= {429, 503}
        causes = set()
        for answer in answers:
            if answer.status_code == 429:
                refused(answer, status=429, kind="rate-limited")
                assert int(answer.headers["retry-after"]) >= 1
            else:
                causes.add(refused(answer, status=503, kind="backend-unavailable")["cause"])
        assert causes <= {"tpm-timeout", "tpm-overloaded", "tpm-stalled"}
        assert "tpm-timeout" in causes
        ready = roles.client.get("/readyz")
        assert (ready.status_code, "report-only" in vtpm_check(roles.client)) == (200, True)
        evidence = roles.ask("/attest", nonce=b64(os.urandom(64)))
        assert evidence["binding"] == {"type": "direct"}
        held.instead = lambda _: None
        held.released.set()
        demand_recovered(roles)
        demand_clean(roles)


def demand_recovered(roles: BothRoles) -> None:
    """As soon as what occupied the TPM has gone, without a restart."""
    deadline = time.monotonic() + WITHIN_S
    while roles.post("/ak").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    demand_affirmed(roles)


LIES = (b"", b"\0" * 10, bytes.fromhex("8001 ffffffff 00000000"), bytes.fromhex("8002 0000000a 00000000"))


@pytest.mark.parametrize("lie", LIES, ids=bytes.hex)
def test_a_tpm_that_lies(new_settings: SettingsMaker, lie: bytes) -> None:
    with held_up(new_settings) as (roles, held):
        demand_affirmed(roles)
        held.instead = lambda _: lie
        for path, more in (("/ak", {}), ("/quote", {"nonce": b64(bytes(64))})):
            problem = refused(roles.post(path, **more), status=503, kind="backend-unavailable")
            assert problem["cause"] == "tpm-malformed-answer"
        held.instead = lambda _: None
        demand_affirmed(roles)
        demand_clean(roles)


# --- the service is killed ----------------------------------------------------------------------


def test_the_service_is_killed_in_the_middle_of_a_command(simulator_state: Path, tmp_path: Path) -> None:
    """The TPM's process goes with it, and the next start has the same keys, and signs with them."""
    demand("swtpm")

    keys: list[Json] = []
    for number in range(4):  # three ends in disorder would lock a TPM that counts them
        with (
            serving(simulator_state, tmp_path / f"log{number}") as (process, caller),
        ):
            keys.append(caller.post("/ak", json={}).json())
            assert caller.post("/quote", json={"nonce": b64(bytes(64))}).status_code == 200
            [guard] = children(process.pid)
            [swtpm] = children(guard)
            os.kill(swtpm, signal.SIGSTOP)
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                lost = pool.submit(caller.post, "/quote", json={"nonce": b64(bytes(64))})
                while "is busy" not in vtpm_check(caller):
                    assert not lost.done()
                process.kill()
                with pytest.raises(httpx.TransportError):
                    lost.result()
            process.wait(WITHIN_S)
            assert has_ended(swtpm)
            assert has_ended(guard)
    assert keys == [keys[0]] * len(keys)
    events = [json.loads(line)["event"] for line in (tmp_path / "log3").read_text().splitlines()]
    assert "simulated_vtpm_started" in events
