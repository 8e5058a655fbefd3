"""Attestation on request: the nonce goes in as it is, evidence comes out, the EK is remembered."""

import structlog

from app.attester.endorsement_key import EndorsementKey, endorsement_key
from app.errors import BackendError, RateLimitedError
from app.evidence.backend import EvidenceBackend, ProbeReport
from app.wire.binding import demand_nonce
from app.wire.evidence import Evidence, Service

_log = structlog.get_logger()


class Attester:
    """Serves evidence of one backend.

    Args:
        backend: where evidence comes from; it serialises and paces its own requests.
        interval_s: the backend's least time between two requests, for a truthful Retry-After.
        max_waiting: requests that may wait for the device at once; more are refused at once.
    """

    def __init__(self, backend: EvidenceBackend, *, interval_s: float, max_waiting: int = 64) -> None:
        self.backend = backend
        self._interval_s = interval_s
        self._max_waiting = max_waiting
        self._waiting = 0
        self._last_ek: EndorsementKey | None = None
        self.last_error: BackendError | None = None

    @property
    def last_ek(self) -> EndorsementKey | None:
        """The EK of the last attestation, or None before the first."""
        return self._last_ek

    async def attest(self, nonce: bytes, service: Service, manifest_version: int = 0) -> Evidence:
        """Evidence bound to `nonce` (exactly 64 bytes) and to the manifest of `service`.

        Raises:
            NonceError: another length; nothing is asked of the device.
            RateLimitedError: too many requests wait already.
            BackendError: the platform gave no evidence; cause and remedy are inside.
        """
        demand_nonce(nonce)
        if self._waiting >= self._max_waiting:
            wait_s = max(1.0, self._waiting * self._interval_s)
            raise RateLimitedError(f"{self._waiting} requests wait for the device already", wait_s)
        self._waiting += 1
        try:
            evidence = await self.backend.collect(nonce, service, manifest_version)
        except BackendError as error:
            self.last_error = error
            _log.warning("attestation_failed", cause=error.cause, reason=error.reason, errno=error.errno)
            raise
        finally:
            self._waiting -= 1
        self.last_error = None
        self._remember_ek(evidence)
        _log.info(
            "attested", service=service.value, backend=self.backend.name, simulated=self.backend.simulated
        )
        return evidence

    async def probe(self) -> ProbeReport:
        """The backend's prerequisites; asks the device for nothing."""
        return await self.backend.probe()

    def _remember_ek(self, evidence: Evidence) -> None:
        public = endorsement_key(evidence.manifest) if evidence.manifest else None
        if public is not None:
            self._last_ek = EndorsementKey(public=public, attested_at=evidence.collected_at)
