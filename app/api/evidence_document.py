"""The one JSON form of evidence, written and read."""

from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)

from app.api.fields import Base64, Nonce, Report
from app.wire.evidence import PROFILE, Evidence, Service

_SERVICES = {service.guid: service for service in Service}


def demand_direct(value: object) -> object:
    """The one binding there is; the contract's other one gets an answer of its own."""
    if value == "merkle":
        raise ValueError("merkle bindings are not supported here: use direct")
    return value


def _text(value: object) -> object:
    """Times are text; pydantic would take numbers, too."""
    if isinstance(value, str | datetime):
        return value
    raise ValueError("want a time as RFC 3339 text")


def _whole(value: object) -> object:
    """JSON knows one kind of number: 1.0 is 1."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


DirectBinding = Annotated[Literal["direct"], BeforeValidator(demand_direct)]
ManifestVersion = Annotated[int, Field(strict=True, ge=0, le=0xFFFFFFFF), BeforeValidator(_whole)]
ShortText = Annotated[str, StringConstraints(max_length=256)]


class ServiceDocument(BaseModel):
    """What the SVSM was asked to vouch for."""

    model_config = ConfigDict(extra="forbid")

    guid: UUID
    manifest_version: ManifestVersion = 0


class BindingDocument(BaseModel):
    """How the report is bound to nonce and manifest: REPORT_DATA = SHA-512(nonce || manifest)."""

    model_config = ConfigDict(extra="forbid")

    type: DirectBinding = "direct"


class EvidenceDocument(BaseModel):
    """Evidence. Everything but report, manifest, certificates and binding is a convenience.

    A verifier trusts none of the conveniences, and does not ask for them.
    """

    model_config = ConfigDict(extra="forbid")

    profile: Literal["tag:svsm-attest,2026:evidence#1"] | None = Field(
        default=None, description="which document this is"
    )
    report: Report = Field(description="ATTESTATION_REPORT, 1184 bytes")
    manifest: Base64 | None = Field(
        default=None, description="what the SVSM vouches for; null for a bare SNP report"
    )
    service: ServiceDocument | None = None
    certificates: Base64 | None = Field(
        default=None, description="GHCB certificate table, if the host has one"
    )
    nonce: Nonce | None = Field(default=None, description="as the attester got it")
    binding: BindingDocument = BindingDocument()
    backend: ShortText | None = None
    boot_id: ShortText | None = Field(default=None, description="changes with every start of the VM")
    collected_at: Annotated[AwareDatetime, BeforeValidator(_text)] | None = Field(
        default=None, description="RFC 3339, by the clock of the VM"
    )

    @classmethod
    def from_evidence(cls, evidence: Evidence) -> Self:
        """The document of this evidence."""
        service = None
        if evidence.service is not None:
            version = evidence.manifest_version or 0
            service = ServiceDocument(guid=evidence.service.guid, manifest_version=version)
        return cls(
            profile=PROFILE,
            report=evidence.report,
            manifest=evidence.manifest,
            service=service,
            certificates=evidence.certificates,
            nonce=evidence.nonce,
            backend=evidence.backend,
            boot_id=evidence.boot_id,
            collected_at=evidence.collected_at,
        )

    def to_evidence(self) -> Evidence:
        """The evidence that this document is about."""
        service = self.service
        return Evidence(
            report=self.report,
            manifest=self.manifest,
            certificates=self.certificates,
            nonce=self.nonce,
            service=_SERVICES.get(service.guid) if service else None,
            manifest_version=service.manifest_version if service else None,
            backend=self.backend,
            boot_id=self.boot_id,
            collected_at=self.collected_at,
        )
