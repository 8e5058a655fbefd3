"""EK certificates for vTPMs whose SVSM vouched for them: when one is issued, and when not.

Whoever trusts the authority trusts a certified EK like one of a TPM manufacturer, and Keylime does so
for as long as the authority's file lies in its store. So a certificate takes more than a verdict: a nonce
of this verifier's own, used once, because the requester may be the very guest that is to be certified;
the policy of this verifier's operator; an SVSM build that signs nothing a host chooses; and a
record on disk before the certificate leaves.
"""

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from app.appraisal.findings import CheckId, Outcome, Profile, Tier
from app.appraisal.policy import Policy
from app.appraisal.quote import NO_EXPECTATION, QuoteExpectation
from app.appraisal.result import AttestationResult
from app.errors import IssuerUnavailableError, NonceError, NotAffirmedError
from app.trust.certificates import certificate_digest
from app.trust.ek_authority import SIMULATED, EkAuthority
from app.trust.ek_certificate import EkStatement, TpmModel, ek_certificate_builder
from app.verifier.key_challenges import ChallengeAnswer
from app.verifier.private_files import AppendLog, UnsafeFileError
from app.verifier.single_use import SingleUseStore
from app.verifier.verifier import Verifier
from app.wire.binding import NONCE_SIZE
from app.wire.evidence import Evidence
from app.wire.manifest import manifest_ek, parse_manifest
from app.wire.tpm.public import TpmtPublic

NONCE_LIFETIME = timedelta(minutes=5)  # a device with its pauses, and a KDS that is slow
MAX_LIFETIME = timedelta(hours=24)
_BACKDATING = timedelta(minutes=5)  # for relying parties whose clock is slow
_KEY = b"ek-certificate-nonce:"
# An affirming verdict implies these today. They are what a certificate says, so they are demanded by name.
_DEMANDED = frozenset(
    {CheckId.REPORT_DATA, CheckId.VMPL, CheckId.MEASUREMENT, CheckId.VTPM_BINDING, CheckId.VTPM_EK_TEMPLATE}
)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedCertificate:
    """A certificate that is on record, and the appraisal that it rests on."""

    certificate: x509.Certificate
    ek: TpmtPublic
    result: AttestationResult

    @property
    def pem(self) -> str:
        """The certificate alone, in PEM."""
        return self.certificate.public_bytes(Encoding.PEM).decode("ascii")

    @property
    def serial(self) -> str:
        """The serial number, hexadecimal, 40 digits."""
        return f"{self.certificate.serial_number:040x}"

    @property
    def ek_sha256(self) -> str:
        """Digest of the bare TPMT_PUBLIC, hexadecimal."""
        return hashlib.sha256(self.ek.encode()).hexdigest()


class EkCa:
    """Issues EK certificates.

    Args:
        authority: who signs them.
        log: where each is recorded before it leaves.
        tpm: what certificates call the TPM.
        lifetime: of a certificate at most; none outlives the key that signed the report, either.
        nonces: where nonces wait to be used; replicas of a verifier have to share it.
        clock: the time of day.
    """

    def __init__(
        self,
        authority: EkAuthority,
        log: AppendLog,
        *,
        tpm: TpmModel,
        lifetime: timedelta,
        nonces: SingleUseStore,
        clock: Callable[[], datetime],
    ) -> None:
        self.authority = authority
        self.log = log
        self._tpm = replace(tpm, model=f"{SIMULATED} {tpm.model}") if authority.simulated else tpm
        self._lifetime = min(lifetime, MAX_LIFETIME)
        self._nonces = nonces
        self._clock = clock

    async def new_nonce(self) -> tuple[bytes, datetime]:
        """64 random bytes for one request, and until when that request is taken.

        Raises:
            RateLimitedError: too many are out.
            IssuerUnavailableError: the authority's certificate is not valid now.
        """
        now = self._clock()
        self._demand_valid(now)
        nonce = os.urandom(NONCE_SIZE)
        await self._nonces.put(_KEY + nonce, b"", NONCE_LIFETIME.total_seconds())
        return nonce, now + NONCE_LIFETIME

    async def issue(
        self,
        evidence: Evidence,
        nonce: bytes,
        *,
        verifier: Verifier,
        policy: Policy,
        expectation: QuoteExpectation = NO_EXPECTATION,
        answer: ChallengeAnswer | None = None,
    ) -> IssuedCertificate:
        """Appraise evidence for a nonce from `new_nonce`, which is used up by this, and certify its EK.

        Args:
            evidence: as it came.
            nonce: as it came.
            verifier: who appraises.
            policy: what is asked; the operator's, never the requester's.
            expectation: what the requester knows of a quote; a policy may ask for one.
            answer: to a challenge that was to show that its key is in the EK's TPM.

        Raises:
            NonceError: not a nonce of this verifier, or one that expired or was used.
            NotAffirmedError: the appraisal finished, and there is something against a certificate.
            IssuerUnavailableError: the authority's certificate is not valid, or the record was not
                written; nothing was issued.
            WireError, CertificateError, EvidenceError, CollateralUnavailableError: as `Verifier.verify`.
        """
        if await self._nonces.take(_KEY + nonce) is None:
            raise NonceError("not one that this verifier gave out, or expired, or used already")
        result = await verifier.verify(evidence, nonce, policy, expectation=expectation, answer=answer)
        objections = [*_objections(result, policy), *self._wrong_kind(result)]
        if objections:
            raise NotAffirmedError("; ".join(objections), result.document())
        self._demand_valid(result.appraised_at)
        return await asyncio.to_thread(self._certify, evidence, result)

    def _wrong_kind(self, result: AttestationResult) -> Iterator[str]:
        """Simulated evidence is for a SIMULATED authority, and only for that one."""
        simulated = result.endorsements["simulated"]
        if simulated and not self.authority.simulated:
            yield f"the evidence is simulated, and {self.authority.name} is for hardware"
        if not simulated and self.authority.simulated:
            yield f"the evidence is of hardware, and {self.authority.name} is for simulated evidence"

    def _demand_valid(self, at: datetime) -> None:
        if not self.authority.is_valid(at):
            certificate = self.authority.certificate
            raise IssuerUnavailableError(
                f"the certificate of {self.authority.name} is valid from"
                f" {_text(certificate.not_valid_before_utc)} to {_text(certificate.not_valid_after_utc)}"
            )

    def _certify(self, evidence: Evidence, result: AttestationResult) -> IssuedCertificate:
        ek = _certified_ek(evidence, result)
        certificate = self.authority.sign(
            ek_certificate_builder(
                EkStatement(
                    ek=ek,
                    tpm=self._tpm,
                    not_before=self._not_before(result),
                    not_after=self._not_after(result),
                )
            )
        )
        issued = IssuedCertificate(certificate=certificate, ek=ek, result=result)
        try:
            self.log.append(
                {
                    "serial": issued.serial,
                    "not_before": _text(certificate.not_valid_before_utc),
                    "not_after": _text(certificate.not_valid_after_utc),
                    "issuer": self.authority.name,
                    "certificate_sha256": certificate_digest(certificate),
                    "ek_name": ek.name.hex(),
                    "ek_sha256": issued.ek_sha256,
                    "simulated": self.authority.simulated,
                    "appraisal": _appraisal(evidence, result),
                }
            )
        except UnsafeFileError as error:
            _log.error("ek_certificate_not_recorded", reason=str(error))
            raise IssuerUnavailableError("the record of certificates cannot be written") from error
        _log.info("ek_certificate_issued", serial=issued.serial, ek_name=ek.name.hex())
        return issued

    def _not_before(self, result: AttestationResult) -> datetime:
        start = max(result.appraised_at - _BACKDATING, self.authority.certificate.not_valid_before_utc)
        return start.replace(microsecond=0)

    def _not_after(self, result: AttestationResult) -> datetime:
        """The end of the lifetime, or before: when the VCEK or VLEK, or the authority, expires."""
        leaf = datetime.fromisoformat(result.endorsements["leaf_not_after"])
        end = min(result.appraised_at + self._lifetime, leaf, self.authority.certificate.not_valid_after_utc)
        return end.replace(microsecond=0)


def _objections(result: AttestationResult, policy: Policy) -> Iterator[str]:
    """What in the appraisal speaks against a certificate."""
    if result.profile is not Profile.SVSM:
        yield "a bare report names no EK"
        return
    if result.verdict is not Tier.AFFIRMING or not result.genuine:
        yield f"the verdict is {result.verdict.value}, and a certificate takes affirming"
        return
    passed = {finding.check for finding in result.findings if finding.outcome is Outcome.PASSED}
    missing = sorted(check.value for check in _DEMANDED - passed)
    if missing:
        yield f"not passed: {', '.join(missing)}"
    measurement = bytes.fromhex(result.claims["snp"]["measurement"])
    known = [one for one in policy.reference_values.measurements if one.value == measurement]
    if not all(one.attest_feature is False for one in known):
        # Such a build signs at VMPL 0 what its host chooses: the host could name a key of its own.
        yield (
            "the policy does not say that this SVSM is built without the `attest` feature:"
            f" attest_feature: false is missing from reference value {known[0].name}"
        )


def _certified_ek(evidence: Evidence, result: AttestationResult) -> TpmtPublic:
    """The EK that was appraised, read once more from the manifest."""
    ek = manifest_ek(parse_manifest(evidence.manifest or b""))
    if ek is None or hashlib.sha256(ek.encode()).hexdigest() != result.claims["vtpm"]["ek_sha256"]:
        raise AssertionError("the appraised EK is another one than the manifest's")
    return ek


def _appraisal(evidence: Evidence, result: AttestationResult) -> dict[str, Any]:
    """What the certificate rests on."""
    snp = result.claims["snp"]
    return {
        "report_sha256": hashlib.sha256(evidence.report).hexdigest(),
        "chip_id": snp["chip_id"],
        "csp_id": snp["csp_id"],
        "measurement": snp["measurement"],
        "reported_tcb": snp["reported_tcb"]["raw"],
        "root_sha256": result.endorsements["root_sha256"],
        "policy": result.policy_id,
        "policy_digest": result.policy_digest,
        "appraised_at": _text(result.appraised_at),
    }


def _text(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"
