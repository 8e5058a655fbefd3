import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app import __version__
from app.api.readiness import PROBE_LIFETIME_S, Readiness
from app.attester.attester import Attester
from app.config import Settings
from app.evidence.backend import ProbeCheck
from app.main import create_app
from app.wire import b64
from tests.api.backends import ScriptedBackend
from tests.api.service import Service

FACTS = {
    "role": "attester",
    "backend": "configfs",
    "simulated": False,
    "allow_simulator": False,
    "version": "1",
}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def readiness(backend: ScriptedBackend, clock: Clock, checks: tuple[ProbeCheck, ...] = ()) -> Readiness:
    return Readiness(FACTS, Attester(backend, interval_s=0), lambda: checks, clock)


def test_polling_does_not_hammer_the_kernel() -> None:
    backend, clock = ScriptedBackend(), Clock()
    asked = readiness(backend, clock)

    async def poll() -> None:
        await asyncio.gather(*(asked.document() for _ in range(50)))

    asyncio.run(poll())
    assert backend.probed == 1
    clock.now += PROBE_LIFETIME_S - 0.01
    asyncio.run(poll())
    assert backend.probed == 1
    clock.now += 0.02
    asyncio.run(poll())
    assert backend.probed == 2


def test_what_changes_is_seen_after_that() -> None:
    backend, clock = ScriptedBackend(ready=False), Clock()
    asked = readiness(backend, clock)
    before = asyncio.run(asked.document())
    assert before["ready"] is False
    assert before["checks"] == [
        {"name": "provider", "ok": False, "detail": "sev_guest", "remedy": "modprobe sev-guest"}
    ]
    backend.ready = True
    clock.now += PROBE_LIFETIME_S
    assert asyncio.run(asked.document())["ready"] is True
    assert backend.asked == 0


def test_one_bad_check_of_either_role_is_enough() -> None:
    bad = ProbeCheck(name="trust-roots", ok=False, detail="none")
    assert asyncio.run(readiness(ScriptedBackend(), Clock(), (bad,)).document())["ready"] is False


def test_nothing_checked_is_nothing_proved() -> None:
    assert asyncio.run(Readiness(FACTS, None, lambda: ()).document())["ready"] is False


def ask(settings: Settings, **more: Any) -> tuple[int, dict[str, Any]]:
    with Service(create_app(settings, **more)) as service:
        answer = service.get("/readyz")
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, answer.json()


def checks(document: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["detail"] for check in document["checks"]}


def test_both_roles_on_the_simulator_say_so(new_settings: Callable[..., Settings]) -> None:
    status, document = ask(new_settings())
    assert status == 200
    found = checks(document)
    del document["checks"]
    assert document == {
        "ready": True,
        "role": "both",
        "backend": "simulator",
        "simulated": True,
        "allow_simulator": False,
        "version": __version__,
    }
    assert "SIMULATED Genoa" in found["simulator"]
    assert found["trust-roots"] == "ARK-Milan (amd), ARK-Genoa (amd), ARK-Turin (amd)"
    assert found["policy"].startswith("default sha256:")
    assert found["kds"].startswith("not asked")


def test_with_the_setting_its_root_and_policy_are_named(new_settings: Callable[..., Settings]) -> None:
    document = ask(new_settings(allow_simulator=True))[1]
    assert document["allow_simulator"] is True
    found = checks(document)
    assert found["trust-roots"].endswith("ARK-Genoa (simulator)")
    assert found["policy"].startswith("simulator sha256:")
    assert found["policy"].endswith("known: default, simulator")
    assert found["kds"] == "SIMULATED, in this process"
    assert "endorsement-store" not in found


def test_a_mere_verifier_has_no_backend(new_settings: Callable[..., Settings], tmp_path: Path) -> None:
    store = tmp_path / "new" / "store"
    status, document = ask(new_settings(role="verifier", store=store))
    assert status == 200
    assert (document["backend"], document["simulated"]) == (None, False)
    found = checks(document)
    assert set(found) == {"trust-roots", "policy", "endorsement-store", "kds"}
    assert found["kds"] == "https://kdsintf.amd.com"
    assert found["endorsement-store"] == f"{store}, writable"


def test_a_mere_attester_has_no_verifiers_checks(new_settings: Callable[..., Settings]) -> None:
    backend = ScriptedBackend(ready=False)
    status, document = ask(new_settings(role="attester", backend="configfs"), backend=backend)
    assert status == 503
    assert (document["ready"], document["backend"], document["simulated"]) == (False, "configfs", False)
    assert set(checks(document)) == {"provider", "vtpm"}
    assert backend.asked == 0


def test_a_machine_without_configfs_is_not_ready_and_says_what_to_do(
    new_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = new_settings(role="attester", backend="configfs", configfs_path=tmp_path / "tsm" / "report")
    status, document = ask(settings)
    assert status == 503
    missing = next(check for check in document["checks"] if not check["ok"])
    assert missing["remedy"]


@pytest.mark.parametrize(
    ("device", "why", "remedy"),
    [
        ("tpmrm0", "cannot be opened: No such file or directory", "CONFIG_TCG_SVSM"),
        ("file", "is not a character device", "CONFIG_TCG_SVSM"),
    ],
)
def test_a_machine_without_a_tpm_has_reports_and_is_ready(
    new_settings: Callable[..., Settings], tmp_path: Path, device: str, why: str, remedy: str
) -> None:
    (tmp_path / "file").touch()
    settings = new_settings(role="attester", backend="configfs", tpm_device=tmp_path / device)
    status, document = ask(settings, backend=ScriptedBackend())
    assert (status, document["ready"]) == (200, True)
    (found,) = (check for check in document["checks"] if check["name"] == "vtpm")
    assert found["ok"] is True
    assert found["detail"] == f"report-only, no quotes: {tmp_path / device} {why}"
    assert remedy in found["remedy"]


def test_a_store_that_cannot_be_made_stops_nobody(
    new_settings: Callable[..., Settings], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    settings = new_settings(
        role="verifier", store=tmp_path / "file" / "store", log_level="warning", log_format="json"
    )
    status, document = ask(settings)
    assert status == 200
    assert checks(document)["endorsement-store"].endswith("not writable: nothing is kept")
    assert '"event": "store_unusable"' in capsys.readouterr().err


def test_a_kds_in_trouble_is_told(new_settings: Callable[..., Settings], trusting: Service) -> None:
    evidence = {**trusting.attest(bytes(64)), "certificates": None}
    body = {"nonce": b64.encode(bytes(64)), "evidence": evidence}
    settings = new_settings(
        role="verifier", kds_url="http://127.0.0.1:9", kds_timeout_s=0.5, allow_simulator=True
    )
    with Service(create_app(settings)) as service:
        assert service.post("/verify", json=body).status_code == 503
        document = service.get("/readyz").json()
        text = service.get("/metrics").text
    assert "not asked for now" in checks(document)["kds"]
    assert document["ready"] is True  # evidence may bring its own
    assert "svsm_attest_kds_requests_total" in text
