"""A TPM that is not there, hangs, lies, is full, or loses its user in the middle of a command."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.errors import BackendError, RateLimitedError, TpmUnavailableError
from app.evidence.vtpm.ak_kind import AkKind
from app.evidence.vtpm.vtpm import Vtpm
from app.tpm.causes import TpmCause, unavailable
from app.tpm.client import Tpm
from app.tpm.command import CommandCode
from app.tpm.transport import DeviceTransport, SocketTransport, Transport
from app.trust.credential import make_credential
from tests.conftest import REPOSITORY
from tests.evidence.vtpm.bench import AK, LOG, SOME, TIMEOUT_S, Bench, Tap, qualify
from tests.interop.software_tpm import bare_tpm

RETRY = bytes.fromhex("8001 0000000a 00000922")


def probing(open_transport: Callable[[], Transport], **options: float) -> Vtpm:
    return Vtpm(open_transport, name="the TPM", event_log=lambda: LOG, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("cause", [TpmCause.MISSING, TpmCause.PERMISSION_DENIED, TpmCause.IN_USE])
def test_without_a_tpm_there_are_reports_and_the_reason_is_told(cause: TpmCause) -> None:
    def refuse() -> Transport:
        raise unavailable(cause, "/dev/tpmrm0 cannot be opened: because")

    async def look() -> None:
        vtpm = probing(refuse)
        check = await vtpm.probe()
        assert (check.name, check.ok) == ("vtpm", True)
        assert check.detail == "report-only, no quotes: /dev/tpmrm0 cannot be opened: because"
        assert check.remedy
        for asked in (vtpm.ak(AK), vtpm.ek("L-1"), vtpm.hand_out(AK, "L-1")):
            with pytest.raises(TpmUnavailableError) as caught:
                await asked
            assert (caught.value.cause, caught.value.remedy) == (cause, check.remedy)
        await vtpm.aclose()

    asyncio.run(look())


def test_the_device_itself(tmp_path: Path) -> None:
    async def look(path: Path) -> str:
        vtpm = probing(lambda: DeviceTransport(path))
        detail = (await vtpm.probe()).detail
        await vtpm.aclose()
        return detail

    assert "No such file" in asyncio.run(look(tmp_path / "tpmrm0"))
    (tmp_path / "file").touch()
    assert "is not a character device" in asyncio.run(look(tmp_path / "file"))
    assert "/dev/null answered nothing" in asyncio.run(look(Path("/dev/null")))


def test_a_tpm_that_appears_later_is_used_without_a_restart(vtpm: Bench) -> None:
    there = False

    def open_transport() -> Transport:
        if not there:
            raise unavailable(TpmCause.MISSING, "not yet")
        return vtpm.tap

    service = probing(open_transport)
    assert vtpm.run(service.probe()).remedy is not None
    there = True
    found = vtpm.run(service.probe())
    assert (found.remedy, found.detail) == (None, "the TPM answers: quotes are available")
    vtpm.run(service.quote(AK, qualify, SOME, with_event_log=False))
    vtpm.run(service.aclose())


def test_a_tpm_that_refuses_to_be_asked_is_report_only(vtpm: Bench) -> None:
    vtpm.peer.reboot()  # and nobody has run TPM2_Startup
    check = vtpm.run(vtpm.vtpm.probe())
    assert check.ok is True
    assert "TPM2_GetCapability answered 0x100 TPM_RC_INITIALIZE" in check.detail
    assert check.remedy == "TPM2_Startup has not been run: restart the VM"
    vtpm.tpm.startup()


def test_a_tpm_that_asks_for_patience_gets_the_same_bytes_again(vtpm: Bench) -> None:
    left = 5

    def busy(command: bytes) -> bytes | None:
        nonlocal left
        if command[6:10] != CommandCode.QUOTE.to_bytes(4, "big") or not left:
            return None
        left -= 1
        return RETRY

    vtpm.tap.before = busy
    vtpm.run(vtpm.vtpm.quote(AK, qualify, SOME, with_event_log=False))
    quotes = [command for command in vtpm.tap.commands if command[6:10] == b"\0\0\1\x58"]
    assert len(quotes) >= 6
    assert len(set(quotes)) == 1


class Gate:
    """A channel whose commands wait until the gate opens, whatever deadline they have."""

    def __init__(self, channel: Transport) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()
        self._channel = channel

    def exchange(self, command: bytes, *, timeout_s: float) -> bytes:
        """See Transport."""
        self.reached.set()
        self.open.wait()
        return self._channel.exchange(command, timeout_s=timeout_s)

    def close(self) -> None:
        """See Transport."""


@contextmanager
def gated(vtpm: Bench) -> Iterator[Gate]:
    gate = Gate(Tap(vtpm.channel))
    try:
        yield gate
    finally:
        gate.open.set()


def test_a_tpm_that_hangs_keeps_neither_loop_nor_queue(vtpm: Bench) -> None:
    with gated(vtpm) as gate:

        async def crowd() -> None:
            service = probing(lambda: gate, timeout_s=0.2, max_waiting=3)
            jobs = [asyncio.create_task(service.ak(AK)) for _ in range(10)]
            outcomes = await asyncio.gather(*jobs, return_exceptions=True)
            refused = [one for one in outcomes if isinstance(one, RateLimitedError)]
            gave_up = [one.cause for one in outcomes if isinstance(one, TpmUnavailableError)]
            assert len(refused) == 6
            assert all(one.retry_after_s > 0 for one in refused)
            assert len(gave_up) == 4
            assert set(gave_up) <= {"tpm-timeout", "tpm-overloaded", "tpm-stalled"}
            # As long as it hangs the others are told so at once, the probe too.
            with pytest.raises(TpmUnavailableError) as caught:
                await service.ak(AK)
            assert caught.value.cause == "tpm-stalled"
            check = await service.probe()
            assert (check.ok, check.detail.startswith("report-only, no quotes: ")) == (True, True)
            gate.open.set()
            # It comes back, and is used.
            for _ in range(1000):
                if (await service.probe()).remedy is None:
                    break
                await asyncio.sleep(0.01)
            assert (await service.ak(AK)).algorithm == "P-256"
            await service.aclose()

        vtpm.run(crowd())


def test_a_probe_does_not_wait_for_a_busy_tpm(vtpm: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.evidence.vtpm.vtpm.PROBE_TIMEOUT_S", 0.05)
    with gated(vtpm) as gate:

        async def look() -> None:
            service = probing(lambda: gate, timeout_s=TIMEOUT_S)
            job = asyncio.create_task(service.ak(AK))
            await asyncio.to_thread(gate.reached.wait)
            check = await service.probe()
            assert (check.ok, check.detail, check.remedy) == (
                True,
                "the TPM is busy: quotes have to wait",
                None,
            )
            gate.open.set()
            await job
            await service.aclose()

        vtpm.run(look())


def test_a_caller_that_goes_away_frees_its_place(vtpm: Bench) -> None:
    with gated(vtpm) as gate:

        async def leave() -> None:
            service = probing(lambda: gate, max_waiting=1)
            first = asyncio.create_task(service.ak(AK))
            await asyncio.to_thread(gate.reached.wait)
            for _ in range(3):
                waiting = asyncio.create_task(service.ak(AK))
                await asyncio.sleep(0)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            last = asyncio.create_task(service.ak(AK))
            await asyncio.sleep(0)
            gate.open.set()
            assert await first == await last
            await service.aclose()

        vtpm.run(leave())


def test_a_closed_vtpm_takes_no_more(vtpm: Bench) -> None:
    service = vtpm.new_vtpm()
    vtpm.run(service.ak(AK))
    vtpm.run(service.aclose())
    with pytest.raises(TpmUnavailableError) as caught:
        vtpm.run(service.ak(AK))
    assert caught.value.cause == "tpm-closed"


@pytest.mark.parametrize(
    "answer",
    [
        bytes.fromhex("8001 0000000b 00000000 00"),
        bytes.fromhex("8002 0000000a 00000000"),
        bytes.fromhex("8001 ffffffff 00000000"),
        b"\0" * 10,
        b"",
    ],
)
def test_a_tpm_that_lies_is_told_from_one_that_refuses(vtpm: Bench, answer: bytes) -> None:
    vtpm.tap.before = lambda _: answer
    with pytest.raises(TpmUnavailableError) as caught:
        vtpm.run(vtpm.vtpm.quote(AK, qualify, SOME, with_event_log=False))
    assert caught.value.cause == "tpm-malformed-answer"
    vtpm.tap.before = lambda _: None
    vtpm.run(vtpm.vtpm.quote(AK, qualify, SOME, with_event_log=False))


LEAVES_IN_THE_MIDDLE = """
import signal, sys, os
from pathlib import Path
from app.tpm.client import Tpm
from app.tpm.command import Command, CommandCode
from app.tpm.handles import ENDORSEMENT
from app.tpm.transport import SocketTransport
from app.wire.tpm.template import creation_template

channel = SocketTransport.unix(Path(sys.argv[1]))
tpm = Tpm(channel, timeout_s=30)
tpm.create_primary(ENDORSEMENT, creation_template("L-2"))
tpm.create_primary(ENDORSEMENT, creation_template("H-3"))
with tpm.policy_session(0x000B):
    class Killed(Exception): pass
    send = channel._socket.send
    def send_and_die(data):
        send(data)  # the command is under way, and its answer has nobody to read it
        os.kill(os.getpid(), signal.SIGKILL)
    channel._socket = type("Socket", (), {"send": staticmethod(send_and_die), "recv": channel._socket.recv})
    tpm.create_primary(ENDORSEMENT, creation_template("L-1"))
"""


def test_a_process_that_is_killed_in_mid_command_leaves_a_tpm_that_works(tmp_path: Path) -> None:
    with bare_tpm(tmp_path, listening=True) as peer:
        command = [sys.executable, "-c", LEAVES_IN_THE_MIDDLE, str(peer.path)]
        ended = subprocess.run(
            command, check=False, cwd=REPOSITORY, capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == -9, ended.stderr

        async def start() -> None:
            service = probing(lambda: SocketTransport.unix(peer.path))
            keys = await service.hand_out(AK, "L-1")
            blob = make_credential(keys.ek, keys.ak.name, b"secret")
            assert await service.activate(AK, "L-1", blob) == b"secret"
            await service.quote(AkKind.RSA2048, qualify, SOME, with_event_log=True)
            await service.aclose()

        asyncio.run(start())
        channel = SocketTransport.unix(peer.path)
        assert Tpm(channel, timeout_s=TIMEOUT_S).handles(0x80000000) == ()
        channel.close()


def test_a_tpm_that_breaks_off_is_connected_to_again(tmp_path: Path) -> None:
    with bare_tpm(tmp_path, listening=True) as peer:
        opened = []

        def open_transport() -> Transport:
            opened.append(SocketTransport.unix(peer.path))
            return opened[-1]

        async def use() -> None:
            service = probing(open_transport)
            first = await service.ak(AK)
            opened[0]._interrupt()
            with pytest.raises(TpmUnavailableError) as caught:
                await service.ak(AK)
            assert caught.value.cause == "tpm-gone"
            assert await service.ak(AK) == first
            assert len(opened) == 2
            await service.aclose()

        asyncio.run(use())


def test_an_event_log_that_cannot_be_read_fails_the_quote_alone(vtpm: Bench) -> None:
    def unreadable() -> bytes:
        raise BackendError("event-log-unavailable", "it may not be read", "run as root")

    service = Vtpm(lambda: vtpm.tap, name="swtpm", event_log=unreadable)
    with pytest.raises(BackendError, match="it may not be read"):
        vtpm.run(service.quote(AK, qualify, SOME, with_event_log=True))
    assert vtpm.loaded() == ()
    assert vtpm.run(service.quote(AK, qualify, SOME, with_event_log=False)).event_log is None
    vtpm.run(service.aclose())


def test_what_is_asked_is_observed(vtpm: Bench) -> None:
    seen = []

    @contextmanager
    def observe(operation: str) -> Iterator[None]:
        seen.append(operation)
        yield

    service = Vtpm(lambda: vtpm.tap, name="swtpm", event_log=lambda: LOG, observe=observe)
    vtpm.run(service.hand_out(AK, "L-2"))
    vtpm.run(service.ek("L-2"))
    vtpm.run(service.quote(AK, qualify, SOME, with_event_log=False))
    vtpm.run(service.probe())
    assert seen == ["ak", "ek", "quote"]
    vtpm.run(service.aclose())
