"""Evidence out of the attester, a verdict out of the verifier, for every shape there is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.config import Settings
from app.errors import ConfigError
from app.main import create_app
from app.wire import b64
from tests.api.service import Service, new_nonce, outcomes, served

LINES = ("Milan", "Genoa", "Turin")


@pytest.mark.parametrize("key", ["vcek", "vlek"])
@pytest.mark.parametrize("version", [2, 3, 5])
@pytest.mark.parametrize("line", LINES)
def test_every_line_version_and_key(
    new_settings: Callable[..., Settings], line: str, version: int, key: str
) -> None:
    settings = new_settings(
        allow_simulator=True,
        simulator_product=line,
        simulator_report_version=version,
        simulator_signing_key=key,
    )
    nonce = new_nonce()
    with Service(create_app(settings)) as service:
        document = service.verify(nonce, service.attest(nonce))
    assert document["genuine"] is True
    assert set(outcomes(document).values()) <= {"passed", "warned", "not_requested"}
    not_passed = {check for check, outcome in outcomes(document).items() if outcome == "warned"}
    # Only from version 3 on can a report say that the alias check is complete.
    assert not_passed == ({"snp.simulated", "snp.platform_info"} if version == 2 else {"snp.simulated"})
    assert document["verdict"] == ("warning" if version == 2 else "affirming")
    claims = document["claims"]["snp"]
    assert (claims["product"], claims["version"], claims["signing_key"]) == (line, version, key)
    assert (claims["cpuid"] is None) == (version == 2)
    assert (claims["current_mit_vector"] is None) == (version < 5)
    assert (claims["csp_id"] is None) == (key == "vcek")
    assert document["endorsements"]["root"] == f"ARK-{line}"
    assert document["endorsements"]["leaf"] == key


@pytest.mark.parametrize(
    ("ek", "algorithm", "template"),
    [("rsa2048", "RSA-2048", "L-1"), ("p256", "P-256", "L-2"), ("p384", "P-384", "H-3")],
)
def test_every_kind_of_ek(
    new_settings: Callable[..., Settings], ek: str, algorithm: str, template: str
) -> None:
    nonce = new_nonce()
    with Service(create_app(new_settings(allow_simulator=True, simulator_ek=ek))) as service:
        document = service.verify(nonce, service.attest(nonce))
        key = service.get("/ek").json()
    claims = document["claims"]["vtpm"]
    assert document["verdict"] == "affirming"
    assert (claims["ek_alg"], claims["ek_template"]) == (algorithm, template)
    assert (claims["ek_sha256"], claims["ek_name"]) == (key["sha256"], key["name"])


@pytest.mark.parametrize(
    ("service_name", "verdict"), [("vtpm", "affirming"), ("all", "affirming"), ("uefi-mm", "warning")]
)
def test_every_service(trusting: Service, service_name: str, verdict: str) -> None:
    nonce = new_nonce()
    document = trusting.verify(nonce, trusting.attest(nonce, service=service_name))
    assert document["verdict"] == verdict


def test_a_manifest_version_that_the_svsm_does_not_have(trusting: Service) -> None:
    answer = trusting.post("/attest", json={"nonce": b64.encode(new_nonce()), "manifest_version": 1})
    assert answer.status_code == 503
    assert answer.json()["cause"] == "svsm-refused"
    assert answer.json()["remedy"]


@pytest.fixture
def far_attester(new_settings: Callable[..., Settings]) -> Any:
    """An attester on the simulator, behind a socket, whose host offers no certificates."""
    settings = new_settings(role="attester", simulator_certificates=False)
    return served(create_app(settings), settings.server_options())


def test_a_verifier_elsewhere_trusts_the_simulator_by_its_root_and_asks_its_kds(
    new_settings: Callable[..., Settings], far_attester: Any, tmp_path: Path
) -> None:
    nonce = new_nonce()
    with far_attester as url:
        evidence = httpx.get(f"{url}/attest", params={"nonce": nonce.hex()}, timeout=60).json()
        assert evidence["certificates"] is None
        root = tmp_path / "ark.pem"
        root.write_bytes(httpx.get(f"{url}/simulator/ark.pem").content)
        chosen = {
            "role": "verifier",
            "trust_roots": (root,),
            "kds_url": f"{url}/simulator/kds",
            "store": tmp_path / "store",
        }
        with pytest.raises(ConfigError, match="SIMULATED root"):
            create_app(new_settings(**chosen))
        with Service(create_app(new_settings(**chosen, allow_simulator=True))) as verifier:
            first = verifier.verify(nonce, evidence)
            assert verifier.get("/readyz").json()["simulated"] is True
    assert first["genuine"] is True
    assert first["verdict"] == "warning"  # no measurement is known there
    assert first["endorsements"]["simulated"] is True
    assert first["endorsements"]["root_origin"] == "extra"
    assert outcomes(first)["snp.revocation"] == "passed"
    # The attester is gone; what it was asked for is in the store.
    with Service(create_app(new_settings(**chosen, allow_simulator=True, offline=True))) as verifier:
        again = verifier.verify(nonce, evidence)
    assert outcomes(again) == outcomes(first)


def test_a_verifier_elsewhere_that_trusts_only_amd_refuses(
    new_settings: Callable[..., Settings], trusting: Service
) -> None:
    nonce = new_nonce()
    with Service(create_app(new_settings(role="verifier", offline=True))) as verifier:
        document = verifier.verify(nonce, trusting.attest(nonce))
        assert verifier.get("/readyz").json()["simulated"] is False
    assert document["genuine"] is False
    failed = {check for check, outcome in outcomes(document).items() if outcome == "failed"}
    assert failed == {"snp.chain", "snp.simulated"}
