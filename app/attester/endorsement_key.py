"""The EK of the last attestation, in every form that its readers want."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.trust.tpm_key import pem
from app.wire.manifest import manifest_ek, parse_manifest
from app.wire.tpm.public import TpmtPublic


class LiveState(StrEnum):
    """Is the EK that the SVSM vouched for the one that the TPM has?"""

    MATCHES = "matches"
    DIFFERS = "differs"
    NOT_COMPARED = "not-compared"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveEk:
    """The EK that the TPM has now, beside the attested one."""

    state: LiveState
    name: bytes | None = None  # of the TPM's, where it told one
    why: str | None = None  # where they do not match, in one sentence
    remedy: str | None = None

    @classmethod
    def compare(cls, attested: TpmtPublic, live: TpmtPublic) -> "LiveEk":
        """Hold the attested key against the TPM's."""
        if attested == live:
            return cls(state=LiveState.MATCHES, name=live.name)
        return cls(
            state=LiveState.DIFFERS,
            name=live.name,
            why="The TPM makes another EK than the SVSM vouches for: its endorsement seed was changed"
            " (TPM2_ChangeEPS) after the SVSM read the EK, whose manifest is stale then, or this TPM is"
            " not the SVSM's.",
            remedy="Restart the VM.",
        )

    @classmethod
    def unknown(cls, why: str, remedy: str | None = None) -> "LiveEk":
        """There was nothing to compare with."""
        return cls(state=LiveState.NOT_COMPARED, why=why, remedy=remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndorsementKey:
    """A vTPM's EK, as an SVSM vouched for it at `attested_at`."""

    public: TpmtPublic
    attested_at: datetime | None
    live: LiveEk

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
