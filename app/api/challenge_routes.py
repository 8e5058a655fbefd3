"""The verifier's route for challenges that tie an attestation key to an EK."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.api.fields import Base64
from app.api.media_types import JSON, Offers
from app.api.openapi import problems
from app.api.state import ChallengesDep
from app.api.strict_route import StrictRoute
from app.errors import member
from app.verifier.key_challenges import KeyChallenge
from app.wire.tpm.credential import CredentialBlob
from app.wire.tpm.public import TpmtPublic

router = APIRouter(route_class=StrictRoute, tags=["verifier"])


class ChallengeRequest(BaseModel):
    """The two keys that are to be shown to be in one TPM, and how."""

    model_config = ConfigDict(extra="forbid")

    ek_public: Base64 = Field(description="bare TPMT_PUBLIC of the EK")
    ak_public: Base64 | None = Field(
        default=None, description="bare TPMT_PUBLIC of the attestation key; may be left out for `import`"
    )
    method: Literal["activate", "import"] = Field(
        default="activate",
        description="a secret for TPM2_ActivateCredential, or a key for TPM2_Import to certify with",
    )

    @model_validator(mode="after")
    def _names_a_key(self) -> "ChallengeRequest":
        if self.ak_public is None and self.method == "activate":
            raise ValueError("ak_public is missing: a secret is hidden for one key")
        return self


class _Challenge(BaseModel):
    model_config = ConfigDict(extra="forbid")

    challenge: str = Field(description="to be sent back with the answer")
    expires_at: datetime = Field(description="RFC 3339; until then one answer is taken, right or wrong")


class ActivationDocument(_Challenge):
    """What TPM2_ActivateCredential takes; it gives the secret back only to a TPM with both keys."""

    method: Literal["activate"] = "activate"
    credential_blob: Base64 = Field(description="TPM2B_ID_OBJECT")
    encrypted_secret: Base64 = Field(description="TPM2B_ENCRYPTED_SECRET")
    tools_file: Base64 = Field(description="both, as a file that tpm2_activatecredential reads")


class ImportDocument(_Challenge):
    """What TPM2_Import takes, each part without its size; the key is to certify the attestation key."""

    method: Literal["import"] = "import"
    public_area: Base64 = Field(description="TPMT_PUBLIC of an HMAC key")
    duplicate: Base64 = Field(description="the key, encrypted for the EK")
    encrypted_seed: Base64 = Field(description="what it is encrypted with, encrypted for the EK")


ChallengeDocument = Annotated[ActivationDocument | ImportDocument, Field(discriminator="method")]


@router.post(
    "/ak-challenges",
    response_model=ChallengeDocument,
    response_description="A challenge, which waits for its answer",
    responses=problems(
        "malformed-request",
        "not-acceptable",
        "unsupported-media-type",
        "evidence-malformed",
        "rate-limited",
    ),
    dependencies=[Depends(Offers(JSON))],
    operation_id="challenge_key",
    summary="Challenge a TPM to show that it has both EK and attestation key",
)
async def challenge_key(
    body: ChallengeRequest, challenges: ChallengesDep
) -> ActivationDocument | ImportDocument:
    """One answer to it can go into `POST /verify` as `activation`.

    Whether the EK is one that an SVSM vouches for is for the appraisal to say; here it only has to
    follow a template of the TCG.
    """
    with member("/ak_public"):
        ak = TpmtPublic.parse(body.ak_public) if body.ak_public is not None else None
    with member("/ek_public"):
        ek = TpmtPublic.parse(body.ek_public)
        if ak is None or body.method == "import":
            challenge = await challenges.importing(ek, ak)
        else:
            challenge = await challenges.activation(ek, ak)
    return _document(challenge)


def _document(challenge: KeyChallenge) -> ActivationDocument | ImportDocument:
    blob = challenge.blob
    if isinstance(blob, CredentialBlob):
        credential_blob, encrypted_secret = blob.to_tpm2bs()
        return ActivationDocument(
            challenge=challenge.id,
            expires_at=challenge.expires_at,
            credential_blob=credential_blob,
            encrypted_secret=encrypted_secret,
            tools_file=blob.to_tools_file(),
        )
    return ImportDocument(
        challenge=challenge.id,
        expires_at=challenge.expires_at,
        public_area=blob.public_area,
        duplicate=blob.duplicate,
        encrypted_seed=blob.encrypted_seed,
    )
