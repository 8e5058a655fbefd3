"""Attestation on request: evidence out for a nonce in, quotes where there is a vTPM, the EK remembered."""

from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from app.attester.endorsement_key import EndorsementKey, LiveEk, endorsement_key
from app.errors import BackendBusyError, BackendError, RateLimitedError
from app.evidence.backend import EvidenceBackend, ProbeReport
from app.evidence.vtpm.ak_kind import AkKind
from app.evidence.vtpm.refusal import VtpmCause
from app.evidence.vtpm.vtpm import AttestationKey, Certification, Vtpm
from app.tpm.causes import TpmCause, unavailable
from app.wire.binding import demand_nonce
from app.wire.evidence import Binding, Evidence, QuoteEvidence, Service
from app.wire.session import NO_CHANNEL, Channel, Session
from app.wire.tpm.credential import CredentialBlob
from app.wire.tpm.duplicate import ImportBlob
from app.wire.tpm.pcr import PcrSelection
from app.wire.tpm.public import TpmtPublic

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteWish:
    """What a quote is to be about, and by which key."""

    key: AkKind
    pcrs: PcrSelection
    with_event_log: bool = False
    channel: Channel = NO_CHANNEL


@dataclass(frozen=True, slots=True)
class LoneQuote:
    """A quote without a report: of the session, the quote's half alone."""

    qualifying_data: bytes  # 32
    quote: QuoteEvidence


@dataclass(frozen=True, slots=True)
class _Attested:
    """The EK that the last evidence was about."""

    ek: TpmtPublic
    at: datetime | None


class Attester:
    """Serves evidence of one backend, and of the vTPM beside it.

    Args:
        backend: where evidence comes from; it serialises and paces its own requests.
        interval_s: the backend's least time between two requests, for a truthful Retry-After.
        max_waiting: requests that may wait for the device at once; more are refused at once.
        vtpm: where quotes come from; it has a queue of its own.
    """

    def __init__(
        self, backend: EvidenceBackend, *, interval_s: float, max_waiting: int = 64, vtpm: Vtpm | None = None
    ) -> None:
        self.backend = backend
        self._vtpm = vtpm
        self._interval_s = interval_s
        self._max_waiting = max_waiting
        self._waiting = 0
        self._last: _Attested | None = None

    async def attest(
        self, nonce: bytes, service: Service, manifest_version: int = 0, quote: QuoteWish | None = None
    ) -> Evidence:
        """Evidence bound to `nonce` (exactly 64 bytes) and to the manifest of `service`.

        With a quote both are bound to the session of nonce, attestation key and channel: the report
        first, and the quote to the report.

        Raises:
            NonceError: another length; nothing is asked of the device.
            RateLimitedError: too many requests wait already.
            BackendError: the platform gave no evidence, or the TPM no quote; cause and remedy are inside.
        """
        demand_nonce(nonce)
        if quote is None:
            return await self._collect(nonce, service, manifest_version)
        vtpm = self._demand_vtpm()
        # What stands in the way of a quote is found out before the device is asked, which is the scarcer.
        ak = await vtpm.ak(quote.key, quote.pcrs, with_event_log=quote.with_event_log)
        session = Session(nonce, ak.name, quote.channel)
        evidence = await self._collect(session.report_nonce, service, manifest_version)

        def qualifying(ak: TpmtPublic) -> bytes:
            if ak.name != session.ak_name:
                raise BackendBusyError(
                    VtpmCause.RESET, "the TPM was reset between report and quote", "Ask again"
                )
            return session.qualifying_data(evidence.report)

        quoted = await vtpm.quote(quote.key, qualifying, quote.pcrs, with_event_log=quote.with_event_log)
        return replace(
            evidence, binding=Binding.SESSION, quote=quoted, nonce=nonce, channel=quote.channel.type
        )

    async def quote(self, nonce: bytes, wish: QuoteWish) -> LoneQuote:
        """A quote bound to the session of `nonce` (exactly 64 bytes), key and channel, without a report.

        Raises:
            NonceError: another length.
            RateLimitedError, BackendError: as `attest`.
        """
        demand_nonce(nonce)
        data = b""

        def qualifying(ak: TpmtPublic) -> bytes:
            nonlocal data
            data = Session(nonce, ak.name, wish.channel).qualifying_data(None)
            return data

        quoted = await self._demand_vtpm().quote(
            wish.key, qualifying, wish.pcrs, with_event_log=wish.with_event_log
        )
        return LoneQuote(data, quoted)

    async def attestation_key(self, kind: AkKind) -> AttestationKey:
        """The attestation key, and the EK that a verifier is to challenge it with.

        Raises:
            RateLimitedError, BackendError: as `quote`.
        """
        return await self._demand_vtpm().hand_out(kind, self._ek_template)

    async def activate(self, kind: AkKind, blob: CredentialBlob) -> bytes:
        """The secret of a verifier's challenge (1 to 64 bytes).

        Raises:
            ChallengeRefusedError: it was not made for EK and attestation key of this TPM.
            RateLimitedError, BackendError: as `quote`.
        """
        secret = await self._demand_vtpm().activate(kind, self._ek_template, blob)
        _log.info("challenge_answered", method="activate", key=kind.value)
        return secret

    async def certify(self, kind: AkKind, blob: ImportBlob) -> Certification:
        """What a verifier's own key, imported for the purpose, says of the attestation key.

        Raises as `activate`.
        """
        certification = await self._demand_vtpm().certify(kind, self._ek_template, blob)
        _log.info("challenge_answered", method="import", key=kind.value)
        return certification

    async def endorsement_key(self) -> EndorsementKey | None:
        """The EK of the last attestation beside the TPM's own, or None before the first."""
        last = self._last
        if last is None:
            return None
        return EndorsementKey(public=last.ek, attested_at=last.at, live=await self._compare(last.ek))

    async def probe(self) -> ProbeReport:
        """The prerequisites of backend and vTPM; asks the device for nothing."""
        report = await self.backend.probe()
        if self._vtpm is None:
            return report
        return replace(report, checks=(*report.checks, await self._vtpm.probe()))

    @property
    def _ek_template(self) -> str:
        """By which template the SVSM made the EK: the last manifest's, as long as it follows one."""
        attested = self._last.ek.template if self._last else None
        return attested or self._demand_vtpm().ek_template

    def _demand_vtpm(self) -> Vtpm:
        if self._vtpm is None:
            raise unavailable(TpmCause.MISSING, "this attester was given no vTPM")
        return self._vtpm

    async def _compare(self, attested: TpmtPublic) -> LiveEk:
        if attested.template is None:
            return LiveEk.unknown("The attested EK follows no template of the TCG: nobody can make it again.")
        try:
            return LiveEk.compare(attested, await self._demand_vtpm().ek(attested.template))
        except BackendError as error:
            return LiveEk.unknown(f"The TPM did not tell its EK: {error.reason}.", f"{error.remedy}.")
        except RateLimitedError as error:
            return LiveEk.unknown(f"The TPM is busy: {error.reason}.")

    async def _collect(self, nonce: bytes, service: Service, manifest_version: int) -> Evidence:
        if self._waiting >= self._max_waiting:
            wait_s = max(1.0, self._waiting * self._interval_s)
            raise RateLimitedError(f"{self._waiting} requests wait for the device already", wait_s)
        self._waiting += 1
        try:
            evidence = await self.backend.collect(nonce, service, manifest_version)
        except BackendError as error:
            _log.warning("attestation_failed", cause=error.cause, reason=error.reason, errno=error.errno)
            raise
        finally:
            self._waiting -= 1
        self._remember_ek(evidence)
        _log.info(
            "attested", service=service.value, backend=self.backend.name, simulated=self.backend.simulated
        )
        return evidence

    def _remember_ek(self, evidence: Evidence) -> None:
        ek = endorsement_key(evidence.manifest) if evidence.manifest else None
        if ek is not None:
            self._last = _Attested(ek, evidence.collected_at)
