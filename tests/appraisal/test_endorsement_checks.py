from dataclasses import replace
from typing import Any

import pytest

from app.appraisal import endorsement_checks as checks
from app.appraisal.findings import Outcome
from app.trust.chain import ChainFault, ChainProblem
from app.trust.crl import RevocationState, RevocationStatus
from app.trust.vek import VekKind
from app.wire.product import Cpuid, ProductLine
from app.wire.report import KeyInfo
from app.wire.tcb import TcbVersion
from tests.appraisal.subjects import CHIP, ENDORSEMENTS, ROOT, policy, subject

VLEK_KEY = KeyInfo(author_key_en=False, mask_chip_key=False, signing_key=1)
VLEK: dict[str, Any] = {
    "key_info": VLEK_KEY,
    "chip_id": bytes(64),
    "vek_kind": VekKind.VLEK,
    "vek_hwid": None,
    "vek_csp_id": "CN=example",
}


def key(signing_key: int, *, masked: bool = False) -> KeyInfo:
    return KeyInfo(author_key_en=False, mask_chip_key=masked, signing_key=signing_key)


def crl(state: RevocationState) -> RevocationStatus:
    return RevocationStatus(state=state, why="because")


MASKED_OK = policy(root_of_trust={"allow_masked_chip_id": True})
NO_SIMULATOR = policy(root_of_trust={"allow_simulator": False})
PROBLEM = (ChainProblem(ChainFault.EXPIRED, "leaf", "it was valid until yesterday"),)
TURIN_TCB = TcbVersion(bootloader=4, tee=0, snp=27, microcode=0xDE, fmc=0)

CASES: list[tuple[str, dict[str, Any], Outcome, str]] = [
    ("signature", {}, Outcome.PASSED, "signed this report"),
    (
        "signature",
        {"endorsements": replace(ENDORSEMENTS, signature_valid=False)},
        Outcome.FAILED,
        "was changed",
    ),
    ("chain", {}, Outcome.PASSED, "ARK-Milan (amd root)"),
    ("chain", {"chain_problems": PROBLEM}, Outcome.FAILED, "1 problem"),
    ("chain", {"chain": None}, Outcome.FAILED, "names no signing key"),
    ("chain", {"chain_root": None}, Outcome.PASSED, "no root"),
    ("vek_kind", {}, Outcome.PASSED, "VCEK"),
    ("vek_kind", VLEK, Outcome.PASSED, "VLEK"),
    ("vek_kind", {"key_info": VLEK_KEY}, Outcome.FAILED, "another kind"),
    ("vek_kind", {"vek_kind": None}, Outcome.FAILED, "another kind"),
    ("vek_kind", {"key_info": key(7)}, Outcome.FAILED, "7 (none)"),
    ("vek_kind", {"key_info": key(3)}, Outcome.FAILED, "3 (reserved)"),
    ("vek_kind", {"key_info": key(7), "chain": None}, Outcome.FAILED, "7 (none)"),
    ("vek_tcb", {}, Outcome.PASSED, "exactly the TCB"),
    (
        "vek_tcb",
        {"vek_tcb": TcbVersion(bootloader=4, tee=0, snp=26, microcode=0xDE)},
        Outcome.FAILED,
        "another TCB",
    ),
    ("vek_tcb", {"vek_tcb": None}, Outcome.FAILED, "does not state a complete TCB"),
    ("vek_tcb", {"chain": None}, Outcome.FAILED, "does not state a complete TCB"),
    ("vek_tcb", {"vek_line": ProductLine.TURIN, "vek_tcb": TURIN_TCB}, Outcome.FAILED, "another TCB"),
    ("vek_tcb", {"vek_line": None}, Outcome.FAILED, "another TCB"),
    ("vek_tcb", {"reported_tcb": b"\0\0\0\1\0\0\0\0"}, Outcome.FAILED, "another TCB"),
    ("vek_hwid", {}, Outcome.PASSED, "issued for this chip"),
    ("vek_hwid", {"vek_hwid": CHIP[:-1] + b"\0"}, Outcome.FAILED, "another chip"),
    ("vek_hwid", {"vek_hwid": None}, Outcome.FAILED, "this one does not"),
    ("vek_hwid", {"vek_csp_id": "CN=x"}, Outcome.FAILED, "this one does not"),
    ("vek_hwid", {"chain": None}, Outcome.FAILED, "this one does not"),
    ("vek_hwid", {"chip_id": CHIP[:8] + bytes(56), "vek_hwid": CHIP[:8]}, Outcome.PASSED, "this chip"),
    ("vek_hwid", {"chip_id": CHIP, "vek_hwid": CHIP[:8]}, Outcome.FAILED, "another chip"),
    ("vek_hwid", {"chip_id": bytes(64)}, Outcome.FAILED, "masks CHIP_ID"),
    ("vek_hwid", {"chip_id": bytes(64), "policy": MASKED_OK}, Outcome.PASSED, "policy accepts"),
    ("vek_hwid", {"key_info": key(0, masked=True)}, Outcome.FAILED, "masks CHIP_ID"),
    ("vek_hwid", VLEK, Outcome.PASSED, "names a provider"),
    ("vek_hwid", {**VLEK, "vek_csp_id": None}, Outcome.FAILED, "this one does not"),
    ("vek_hwid", {**VLEK, "vek_hwid": CHIP}, Outcome.FAILED, "this one does not"),
    ("vek_hwid", {**VLEK, "policy": policy({"csp_ids": ["CN=example"]})}, Outcome.PASSED, "provider"),
    ("vek_hwid", {**VLEK, "policy": policy({"csp_ids": ["CN=other"]})}, Outcome.FAILED, "not list"),
    ("product", {}, Outcome.PASSED, "agree on Milan"),
    (
        "product",
        {"cpuid": Cpuid(family=0x1A, model=0x50, stepping=0)},
        Outcome.FAILED,
        "No published chain",
    ),
    ("product", {"cpuid": Cpuid(family=0x19, model=0x11, stepping=1)}, Outcome.FAILED, "is a Genoa part"),
    ("product", {"vek_line": None}, Outcome.FAILED, "No published chain"),
    ("product", {"chain": None}, Outcome.FAILED, "No published chain"),
    ("product", {"vek_product_name": "Genoa"}, Outcome.PASSED, "agree on Milan"),
    ("product", {"version": 2, "cpuid": None}, Outcome.PASSED, "agree on Milan"),
    ("product", {"version": 2, "cpuid": None, "vek_product_name": "Genoa"}, Outcome.FAILED, "contradicts"),
    ("product", {"version": 2, "cpuid": None, "vek_product_name": None}, Outcome.PASSED, "agree on Milan"),
    ("product", {"version": 2, "cpuid": None, "chain": None}, Outcome.FAILED, "No published chain"),
    (
        "product",
        {"policy": policy(root_of_trust={"product_lines": ["Turin"]})},
        Outcome.FAILED,
        "does not accept Milan",
    ),
    ("simulated", {}, Outcome.PASSED, "No certificate"),
    ("simulated", {"chain": None}, Outcome.PASSED, "No certificate"),
    ("simulated", {"chain_simulated": True}, Outcome.WARNED, "proves nothing"),
    ("simulated", {"chain_simulated": True, "chain_root": None}, Outcome.FAILED, "no hardware"),
    ("simulated", {"chain_simulated": True, "policy": NO_SIMULATOR}, Outcome.FAILED, "no hardware"),
    ("revocation", {}, Outcome.PASSED, "does not list"),
    ("revocation", {"revocation": crl(RevocationState.REVOKED)}, Outcome.FAILED, "because"),
    ("revocation", {"revocation": crl(RevocationState.INVALID)}, Outcome.FAILED, "because"),
    *(
        ("revocation", {"revocation": crl(state)}, Outcome.WARNED, "because")
        for state in (RevocationState.STALE, RevocationState.NOT_YET_VALID, RevocationState.ABSENT)
    ),
    (
        "revocation",
        {
            "revocation": crl(RevocationState.ABSENT),
            "policy": policy(root_of_trust={"crl_unavailable": "ignore"}),
        },
        Outcome.NOT_REQUESTED,
        "because",
    ),
    (
        "revocation",
        {"revocation": crl(RevocationState.ABSENT), "policy": policy(root_of_trust={"check_crl": False})},
        Outcome.NOT_REQUESTED,
        "because",
    ),
    (
        "revocation",
        {"revocation": crl(RevocationState.REVOKED), "policy": policy(root_of_trust={"check_crl": False})},
        Outcome.FAILED,
        "because",
    ),
]


@pytest.mark.parametrize(("check", "changes", "outcome", "word"), CASES)
def test_endorsement_check(check: str, changes: dict[str, Any], outcome: Outcome, word: str) -> None:
    finding = getattr(checks, f"check_{check}")(subject(**changes))
    assert (finding.outcome, word in f"{finding.why} {finding.actual}") == (outcome, True), finding


def test_an_extra_root_shows_its_origin() -> None:
    finding = checks.check_chain(subject(chain_root=replace(ROOT, origin="extra")))
    assert "extra root" in str(finding.actual)


def test_every_problem_of_a_chain_is_named() -> None:
    two = (*PROBLEM, ChainProblem(ChainFault.SIGNATURE, "intermediate", "the root did not sign it"))
    finding = checks.check_chain(subject(chain_problems=two))
    assert "expired: leaf: it was valid until yesterday" in str(finding.actual)
    assert "signature: intermediate: the root did not sign it" in str(finding.actual)
