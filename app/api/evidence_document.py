"""The one JSON form of evidence, written and read."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from app.api.fields import Base64, Nonce, Report, at_most
from app.api.pcr_fields import PcrDigests
from app.wire.event_log import MAX_SIZE as MAX_EVENT_LOG
from app.wire.evidence import PROFILE, Binding, Evidence, QuoteEvidence, Service
from app.wire.session import CONSTRUCTION, ChannelType
from app.wire.tpm.public import MAX_SIZE as MAX_PUBLIC

_SERVICES = {service.guid: service for service in Service}
_MAX_ATTEST = 1024  # a quote over every bank, with the longest Names, has 241
_MAX_SIGNATURE = 512  # RSA-3072: 390


def refuse_merkle(value: object) -> object:
    """The contract's other binding gets an answer of its own."""
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


def _is_none(value: object) -> bool:
    return value is None


class ChannelBinding(StrEnum):
    """What a session is bound to beside its nonce."""

    NONE = "none"
    TLS_SERVER_END_POINT = "tls-server-end-point"  # RFC 5929
    TLS_EXPORTER = "tls-exporter"  # RFC 9266

    @property
    def channel(self) -> ChannelType:
        """Its number in the construction."""
        return ChannelType[self.name]

    @classmethod
    def of(cls, channel: ChannelType) -> Self:
        """The inverse of `channel`."""
        return cls[channel.name]


Construction = Literal["svsm-attest/session/1"]
DirectBinding = Annotated[Literal["direct"], BeforeValidator(refuse_merkle)]
ManifestVersion = Annotated[int, Field(strict=True, ge=0, le=0xFFFFFFFF), BeforeValidator(_whole)]
ShortText = Annotated[str, StringConstraints(max_length=256)]


class ServiceDocument(BaseModel):
    """What the SVSM was asked to vouch for."""

    model_config = ConfigDict(extra="forbid")

    guid: UUID
    manifest_version: ManifestVersion = 0


class BindingDocument(BaseModel):
    """How the report's nonce follows from the client's.

    REPORT_DATA is SHA-512(nonce || manifest) in either case; in a session, which a quote belongs
    to, that nonce is derived.
    """

    model_config = ConfigDict(extra="forbid")

    type: Annotated[Literal["direct", "session"], BeforeValidator(refuse_merkle)] = "direct"
    construction: Construction | None = Field(
        default=None, exclude_if=_is_none, description="of a session: how its values are derived"
    )
    channel_binding: ChannelBinding | None = Field(
        default=None, exclude_if=_is_none, description="of a session: a convenience, the verifier is told"
    )

    @classmethod
    def of(cls, evidence: Evidence) -> Self:
        """The binding of this evidence."""
        if evidence.binding is Binding.DIRECT:
            return cls()
        channel = None if evidence.channel is None else ChannelBinding.of(evidence.channel)
        return cls(type="session", construction=CONSTRUCTION, channel_binding=channel)

    @model_validator(mode="after")
    def _demand_construction(self) -> Self:
        if self.type == "session" and self.construction is None:
            raise ValueError(f"the construction of a session is missing: {CONSTRUCTION}")
        if self.type == "direct" and (self.construction or self.channel_binding):
            raise ValueError("a direct binding has neither construction nor channel_binding")
        return self


class QuoteDocument(BaseModel):
    """What a TPM signed about its PCRs, and what is needed to read it."""

    model_config = ConfigDict(extra="forbid")

    ak_public: Annotated[Base64, *at_most(MAX_PUBLIC)] = Field(
        description="attestation key, bare TPMT_PUBLIC"
    )
    attest: Annotated[Base64, *at_most(_MAX_ATTEST)] = Field(description="TPMS_ATTEST")
    signature: Annotated[Base64, *at_most(_MAX_SIGNATURE)] = Field(description="TPMT_SIGNATURE")
    pcrs: PcrDigests = Field(description="the registers that were quoted, by bank and number, in hexadecimal")
    event_log: Annotated[Base64, *at_most(MAX_EVENT_LOG)] | None = Field(
        default=None, description="firmware event log, crypto-agile; null where it was not asked for"
    )

    @classmethod
    def of(cls, quote: QuoteEvidence) -> Self:
        """The document of this quote."""
        return cls(
            ak_public=quote.ak_public,
            attest=quote.attest,
            signature=quote.signature,
            pcrs=quote.pcrs,
            event_log=quote.event_log,
        )

    def to_evidence(self) -> QuoteEvidence:
        """The quote that this document is about."""
        return QuoteEvidence(
            ak_public=self.ak_public,
            attest=self.attest,
            signature=self.signature,
            pcrs=self.pcrs,
            event_log=self.event_log,
        )


class EvidenceDocument(BaseModel):
    """Evidence. Everything but report, manifest, certificates, binding and quote is a convenience.

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
    quote: QuoteDocument | None = Field(
        default=None, exclude_if=_is_none, description="a TPM's, in the same session as the report"
    )
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
            binding=BindingDocument.of(evidence),
            quote=None if evidence.quote is None else QuoteDocument.of(evidence.quote),
            backend=evidence.backend,
            boot_id=evidence.boot_id,
            collected_at=evidence.collected_at,
        )

    def to_evidence(self) -> Evidence:
        """The evidence that this document is about."""
        service, channel = self.service, self.binding.channel_binding
        return Evidence(
            report=self.report,
            manifest=self.manifest,
            binding=Binding(self.binding.type),
            quote=None if self.quote is None else self.quote.to_evidence(),
            certificates=self.certificates,
            nonce=self.nonce,
            channel=None if channel is None else channel.channel,
            service=_SERVICES.get(service.guid) if service else None,
            manifest_version=service.manifest_version if service else None,
            backend=self.backend,
            boot_id=self.boot_id,
            collected_at=self.collected_at,
        )
