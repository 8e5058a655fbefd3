"""Evidence: the byte strings that an attester hands out and a verifier appraises."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from app.wire import guid
from app.wire.session import ChannelType
from app.wire.tpm.pcr import PcrValues

PROFILE = "tag:svsm-attest,2026:evidence#1"
MEDIA_TYPE = "application/vnd.svsm-attest.evidence+json"


class Service(StrEnum):
    """What an SVSM is asked to vouch for."""

    VTPM = "vtpm"
    UEFI_MM = "uefi-mm"
    ALL = "all"

    @property
    def guid(self) -> UUID:
        """GUID of the service; of the services manifest for all of them."""
        return _GUIDS[self]


_GUIDS = {
    Service.VTPM: guid.SERVICE_VTPM,
    Service.UEFI_MM: guid.SERVICE_UEFI_MM,
    Service.ALL: guid.SERVICES_MANIFEST,
}


class Binding(StrEnum):
    """How the nonce of a report follows from the nonce of the client."""

    DIRECT = "direct"  # it is the same
    SESSION = "session"  # app.wire.session derives it


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteEvidence:
    """A TPM's signed statement about its PCRs, and what is needed to read it; every part unparsed."""

    ak_public: bytes  # bare TPMT_PUBLIC of the attestation key
    attest: bytes  # TPMS_ATTEST
    signature: bytes  # TPMT_SIGNATURE
    pcrs: PcrValues
    event_log: bytes | None = None  # firmware event log, crypto-agile


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A report, the manifest it vouches for, and what may help to verify it.

    A verifier trusts nothing but `report`, `quote` and what these bind; the members after
    `certificates` are conveniences.
    """

    report: bytes  # 1184
    manifest: bytes | None  # None: a bare SNP report, no SVSM
    binding: Binding = Binding.DIRECT
    quote: QuoteEvidence | None = None
    certificates: bytes | None = None  # GHCB certificate table
    nonce: bytes | None = None
    channel: ChannelType | None = None  # of a session: what its values were bound to
    service: Service | None = None
    manifest_version: int | None = None
    backend: str | None = None
    boot_id: str | None = None
    collected_at: datetime | None = None
