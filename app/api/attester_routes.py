"""The attester's routes: evidence, and the EK that it is about."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from starlette.responses import JSONResponse

from app.api.evidence_document import DirectBinding, EvidenceDocument, ManifestVersion
from app.api.fields import Base64, Nonce, NonceText
from app.api.media_types import JSON, Offers
from app.api.openapi import problems
from app.api.quote_request import ChannelWish, QuoteMembers
from app.api.state import AttesterDep, EndPointDep, MetricsDep
from app.api.strict_route import StrictRoute
from app.attester.attester import QuoteWish
from app.attester.endorsement_key import EndorsementKey, LiveState
from app.errors import BackendError
from app.wire.evidence import MEDIA_TYPE, Service
from app.wire.session import Channel

router = APIRouter(route_class=StrictRoute, tags=["attester"])

_EVIDENCE_PROBLEMS = problems(
    "malformed-request", "nonce-invalid", "not-acceptable", "rate-limited", "backend-unavailable"
)


class EvidenceResponse(JSONResponse):
    """An evidence document as an answer."""

    media_type = MEDIA_TYPE


AcceptsEvidence = Depends(Offers(MEDIA_TYPE, JSON))


def _decimal(value: object) -> object:
    """A number in a URL: digits and nothing else."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 10:  # noqa: PLR2004 (digits of a u32)
        return int(value)
    raise ValueError("want a decimal number of 32 bits")


class AttestRequest(ChannelWish):
    """What the evidence is to be bound to, and what it is to be about."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"nonce": "QUJD" * 21 + "QQ=="}]}
    )

    nonce: Nonce = Field(description="64 bytes that nobody could foresee")
    service: Service = Field(default=Service.VTPM, description="what the SVSM shall vouch for")
    manifest_version: ManifestVersion = Field(default=0, description="version of the service's manifest")
    binding: DirectBinding = Field(
        default="direct",
        description="REPORT_DATA = SHA-512(nonce || manifest); with a quote, of the session's nonce",
    )
    quote: QuoteMembers | None = Field(
        default=None, description="what the vTPM is to quote, in one session with the report"
    )

    @model_validator(mode="after")
    def _demand_session(self) -> "AttestRequest":
        if self.quote is None and self.channel_binding != "none":
            raise ValueError("channel_binding is about a session: it takes a quote")
        return self

    def wish(self, end_point: Channel | None) -> QuoteWish | None:
        """The quote that is wanted.

        Raises:
            HTTPException: as ChannelWish.channel.
        """
        return None if self.quote is None else self.quote.wish(self.channel(end_point))


class AttestQuery(BaseModel):
    """The same, for those who can only GET."""

    model_config = ConfigDict(extra="forbid")

    nonce: NonceText = Field(description="64 bytes as 128 hexadecimal digits or as base64url")
    service: Service = Field(default=Service.VTPM, description="what the SVSM shall vouch for")
    manifest_version: Annotated[ManifestVersion, BeforeValidator(_decimal)] = Field(
        default=0, description="version of the service's manifest"
    )
    binding: DirectBinding = Field(default="direct", description="REPORT_DATA = SHA-512(nonce || manifest)")


class LiveEkDocument(BaseModel):
    """The attested EK beside the one that the TPM has now."""

    state: LiveState
    name: str | None = Field(description="TPM Name of the TPM's EK, in hexadecimal", pattern="^[0-9a-f]+$")
    why: str | None = Field(description="where they do not match")
    remedy: str | None = Field(description="what to do about it")


class EkDocument(BaseModel):
    """The EK of the last attestation, in every form that somebody may want."""

    tpmt_public: Base64 = Field(description="bare TPMT_PUBLIC")
    tpm2b_public: Base64 = Field(description="the same with its two-byte size before it")
    name: str = Field(description="TPM Name, in hexadecimal", pattern="^[0-9a-f]+$")
    pem: str = Field(description="SubjectPublicKeyInfo (RFC 7468)")
    jwk: dict[str, str] = Field(description="JSON Web Key (RFC 7517)")
    sha256: str = Field(description="digest of tpmt_public, in hexadecimal", pattern="^[0-9a-f]{64}$")
    algorithm: str
    template: str | None = Field(description="the TCG EK template that it follows, or null")
    attested_at: datetime | None = Field(description="when the SVSM vouched for it")
    live: LiveEkDocument

    @classmethod
    def of(cls, ek: EndorsementKey) -> "EkDocument":
        """The document of this key."""
        public, live = ek.public, ek.live
        name = None if live.name is None else live.name.hex()
        return cls(
            tpmt_public=public.encode(),
            tpm2b_public=public.to_tpm2b(),
            name=public.name.hex(),
            pem=ek.pem,
            jwk=public.jwk(),
            sha256=ek.sha256,
            algorithm=public.algorithm,
            template=public.template,
            attested_at=ek.attested_at,
            live=LiveEkDocument(state=live.state, name=name, why=live.why, remedy=live.remedy),
        )


@router.post(
    "/attest",
    response_class=EvidenceResponse,
    response_description="Evidence, checked by the attester itself before it left",
    responses=_EVIDENCE_PROBLEMS | problems("unsupported-media-type"),
    dependencies=[AcceptsEvidence],
    operation_id="attest",
    summary="Evidence bound to a nonce",
)
async def attest(
    body: AttestRequest, attester: AttesterDep, metrics: MetricsDep, end_point: EndPointDep
) -> EvidenceDocument:
    """A report whose REPORT_DATA is bound to the nonce and to the manifest that comes with it.

    With `quote` also what the vTPM says of its registers: both are bound to one session, and the quote
    to the report.

    The device is asked once for every request, in the order of their arrival, with a pause between:
    an answer may take a while.
    """
    wish = body.wish(end_point)
    with metrics.attestation():
        evidence = await attester.attest(body.nonce, body.service, body.manifest_version, wish)
    return EvidenceDocument.from_evidence(evidence)


@router.get(
    "/attest",
    response_class=EvidenceResponse,
    response_description="Evidence, checked by the attester itself before it left",
    responses=_EVIDENCE_PROBLEMS,
    dependencies=[AcceptsEvidence],
    operation_id="attest_by_url",
    summary="The same, for pollers",
)
async def attest_by_url(
    query: Annotated[AttestQuery, Query()], attester: AttesterDep, metrics: MetricsDep
) -> EvidenceDocument:
    """As `POST /attest`, with everything in the URL."""
    with metrics.attestation():
        evidence = await attester.attest(query.nonce, query.service, query.manifest_version)
    return EvidenceDocument.from_evidence(evidence)


@router.get(
    "/ek",
    response_description="The EK of the last attestation",
    responses=problems("not-acceptable", "backend-unavailable"),
    dependencies=[Depends(Offers(JSON))],
    operation_id="ek",
    summary="The vTPM's endorsement key",
)
async def ek(attester: AttesterDep) -> EkDocument:
    """The EK that the last evidence was about, and whether the TPM still has it; 503 before the first."""
    return EkDocument.of(_demand_ek(await attester.endorsement_key()))


def _demand_ek(ek: EndorsementKey | None) -> EndorsementKey:
    if ek is None:
        raise BackendError(
            "not-attested-yet",
            "nothing has been attested since this service started, so no EK is vouched for",
            "Ask for evidence first: POST /attest, with service vtpm or all",
        )
    return ek
