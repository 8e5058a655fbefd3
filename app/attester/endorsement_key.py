"""The EK of the last attestation, in every form that its readers want."""

import hashlib
from dataclasses import dataclass
from datetime import datetime

from app.trust.tpm_key import pem
from app.wire.manifest import manifest_ek, parse_manifest
from app.wire.tpm.public import TpmtPublic


@dataclass(frozen=True, slots=True, kw_only=True)
class EndorsementKey:
    """A vTPM's EK, as an SVSM vouched for it at `attested_at`."""

    public: TpmtPublic
    attested_at: datetime | None

    @property
    def sha256(self) -> str:
        """Digest of the bare TPMT_PUBLIC, in hexadecimal."""
        return hashlib.sha256(self.public.encode()).hexdigest()

    @property
    def pem(self) -> str:
        """SubjectPublicKeyInfo in PEM."""
        return pem(self.public)


def endorsement_key(manifest: bytes) -> TpmtPublic | None:
    """The EK inside a manifest: of a list of keys the first that follows an EK template.

    Raises:
        WireError: the manifest is malformed.
    """
    return manifest_ek(parse_manifest(manifest))
