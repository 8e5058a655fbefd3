"""The attester's routes of the vTPM: its attestation key, answers to challenges, quotes."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.api.evidence_document import ChannelBinding, Construction, QuoteDocument
from app.api.fields import Base64, Nonce, at_most
from app.api.media_types import JSON, Offers
from app.api.openapi import problems
from app.api.quote_request import ChannelWish, QuoteMembers
from app.api.state import AttesterDep, EndPointDep
from app.api.strict_route import StrictRoute
from app.attester.attester import LoneQuote, QuoteWish
from app.evidence.vtpm.ak_kind import AkKind
from app.evidence.vtpm.vtpm import AttestationKey, Certification
from app.trust.tpm_key import pem
from app.wire.session import CONSTRUCTION
from app.wire.tpm.credential import CredentialBlob
from app.wire.tpm.duplicate import ImportBlob

router = APIRouter(route_class=StrictRoute, tags=["attester"])

_PROBLEMS = problems(
    "malformed-request", "not-acceptable", "unsupported-media-type", "rate-limited", "backend-unavailable"
)
_MAX_PART = 1024  # the largest part of a challenge, an encrypted seed, has 386
_PARTS = {
    "activate": ("credential_blob", "encrypted_secret"),
    "import": ("public_area", "duplicate", "encrypted_seed"),
}
# What JSON Schema cannot say by listing members: each method takes its own parts and no others.
_BY_METHOD: dict[str, Any] = {
    "anyOf": [
        {
            "properties": {"method": {"const": method}}
            | {
                part: {"type": "string" if own == method else "null"}
                for own, parts in _PARTS.items()
                for part in parts
            },
            "required": [*_PARTS[method], *(["method"] if method != "activate" else [])],
        }
        for method in _PARTS
    ]
}
_Part = Annotated[Base64, *at_most(_MAX_PART)]
_Hex = Annotated[str, Field(pattern="^[0-9a-f]+$")]


class KeyRequest(BaseModel):
    """Which attestation key."""

    model_config = ConfigDict(extra="forbid")

    key: AkKind = Field(default=AkKind.P256, description="ECDSA over P-256, or RSASSA of 2048 bits; SHA-256")


class KeyDocument(BaseModel):
    """An attestation key, and the EK that the TPM has beside it now."""

    key: AkKind
    ak_public: Base64 = Field(description="bare TPMT_PUBLIC")
    name: _Hex = Field(description="TPM Name of the attestation key, in hexadecimal")
    algorithm: str
    pem: str = Field(description="SubjectPublicKeyInfo of the attestation key (RFC 7468)")
    ek_public: Base64 = Field(description="bare TPMT_PUBLIC of the EK, for a verifier to challenge")
    ek_name: _Hex = Field(description="TPM Name of the EK, in hexadecimal")
    backend: str
    simulated: bool = Field(description="true where no hardware stands behind the keys")

    @classmethod
    def of(cls, kind: AkKind, keys: AttestationKey, *, backend: str, simulated: bool) -> "KeyDocument":
        """The document of these keys."""
        return cls(
            key=kind,
            ak_public=keys.ak.encode(),
            name=keys.ak.name.hex(),
            algorithm=keys.ak.algorithm,
            pem=pem(keys.ak),
            ek_public=keys.ek.encode(),
            ek_name=keys.ek.name.hex(),
            backend=backend,
            simulated=simulated,
        )


class ActivateRequest(KeyRequest):
    """A verifier's challenge, as it came: `activate` has two parts, `import` three."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_BY_METHOD)

    method: Literal["activate", "import"] = "activate"
    credential_blob: _Part | None = Field(default=None, description="TPM2B_ID_OBJECT")
    encrypted_secret: _Part | None = Field(default=None, description="TPM2B_ENCRYPTED_SECRET")
    public_area: _Part | None = Field(default=None, description="TPMT_PUBLIC of an HMAC key, bare")
    duplicate: _Part | None = Field(default=None, description="that key, encrypted for the EK, bare")
    encrypted_seed: _Part | None = Field(default=None, description="the seed of that encryption, bare")

    @model_validator(mode="after")
    def _demand_parts(self) -> "ActivateRequest":
        given = {part for parts in _PARTS.values() for part in parts if getattr(self, part) is not None}
        wanted = _PARTS[self.method]
        if given != set(wanted):
            raise ValueError(f"method {self.method} takes {', '.join(wanted)}, all of them and no others")
        return self

    def challenge(self) -> CredentialBlob | ImportBlob:
        """The challenge.

        Raises:
            WireError: a part is not what it claims to be.
        """
        parts = [getattr(self, part) for part in _PARTS[self.method]]
        return ImportBlob.parse(*parts) if self.method == "import" else CredentialBlob.parse(*parts)


class SecretDocument(BaseModel):
    """What was inside a challenge that only this TPM can open."""

    model_config = ConfigDict(extra="forbid")

    secret: Base64 = Field(description="the certInfo of TPM2_ActivateCredential")


class CertificationDocument(BaseModel):
    """What the imported key says: the attestation key is in the TPM that could import it."""

    model_config = ConfigDict(extra="forbid")

    ak_public: Base64 = Field(description="bare TPMT_PUBLIC")
    certify_info: Base64 = Field(description="TPMS_ATTEST")
    signature: Base64 = Field(description="TPMT_SIGNATURE: an HMAC")

    @classmethod
    def of(cls, certification: Certification) -> "CertificationDocument":
        """The document of this certification."""
        return cls(
            ak_public=certification.ak_public,
            certify_info=certification.certify_info,
            signature=certification.signature,
        )


class QuoteRequest(QuoteMembers, ChannelWish):
    """What the quote is to be bound to, and what it is to be about."""

    model_config = ConfigDict(extra="forbid")

    nonce: Nonce = Field(description="64 bytes that nobody could foresee")


class LoneQuoteDocument(QuoteDocument):
    """A quote without a report: the quote's half of a session."""

    key: AkKind
    qualifying_data: Base64 = Field(description="what the quote was made with, 32 bytes: a convenience")
    construction: Construction = Field(
        default=CONSTRUCTION, description="how it follows from nonce, key and channel"
    )
    channel_binding: ChannelBinding
    backend: str
    simulated: bool

    @classmethod
    def of_lone(
        cls, lone: LoneQuote, wish: QuoteWish, *, backend: str, simulated: bool
    ) -> "LoneQuoteDocument":
        """The document of this quote."""
        return cls(
            **dict(QuoteDocument.of(lone.quote)),
            key=wish.key,
            qualifying_data=lone.qualifying_data,
            channel_binding=ChannelBinding.of(wish.channel.type),
            backend=backend,
            simulated=simulated,
        )


@router.post(
    "/ak",
    response_description="The key, which a verifier has yet to tie to the EK",
    responses=_PROBLEMS,
    dependencies=[Depends(Offers(JSON))],
    operation_id="attestation_key",
    summary="The vTPM's attestation key",
)
async def attestation_key(body: KeyRequest, attester: AttesterDep) -> KeyDocument:
    """A restricted signing key of the endorsement hierarchy: the same for as long as the EK stays.

    It is made when it is first asked for. Nothing in it says that it is in the TPM of this EK: that is
    what a challenge is for.
    """
    keys = await attester.attestation_key(body.key)
    backend = attester.backend
    return KeyDocument.of(body.key, keys, backend=backend.name, simulated=backend.simulated)


@router.post(
    "/ak/activate",
    response_description="The answer, for the verifier that made the challenge",
    responses=_PROBLEMS | problems("challenge-malformed", "challenge-refused"),
    dependencies=[Depends(Offers(JSON))],
    operation_id="activate",
    summary="Answer a verifier's challenge to the attestation key",
)
async def activate(body: ActivateRequest, attester: AttesterDep) -> SecretDocument | CertificationDocument:
    """The TPM answers only a challenge that was made for its EK beside this attestation key.

    The key must have been handed out by `POST /ak` since the TPM and this service last started.
    """
    challenge = body.challenge()
    if isinstance(challenge, ImportBlob):
        return CertificationDocument.of(await attester.certify(body.key, challenge))
    return SecretDocument(secret=await attester.activate(body.key, challenge))


@router.post(
    "/quote",
    response_description="A quote, checked by the attester itself before it left",
    responses=_PROBLEMS | problems("nonce-invalid"),
    dependencies=[Depends(Offers(JSON))],
    operation_id="quote",
    summary="A quote of the vTPM, without a report",
)
async def quote(body: QuoteRequest, attester: AttesterDep, end_point: EndPointDep) -> LoneQuoteDocument:
    """What the registers hold now. The security processor is not asked, so this may be asked often.

    It says nothing about which VM this is: for that a verifier has to know the key already.
    """
    wish = body.wish(body.channel(end_point))
    lone = await attester.quote(body.nonce, wish)
    backend = attester.backend
    return LoneQuoteDocument.of_lone(lone, wish, backend=backend.name, simulated=backend.simulated)
