"""One appraisal: every check of the profile, in the order of the findings."""

import hashlib
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from app.appraisal import endorsement_checks as endorsement
from app.appraisal import guest_checks as guest
from app.appraisal import platform_checks as platform
from app.appraisal.claims import snp_claims, vtpm_claims
from app.appraisal.findings import CheckId, Finding, Profile
from app.appraisal.policy import Policy
from app.appraisal.quote import NO_EXPECTATION, Quote, QuoteExpectation
from app.appraisal.required_claims import check_required_claims
from app.appraisal.result import AttestationResult
from app.appraisal.subject import Subject
from app.appraisal.vtpm_checks import check_vtpm
from app.trust.chain import verify_chain
from app.trust.crl import check_revocation
from app.trust.endorsements import Endorsements
from app.trust.roots import TrustRoots
from app.wire.manifest import Manifest
from app.wire.report import AttestationReport

_CHECKS = (
    endorsement.check_signature,
    endorsement.check_chain,
    endorsement.check_vek_kind,
    endorsement.check_vek_tcb,
    endorsement.check_vek_hwid,
    endorsement.check_product,
    endorsement.check_simulated,
    endorsement.check_revocation,
    guest.check_report_data,
    guest.check_vmpl,
    platform.check_report_version,
    platform.check_tcb_relations,
    platform.check_tcb_minimum,
    platform.check_firmware,
    platform.check_mitigation_vectors,
    platform.check_platform_info,
    guest.check_id_block,
    guest.check_measurement,
    platform.check_chip_allowed,
)

_ATTEST_FEATURE = (
    "An SVSM built with the `attest` feature signs bytes that its host chooses, at VMPL 0, before the"
    " guest starts: such a host could forge a binding whose nonce outlives a VM boot. {known} Allow-list"
    " measurements of builds without it, keep nonces short-lived, and ask for proof of possession of the EK."
)


def appraise(  # noqa: PLR0913 (everything that a verdict depends on)
    *,
    report: AttestationReport,
    manifest: Manifest | None,
    manifest_bytes: bytes | None,
    nonce: bytes | None,
    endorsements: Endorsements,
    roots: TrustRoots,
    policy: Policy,
    at: datetime,
    quote: Quote | None = None,
    expectation: QuoteExpectation = NO_EXPECTATION,
) -> AttestationResult:
    """Appraise evidence under a policy at a time (aware); total: a failed check is a finding.

    Args:
        report: the parsed report.
        manifest: the parsed manifest, or None for a bare report.
        manifest_bytes: the manifest as it came; what REPORT_DATA is bound to.
        nonce: 64 bytes; of a bare report the expected REPORT_DATA; None leaves no verdict.
        endorsements: certificates and CRL, from wherever they came.
        roots: the trust anchors in force.
        policy: what is asked.
        at: the time at which certificates, CRL and approvals must be valid.
        quote: of the vTPM that the manifest is about, in one session with the report.
        expectation: what the relying party knows of the quote that it asked for.
    """
    leaf, intermediate, root = endorsements.leaf, endorsements.intermediate, endorsements.root
    subject = Subject(
        report=report,
        manifest=manifest,
        manifest_bytes=manifest_bytes,
        nonce=nonce,
        endorsements=endorsements,
        chain=verify_chain(leaf, intermediate, root, roots, at) if leaf else None,
        revocation=check_revocation(
            endorsements.crl, intermediate, root, at, absent_why=endorsements.crl_why or "none was looked for"
        ),
        policy=policy,
        at=at,
        quote=quote,
        expectation=expectation,
    )
    findings = [check(subject) for check in _CHECKS] + guest.check_guest_policy(subject)
    if subject.profile is Profile.SVSM:
        fresh = guest.is_passed(findings, CheckId.REPORT_DATA)
        at_vmpl_0 = guest.is_passed(findings, CheckId.VMPL)
        findings += check_vtpm(subject, fresh=fresh, at_vmpl_0=at_vmpl_0)
    findings.append(check_required_claims(subject, findings))
    claims = {"snp": snp_claims(subject)}
    vtpm = vtpm_claims(subject, findings)
    if vtpm is not None:
        claims["vtpm"] = vtpm
    return AttestationResult(
        profile=subject.profile,
        findings=_in_order(findings),
        claims=claims,
        endorsements=_endorsement_facts(subject),
        caveats=_caveats(subject),
        policy_id=policy.id,
        policy_digest=policy.digest,
        appraised_at=at,
    )


def _in_order(findings: list[Finding]) -> tuple[Finding, ...]:
    order = {check: index for index, check in enumerate(CheckId)}
    return tuple(sorted(findings, key=lambda finding: order[finding.check]))


def _caveats(subject: Subject) -> tuple[str, ...]:
    caveats: list[str] = []
    if subject.chain and subject.chain.simulated:
        caveats.append("SIMULATED: this evidence comes from the simulator and proves nothing about hardware.")
    if subject.profile is Profile.SVSM:
        known = guest.known_measurement(subject)
        if known is None or known.attest_feature is None:
            caveats.append(_ATTEST_FEATURE.format(known="Whether this build has it is not known."))
        elif known.attest_feature:
            caveats.append(_ATTEST_FEATURE.format(known=f"{known.name} has it."))
    return tuple(caveats)


def _endorsement_facts(subject: Subject) -> dict[str, Any]:
    chain, endorsements, revocation = subject.chain, subject.endorsements, subject.revocation
    root = chain.root if chain else None
    return {
        "root": root.name if root else None,
        "root_origin": root.origin if root else None,
        "root_sha256": _digest(endorsements.root),
        "intermediate_sha256": _digest(endorsements.intermediate),
        "leaf": chain.vek.kind.value if chain and chain.vek.kind else None,
        "leaf_sha256": _digest(endorsements.leaf),
        "leaf_not_after": endorsements.leaf.not_valid_after_utc.isoformat().replace("+00:00", "Z")
        if endorsements.leaf
        else None,
        "simulated": bool(chain and chain.simulated),
        "crl": revocation.state.value,
        "crl_number": revocation.number,
    }


def _digest(certificate: x509.Certificate | None) -> str | None:
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest() if certificate else None
