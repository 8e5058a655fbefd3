"""Every check, watched failing: one simulator for each fault, one policy that asks for everything.

Without a fault everything passes under that policy; with one, the checks that the fault names do
not pass, and all others do.
"""

from collections.abc import Callable
from typing import Any

import pytest

from app.appraisal.findings import GENUINE, QUOTE, QUOTED, CheckId
from app.config import Settings
from app.evidence.simulator.backend import SimulatorBackend
from app.evidence.simulator.faults import Fault
from app.evidence.simulator.launch import Launch
from app.evidence.simulator.software_tpm import VtpmChoice
from app.main import create_app
from app.trust.names import VekKind
from app.wire import b64
from app.wire.bits import GuestPolicy
from app.wire.product import ProductLine
from tests.api.service import Service, new_nonce, outcomes, problem

# Every demand made, every permission but the mandatory bit 17 withheld, firmware ABI 1.55.
LAUNCH = Launch(
    policy=GuestPolicy(
        abi_minor=55,
        abi_major=1,
        smt=False,
        migrate_ma=False,
        debug=False,
        single_socket=True,
        cxl=False,
        mem_aes_256_xts=True,
        rapl_dis=True,
        ciphertext_hiding=True,
        page_swap_disable=True,
    ),
    family_id=b"\xfa" * 16,
    image_id=b"\x1a" * 16,
)
CSP_ID = "CN=cc.simulated.invalid"
PLATFORM_BITS = ("smt", "tsme", "ecc", "rapl_disabled", "ciphertext_hiding", "alias_check_complete", "tio")

UNAVAILABLE = {fault for fault in Fault if fault.effect.kds_status}
QUOTED_FAULTS = {fault for fault in Fault if fault.effect.needs_tpm}  # see test_quote_faults.py
# Whose signature it is matters to these; the others are watched under a VCEK only.
ABOUT_KEYS = ("snp.signature", "snp.chain", "snp.vek.", "snp.revocation")
# What the demanding policy finds wrong beside the fault itself.
BESIDE = {
    Fault.VEK_HWID_MASKED: {"snp.chip_allowed"},  # a chip without an id is nobody's
    Fault.PRODUCT: {"snp.tcb.minimum", "snp.mit_vector"},  # no floor is known for such a processor
    Fault.PRODUCT_LINE: {"snp.mit_vector"},
    Fault.REPORT_VERSION: {"snp.mit_vector"},  # an old report has no such vectors
    Fault.VTPM_EK_TEMPLATE: {"vtpm.ek_enrolled"},  # with other attributes it is another key
}
# These only lower a verdict to a warning.
WARNINGS = {
    "snp.firmware",
    "snp.measurement",
    "snp.platform_info",
    "snp.simulated",
    *(f"snp.policy.{name}" for name in ("abi", "smt", "cxl", "single_socket", "mem_aes_256_xts")),
    *(f"snp.policy.{name}" for name in ("rapl_dis", "ciphertext_hiding", "page_swap_disable")),
}
WARNING_FAULTS = {Fault.REVOCATION_STALE, Fault.REVOCATION_MISSING}


def demanding(claims: dict[str, Any]) -> dict[str, Any]:
    """A policy that asks for everything that a faultless simulator says."""
    snp = claims["snp"]
    cpu = "/".join(f"{snp['cpuid'][part]:02x}" for part in ("family", "model", "stepping"))
    floor = {name: level for name, level in snp["reported_tcb"].items() if name != "raw"}
    vectors = {"launch": snp["launch_mit_vector"], "current": snp["current_mit_vector"]}
    return {
        "version": 1,
        "id": "demanding",
        "root_of_trust": {"product_lines": [snp["product"]], "check_crl": True},
        "policy": {
            "minimum_report_version": 5,
            "minimum_guest_svn": snp["guest_svn"],
            "guest_policy": {
                "smt": False,
                "abi_major": 1,
                "abi_minor": 55,
                "single_socket": True,
                "mem_aes_256_xts": True,
                "rapl_dis": True,
                "ciphertext_hiding": True,
                "page_swap_disable": True,
            },
            "vmpl": 0,
            "minimum_tcb": {snp["product"]: floor},
            "minimum_version": snp["committed_version"].rpartition(".")[0],
            "minimum_build": int(snp["committed_version"].rpartition(".")[2]),
            "platform_info": {name: snp["platform_info"][name] for name in PLATFORM_BITS},
            "mitigation_vectors": {cpu: vectors},
            "require_author_key": True,
            "require_id_block": True,
            "trusted_id_key_hashes": [snp["id_key_digest"]],
            "family_id": snp["family_id"],
            "image_id": snp["image_id"],
            "host_data": [snp["host_data"]],
            "chip_ids": [snp["chip_id"]] if any(bytes.fromhex(snp["chip_id"])) else [],
            "csp_ids": [CSP_ID],
        },
        "reference_values": {
            "measurements": [{"value": snp["measurement"], "name": "the image", "attest_feature": False}],
            "vtpm": {"ek_templates": ["L-1"], "ek_sha256": [claims["vtpm"]["ek_sha256"]]},
        },
    }


class Bench:
    """A verifier that demands everything of the evidence of one simulator at a time."""

    def __init__(self, new_settings: Callable[..., Settings], key: VekKind) -> None:
        self.settings = new_settings(allow_simulator=True)
        self.key = key
        with self.service(None) as service:
            nonce = new_nonce()
            self.policy = demanding(service.verify(nonce, service.attest(nonce))["claims"])

    def service(self, fault: Fault | None) -> Service:
        backend = SimulatorBackend(
            line=ProductLine.GENOA,
            signing_key=self.key,
            launch=LAUNCH,
            fault=fault,
            state_dir=self.settings.simulator_state_dir,
            vtpm=VtpmChoice.NONE,
        )
        return Service(create_app(self.settings, backend=backend))

    def appraise(self, fault: Fault | None, policy: Any) -> dict[str, Any]:
        nonce = new_nonce()
        with self.service(fault) as service:
            return service.verify(nonce, service.attest(nonce), policy)


@pytest.fixture(scope="module")
def vcek(new_settings: Callable[..., Settings]) -> Bench:
    return Bench(new_settings, VekKind.VCEK)


@pytest.fixture(scope="module")
def vlek(new_settings: Callable[..., Settings]) -> Bench:
    return Bench(new_settings, VekKind.VLEK)


def not_passed(document: dict[str, Any]) -> dict[str, str]:
    found = outcomes(document).items()
    return {check: outcome for check, outcome in found if outcome not in {"passed", "not_requested"}}


def expected(fault: Fault) -> dict[str, str]:
    checks = {*fault.checks, *BESIDE.get(fault, ()), "snp.simulated"}
    found = {
        check: "warned" if check in WARNINGS or fault in WARNING_FAULTS else "failed" for check in checks
    }
    if fault is Fault.CHAIN:
        found["snp.simulated"] = "failed"  # that other root is no setting's
    return found


@pytest.mark.parametrize("kind", ["vcek", "vlek"])
def test_without_a_fault_everything_passes(request: pytest.FixtureRequest, kind: str) -> None:
    bench: Bench = request.getfixturevalue(kind)
    document = bench.appraise(None, bench.policy)
    assert document["verdict"] == "affirming"
    assert not_passed(document) == {"snp.simulated": "warned"}
    unasked = {check for check, outcome in outcomes(document).items() if outcome == "not_requested"}
    assert unasked == QUOTE | QUOTED | ({"snp.chip_allowed"} if kind == "vlek" else set())


@pytest.mark.parametrize("fault", sorted(set(Fault) - UNAVAILABLE - QUOTED_FAULTS))
def test_a_fault_fails_its_checks_and_no_other(vcek: Bench, fault: Fault) -> None:
    policy = vcek.policy
    if fault is Fault.ID_BLOCK_AUTHOR:  # a trusted ID key would need no trusted author
        keys = {"trusted_id_key_hashes": [], "trusted_author_key_hashes": [LAUNCH.author_key_digest.hex()]}
        policy = {**policy, "policy": {**policy["policy"], **keys}}
    document = vcek.appraise(fault, policy)
    assert not_passed(document) == expected(fault)
    assert document["verdict"] == ("contraindicated" if "failed" in expected(fault).values() else "warning")
    assert document["genuine"] is not any(check in GENUINE for check in fault.checks)


@pytest.mark.parametrize(
    "fault",
    sorted(
        fault
        for fault in set(Fault) - UNAVAILABLE
        if fault.startswith(ABOUT_KEYS) and not fault.effect.vcek_only
    ),
)
def test_so_it_does_under_a_vlek(vlek: Bench, fault: Fault) -> None:
    assert not_passed(vlek.appraise(fault, vlek.policy)) == expected(fault)


def test_every_check_that_can_fail_has_a_fault() -> None:
    watched = {check for fault in Fault for check in fault.checks}
    # The simulator is always simulated; a policy decides on claims alone.
    assert set(CheckId) - watched == {"snp.simulated", "policy.required_claims"}


@pytest.mark.parametrize("fault", sorted(UNAVAILABLE))
def test_a_kds_in_trouble_is_unavailable_and_never_untrusted(vcek: Bench, fault: Fault) -> None:
    nonce = new_nonce()
    with vcek.service(fault) as service:
        body = {"nonce": b64.encode(nonce), "evidence": service.attest(nonce)}
        answer = service.post("/verify", json=body)
        kds = service.get("/simulator/kds/vcek/v1/Genoa/cert_chain")
    assert problem(answer) == "collateral-unavailable"
    assert answer.json()["upstream_status"] == fault.effect.kds_status
    assert kds.status_code == fault.effect.kds_status
    assert problem(kds) in {"rate-limited", "not-found"}


def test_a_required_claim_that_nobody_asserts_lowers_the_verdict(vcek: Bench) -> None:
    policy = {**vcek.policy, "policy": {**vcek.policy["policy"], "required_claims": ["file-system"]}}
    document = vcek.appraise(None, policy)
    assert outcomes(document)["policy.required_claims"] == "warned"
    assert document["verdict"] == "warning"
