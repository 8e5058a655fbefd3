"""The service when the vTPM is missing, refuses, hangs, is reset, or has another EK."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.config import Settings
from app.errors import TpmRefusedError
from app.evidence.simulator.backend import SimulatorBackend
from app.evidence.simulator.software_tpm import SimulatedVtpm
from app.evidence.vtpm.vtpm import Vtpm
from app.main import create_app
from app.tpm.causes import TpmCause, unavailable
from app.tpm.client import Tpm
from app.tpm.transport import Transport
from app.wire import b64
from tests.api.backends import ScriptedBackend
from tests.api.service import Service, problem
from tests.api.tpm_exchange import NONCE, SECRET, TEXT, challenge_to, keys_of, live
from tests.interop.software_tpm import demand
from tests.wire.samples import SWTPM_EK


@pytest.fixture
def service(trusting: Service) -> Service:
    demand("swtpm")
    return trusting


# The EK beside the TPM's


def test_the_ek_is_compared_with_the_tpms(service: Service) -> None:
    service.attest(NONCE)
    document = service.get("/ek").json()
    assert document["live"] == {"state": "matches", "name": document["name"], "why": None, "remedy": None}


def test_an_ek_that_the_tpm_has_no_more(
    new_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    demand("swtpm")
    monkeypatch.setattr(SimulatedVtpm, "public", lambda _: SWTPM_EK)  # a manifest from before
    with Service(create_app(new_settings(role="attester"))) as service:
        service.attest(NONCE)
        found = live(service)
        assert found["state"] == "differs"
        assert found["name"] == keys_of(service)["ek_name"]
        assert "TPM2_ChangeEPS" in found["why"]
        assert "stale" in found["why"]
        assert found["remedy"] == "Restart the VM."


def test_an_ek_that_cannot_be_compared(new_settings: Callable[..., Settings]) -> None:
    with Service(create_app(new_settings(role="attester", simulator_vtpm="none"))) as service:
        service.attest(NONCE)
        found = live(service)
    assert (found["state"], found["name"]) == ("not-compared", None)
    assert "has no TPM" in found["why"]
    assert "swtpm" in found["remedy"]
    odd = new_settings(role="attester", simulator_fault="vtpm.ek_template")
    with Service(create_app(odd)) as service:
        service.attest(NONCE)
        assert live(service)["state"] == "not-compared"
        assert "follows no template" in live(service)["why"]


# No TPM, or one that does not do as it is told


BODIES: dict[str, dict[str, Any]] = {
    "/ak": {},
    "/quote": {"nonce": TEXT},
    "/attest": {"nonce": TEXT, "quote": {}},
    "/ak/activate": {
        "credential_blob": b64.encode(bytes.fromhex("0026 0020") + bytes(36)),
        "encrypted_secret": b64.encode(b"\1\0" + bytes(256)),
    },
}


def vtpm_over(open_transport: Callable[[], Transport], **options: Any) -> Vtpm:
    return Vtpm(open_transport, name="the TPM", event_log=bytes, **options)


@pytest.mark.parametrize("path", BODIES)
def test_report_only_is_a_mode_of_its_own(
    new_settings: Callable[..., Settings], tmp_path: Path, path: str
) -> None:
    settings = new_settings(role="attester", backend="configfs", tpm_device=tmp_path / "tpmrm0")
    backend = ScriptedBackend()
    with Service(create_app(settings, backend=backend)) as service:
        answer = service.post(path, json=BODIES[path])
        assert (answer.status_code, problem(answer)) == (503, "backend-unavailable")
        assert answer.json()["cause"] == "tpm-missing"
        assert f"{tmp_path}/tpmrm0 cannot be opened" in answer.json()["detail"]
        assert "CONFIG_TCG_SVSM" in answer.json()["remedy"]
        assert backend.asked == 0  # the device is not asked for what cannot be finished
        assert service.post("/attest", json={"nonce": TEXT}).status_code == 200
        assert service.get("/readyz").status_code == 200
        text = service.get("/metrics").text
    operation = {"/ak": "ak", "/quote": "quote", "/attest": "ak", "/ak/activate": "activate"}[path]
    name = "svsm_attest_tpm_operation_duration_seconds_count"
    assert f'{name}{{cause="tpm-missing",operation="{operation}"}} 1.0' in text


def test_a_tpm_that_refuses_is_told_by_the_name_of_its_code(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: object) -> None:
        raise TpmRefusedError("TPM2_Quote", 0x921, "TPM_RC_LOCKOUT")

    monkeypatch.setattr(Tpm, "quote", locked)
    answer = service.post("/quote", json={"nonce": TEXT})
    assert (answer.status_code, problem(answer)) == (503, "backend-unavailable")
    assert answer.json()["cause"] == "tpm-refused"
    assert answer.json()["detail"] == "the TPM refused: TPM2_Quote answered 0x921 TPM_RC_LOCKOUT"
    assert "clear-lockout" in answer.json()["remedy"]


class Stuck:
    """A TPM that takes commands and answers none before it is released, and then goes away."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.released = threading.Event()

    def exchange(self, command: bytes, *, timeout_s: float) -> bytes:
        del command, timeout_s
        self.reached.set()
        self.released.wait()
        raise unavailable(TpmCause.GONE, "it was released")

    def close(self) -> None:
        """See Transport."""


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    transport = Stuck()
    yield transport
    transport.released.set()


def test_while_a_tpm_hangs_the_service_answers(new_settings: Callable[..., Settings], stuck: Stuck) -> None:
    settings = new_settings(role="attester", backend="configfs")
    vtpm = vtpm_over(lambda: stuck, max_waiting=2)

    async def crowd(service: Service) -> list[Any]:
        body = json.dumps({"nonce": TEXT})
        asks = [asyncio.create_task(service.client.post("/quote", content=body)) for _ in range(8)]
        await asyncio.to_thread(stuck.reached.wait)
        # Nothing of this waits for the TPM: it is held until after these answers.
        for path in ("/livez", "/metrics", "/openapi.json"):
            assert (await service.client.get(path)).status_code == 200
        assert (await service.client.post("/attest", content=body)).status_code == 200
        done, waiting = await asyncio.wait(asks, return_when=asyncio.FIRST_COMPLETED)
        while len(done) < 5:
            done, waiting = await asyncio.wait(asks, timeout=0.01)
        assert len(waiting) == 3
        stuck.released.set()
        return await asyncio.gather(*asks)

    with Service(create_app(settings, backend=ScriptedBackend(), vtpm=vtpm)) as service:
        answers = service.run(crowd(service))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) == 5
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert {problem(answer) for answer in answers} == {"rate-limited", "backend-unavailable"}


def test_a_reset_between_report_and_quote_fails_closed(
    new_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    demand("swtpm")
    settings = new_settings(role="attester")
    collect = SimulatorBackend.collect

    async def collect_and_change_seed(self: SimulatorBackend, *asked: Any) -> Any:
        evidence = await collect(self, *asked)
        change = bytes.fromhex("8002 0000001b 00000124 4000000c 00000009 40000009 0000 01 0000")
        assert self.vtpm is not None
        answer = self.vtpm.open().exchange(change, timeout_s=30)
        assert answer[6:10] == bytes(4)
        return evidence

    with Service(create_app(settings)) as service:
        service.attest(NONCE, quote={})
        with monkeypatch.context() as patched:
            patched.setattr(SimulatorBackend, "collect", collect_and_change_seed)
            answer = service.post("/attest", json={"nonce": TEXT, "quote": {}})
        assert (answer.status_code, problem(answer)) == (503, "backend-unavailable")
        assert (answer.json()["cause"], answer.headers["retry-after"]) == ("tpm-reset", "1")
        assert live(service)["state"] == "differs"
        service.attest(NONCE, quote={})  # without a restart


def test_what_a_secret_was_is_not_logged(
    new_settings: Callable[..., Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    demand("swtpm")
    settings = new_settings(role="attester", log_level="debug", log_format="json")
    with Service(create_app(settings)) as service:
        answer = service.post("/ak/activate", json=challenge_to(keys_of(service)))
        assert answer.status_code == 200
    logged = capsys.readouterr().err
    assert '"event": "challenge_answered"' in logged
    for written in (SECRET.decode(), SECRET.hex(), b64.encode(SECRET)):
        assert written not in logged
