"""One verification: parse, gather endorsements, appraise."""

from collections.abc import Callable
from datetime import datetime

import structlog

from app.appraisal.appraise import appraise
from app.appraisal.policy import Policy
from app.appraisal.result import AttestationResult
from app.errors import CollateralUnavailableError
from app.trust.crl import RevocationState, check_revocation
from app.trust.endorsements import Endorsements, EndorsementSource, OfferedEndorsements
from app.trust.roots import TrustRoots
from app.verifier.key_challenges import KeyChallenges
from app.wire.binding import demand_nonce
from app.wire.certificate_table import CertificateTable
from app.wire.evidence import Evidence
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
    ) -> AttestationResult:
        """Appraise `evidence`; whatever the verdict, an appraisal that finished is a result.

        Args:
            evidence: as it came; nothing but its bytes is trusted.
            nonce: the 64 bytes that the caller chose (of a bare report: the REPORT_DATA it
                expects); None leaves freshness unknown and so gives no verdict.
            policy: what is asked.
            offered: certificates and CRLs beside those in the evidence.

        Raises:
            NonceError: a nonce that has not 64 bytes.
            WireError: report, manifest or certificate table are not what they claim to be.
            CertificateError: an offered certificate or CRL is not one.
            CollateralUnavailableError: an endorsement is missing and could not be had.
        """
        if nonce is not None:
            demand_nonce(nonce)
        report = AttestationReport.parse(evidence.report)
        manifest = parse_manifest(evidence.manifest) if evidence.manifest is not None else None
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
        result = appraise(
            report=report,
            manifest=manifest,
            manifest_bytes=evidence.manifest,
            nonce=nonce,
            endorsements=endorsements,
            roots=self.roots,
            policy=policy,
            at=at,
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
