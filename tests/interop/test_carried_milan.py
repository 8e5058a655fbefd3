"""The real Milan report and chain that omne-attest carries, before our verifier and the oracles.

This is real hardware's data that is there wherever the tests are; the published vectors need not be.
"""

import asyncio
import ssl
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from omne_attest import vectors as omne
from tinfoil.attestation import genoa_cert_chain

from app.appraisal.findings import CheckId, Outcome
from app.appraisal.policy import default_policy
from app.appraisal.result import AttestationResult
from app.errors import CollateralUnavailableError
from app.trust.certificates import load_certificate
from app.trust.chain import authority_problems
from app.trust.endorsements import EndorsementSource
from app.trust.offered import OfferedEndorsements
from app.trust.roots import AMD_ROOTS, TrustRoots
from app.verifier.verifier import Verifier
from app.wire.evidence import Evidence
from app.wire.product import ProductLine
from tests.interop.oracles import ACCEPTS, GENUINE, Exhibit, OmneAttest, Tinfoil
from tests.interop.peers.verdict import Answer

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
GENOA_ARK, GENOA_ASK = map(
    ssl.PEM_cert_to_DER_cert,
    (genoa_cert_chain.ARK_CERT.decode().strip(), genoa_cert_chain.ASK_CERT.decode().strip()),
)
MILAN = Exhibit(
    report=omne.attestation(),
    leaf=omne.vcek(),
    intermediate=omne.ask(),
    root=omne.ark(),
    at=NOW,
    trusted=frozenset(bytes.fromhex(root.certificate_sha256) for root in AMD_ROOTS),
    report_data=omne.attestation()[0x50:0x90],
)
GENUINE_CHECKS = {
    CheckId.SIGNATURE,
    CheckId.CHAIN,
    CheckId.VEK_KIND,
    CheckId.VEK_TCB,
    CheckId.VEK_HWID,
    CheckId.PRODUCT,
}


def appraise(exhibit: Exhibit, certificates: Iterable[bytes] | None = None) -> AttestationResult:
    """Under AMD's pins, offline; by default with the exhibit's own certificates."""
    if certificates is None:
        certificates = (exhibit.leaf, exhibit.intermediate, exhibit.root)
    offered = OfferedEndorsements()
    for certificate in certificates:
        offered += OfferedEndorsements.from_bytes(certificate, "exhibit")
    roots = TrustRoots.amd()
    verifier = Verifier(EndorsementSource(roots), roots, lambda: exhibit.at)
    evidence = Evidence(report=exhibit.report, manifest=None, certificates=None)
    return asyncio.run(verifier.verify(evidence, exhibit.report_data, default_policy(), offered=offered))


def failed(result: AttestationResult) -> set[CheckId]:
    return {finding.check for finding in result.findings if finding.outcome is Outcome.FAILED}


def chain_faults(result: AttestationResult) -> str:
    return next(finding.actual or "" for finding in result.findings if finding.check is CheckId.CHAIN)


def test_it_is_genuine_under_the_built_in_pins() -> None:
    result = appraise(MILAN)
    assert result.genuine
    assert failed(result) == {CheckId.POLICY_DEBUG}  # its guest was launched with debugging allowed


def test_omne_attest_agrees_on_every_check() -> None:
    result = appraise(MILAN)
    ours = {finding.check: finding.outcome is Outcome.PASSED for finding in result.findings}
    theirs = {check: verdict == ACCEPTS for check, verdict in OmneAttest().judge(MILAN).items()}
    assert theirs.pop(GENUINE) is result.genuine
    assert theirs == {check: ours[CheckId(check)] for check in theirs}
    assert len(theirs) == 7


def test_tinfoil_agrees_on_what_it_can_read_of_a_milan_report() -> None:
    verdicts = Tinfoil().judge(MILAN)
    answers = {check: verdict.answer for check, verdict in verdicts.items() if check != GENUINE}
    assert answers == {
        CheckId.SIGNATURE: Answer.ACCEPTS,
        CheckId.VEK_TCB: Answer.ACCEPTS,
        CheckId.VEK_HWID: Answer.ACCEPTS,
        CheckId.POLICY_MIGRATE_MA: Answer.ACCEPTS,
        CheckId.POLICY_DEBUG: Answer.REFUSES,
        CheckId.CHAIN: Answer.REFUSES,  # a version 2 report is one of Genoa to it
    }


def test_both_packages_carry_roots_that_are_pinned_here() -> None:
    amd = TrustRoots.amd()
    for root, intermediate, line in (
        (MILAN.root, MILAN.intermediate, ProductLine.MILAN),
        (GENOA_ARK, GENOA_ASK, ProductLine.GENOA),
    ):
        ark, ask = load_certificate(root, "root"), load_certificate(intermediate, "intermediate")
        trusted = amd.match(ark)
        assert trusted is not None
        assert trusted.line is line
        assert authority_problems(ask, ark, amd) == ()
    assert omne.ARK_SHA256.hex() in {root.certificate_sha256 for root in AMD_ROOTS}


@pytest.mark.parametrize(
    ("intermediate", "root", "fault"),
    [
        (GENOA_ASK, GENOA_ARK, "issuer: leaf"),
        (GENOA_ASK, MILAN.root, "issuer: leaf"),
        (MILAN.intermediate, GENOA_ARK, "issuer: intermediate"),
    ],
    ids=["the authorities of Genoa", "the intermediate of Genoa", "the root of Genoa"],
)
def test_authorities_of_another_line_make_it_not_genuine(
    intermediate: bytes, root: bytes, fault: str
) -> None:
    swapped = replace(MILAN, intermediate=intermediate, root=root)
    result = appraise(swapped)
    assert not result.genuine
    assert failed(result) & GENUINE_CHECKS == {CheckId.CHAIN}
    assert fault in chain_faults(result)
    theirs = OmneAttest().judge(swapped)
    assert {check for check, verdict in theirs.items() if verdict != ACCEPTS} == {
        GENUINE,
        CheckId.CHAIN,
        CheckId.POLICY_DEBUG,
    }


def test_an_authority_is_no_leaf_whatever_slot_it_comes_in() -> None:
    with pytest.raises(CollateralUnavailableError, match="the VCEK certificate"):
        appraise(MILAN, (MILAN.intermediate, MILAN.root))
    swapped = replace(MILAN, leaf=MILAN.intermediate, intermediate=MILAN.leaf)
    assert appraise(swapped).genuine  # certificates are told by their names, not by their order
    assert OmneAttest().judge(swapped)[CheckId.SIGNATURE].answer is Answer.REFUSES


@pytest.mark.parametrize("missing", ["leaf", "intermediate", "root"])
def test_a_certificate_that_is_missing_is_no_verdict(missing: str) -> None:
    others = [getattr(MILAN, role) for role in ("leaf", "intermediate", "root") if role != missing]
    with pytest.raises(CollateralUnavailableError):
        appraise(MILAN, others)


LEAF = load_certificate(MILAN.leaf, "leaf")
ASK = load_certificate(MILAN.intermediate, "intermediate")
ARK = load_certificate(MILAN.root, "root")


@pytest.mark.parametrize("at", [LEAF.not_valid_before_utc, LEAF.not_valid_after_utc])
def test_it_is_genuine_to_the_ends_of_its_leafs_validity(at: datetime) -> None:
    assert appraise(replace(MILAN, at=at)).genuine


@pytest.mark.parametrize(
    ("at", "faults"),
    [
        (LEAF.not_valid_before_utc - SECOND, {"not-yet-valid: leaf"}),
        (LEAF.not_valid_after_utc + SECOND, {"expired: leaf"}),
        (ASK.not_valid_before_utc - SECOND, {"not-yet-valid: leaf", "not-yet-valid: intermediate"}),
        (ARK.not_valid_after_utc + SECOND, {"expired: leaf", "expired: root"}),
        (
            ASK.not_valid_after_utc + SECOND,
            {"expired: leaf", "expired: root", "expired: intermediate"},
        ),
    ],
)
def test_out_of_its_time_it_is_not(at: datetime, faults: set[str]) -> None:
    result = appraise(replace(MILAN, at=at))
    assert not result.genuine
    assert failed(result) & GENUINE_CHECKS == {CheckId.CHAIN}
    named = {problem.rpartition(": ")[0] for problem in chain_faults(result).split("; ")}
    assert named == faults
