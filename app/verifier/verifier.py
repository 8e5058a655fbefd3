"""One verification: parse, gather endorsements, appraise."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import structlog

from app.appraisal.appraise import appraise
from app.appraisal.key_proof import KeyProof, NoKeyProof
from app.appraisal.policy import Policy
from app.appraisal.quote import NO_EXPECTATION, Quote, QuoteExpectation
from app.appraisal.result import AttestationResult
from app.errors import CollateralUnavailableError, EvidenceError
from app.trust.crl import RevocationState, check_revocation
from app.trust.endorsements import Endorsements, EndorsementSource, OfferedEndorsements
from app.trust.roots import TrustRoots
from app.verifier.key_challenges import ChallengeAnswer, KeyChallenges
from app.wire.binding import demand_nonce
from app.wire.certificate_table import CertificateTable
from app.wire.evidence import Binding, Evidence
from app.wire.manifest import parse_manifest
from app.wire.report import AttestationReport

_log = structlog.get_logger()
_UNUSABLE = {RevocationState.ABSENT, RevocationState.STALE, RevocationState.NOT_YET_VALID}


class Verifier:
    """Appraises evidence under the roots in force.

    Args:
        source: where endorsements are looked for.
        roots: the trust anchors in force.
        clock: the time of appraisal; certificates are judged by it, never by the guest's time.
        challenges: those that were given out for attestation keys; None where none ever is.
    """

    def __init__(
        self,
        source: EndorsementSource,
        roots: TrustRoots,
        clock: Callable[[], datetime],
        challenges: KeyChallenges | None = None,
    ) -> None:
        self._source = source
        self.roots = roots
        self._clock = clock
        self._challenges = challenges

    async def verify(
        self,
        evidence: Evidence,
        nonce: bytes | None,
        policy: Policy,
        *,
        offered: OfferedEndorsements | None = None,
        expectation: QuoteExpectation = NO_EXPECTATION,
        answer: ChallengeAnswer | None = None,
    ) -> AttestationResult:
        """Appraise `evidence`; whatever the verdict, an appraisal that finished is a result.

        Args:
            evidence: as it came; nothing but its bytes is trusted.
            nonce: the 64 bytes that the caller chose (of a bare report: the REPORT_DATA it
                expects); None leaves freshness unknown and so gives no verdict.
            policy: what is asked.
            offered: certificates and CRLs beside those in the evidence.
            expectation: what the caller knows of the quote that it asked for.
            answer: to a challenge of this verifier, which it uses up once nothing but the appraisal
                is left to do; in place of the expectation's key proof.

        Raises:
            NonceError: a nonce that has not 64 bytes.
            WireError: report, manifest, certificate table or a part of the quote are not what they
                claim to be.
            EvidenceError: quote, binding and manifest do not go together.
            CertificateError: an offered certificate or CRL is not one.
            CollateralUnavailableError: an endorsement is missing and could not be had.
        """
        if nonce is not None:
            demand_nonce(nonce)
        report = AttestationReport.parse(evidence.report)
        manifest = parse_manifest(evidence.manifest) if evidence.manifest is not None else None
        quote = Quote.parse(evidence.quote) if evidence.quote is not None else None
        _demand_fitting(
            evidence,
            wanted=policy.policy.vtpm.require_quote or answer is not None or expectation != NO_EXPECTATION,
        )
        offered = offered or OfferedEndorsements()
        if evidence.certificates:
            offered = offered.with_table(CertificateTable.parse(evidence.certificates), "evidence")
        wish = policy.root_of_trust
        at = self._clock()
        endorsements = await self._source.gather(
            report, offered, want_crl=wish.check_crl, allow_network=not wish.disallow_network, at=at
        )
        if wish.check_crl and wish.crl_unavailable == "deny":
            _demand_crl(endorsements, at)
        if answer is not None:
            expectation = replace(expectation, key_proof=await self._resolve(answer))
        result = appraise(
            report=report,
            manifest=manifest,
            manifest_bytes=evidence.manifest,
            nonce=nonce,
            endorsements=endorsements,
            roots=self.roots,
            policy=policy,
            at=at,
            quote=quote,
            expectation=expectation,
        )
        _log.info(
            "appraised",
            verdict=result.verdict.value,
            genuine=result.genuine,
            profile=result.profile.value,
            policy=result.policy_id,
            simulated=result.endorsements["simulated"],
            not_passed=[f.check.value for f in result.findings if f.outcome.value in {"failed", "warned"}],
        )
        return result

    async def _resolve(self, answer: ChallengeAnswer) -> KeyProof | NoKeyProof:
        if self._challenges is None:
            return NoKeyProof("This verifier gives out no challenges.")
        return await self._challenges.resolve(answer)


def _demand_fitting(evidence: Evidence, *, wanted: bool) -> None:
    """Only a session has a quote, and only an SVSM's manifest names the EK of the TPM that quotes."""
    in_session = evidence.binding is Binding.SESSION
    if in_session and evidence.quote is None:
        raise EvidenceError("/quote", "missing: a session is one of report and quote")
    if evidence.quote is not None and not in_session:
        raise EvidenceError("/binding", "direct: with a quote, report and quote are bound by a session")
    if evidence.manifest is None and (wanted or in_session):
        raise EvidenceError("/manifest", "null: nothing names the EK of a TPM that could quote")


def _demand_crl(endorsements: Endorsements, at: datetime) -> None:
    status = check_revocation(
        endorsements.crl,
        endorsements.intermediate,
        endorsements.root,
        at,
        absent_why=endorsements.crl_why,
    )
    if status.state in _UNUSABLE:
        raise CollateralUnavailableError("a current CRL", status.why, source="CRL")
