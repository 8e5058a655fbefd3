"""What a relying party sends to have evidence appraised: evidence, and all that only itself knows."""

from dataclasses import replace
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from app.api.evidence_document import ChannelBinding, EvidenceDocument, ManifestVersion
from app.api.fields import Base64, Nonce, at_most
from app.api.pcr_fields import Pcrs
from app.appraisal.quote import BootCounters, QuoteExpectation
from app.verifier.key_challenges import ActivationAnswer, CertifyAnswer, ChallengeAnswer
from app.wire.session import MAX_CHANNEL_SIZE, NO_CHANNEL, Channel
from app.wire.tpm.algorithms import HASH_SIZES

_MAX_SECRET = max(HASH_SIZES.values())
_MAX_CERTIFICATION = 1024  # with the longest Names: 327
_MAX_SIGNATURE = 512
_POLICY_SCHEMA = {
    "anyOf": [
        {"type": "string", "description": "the name of a policy that this verifier knows"},
        {"type": "object", "description": "a whole policy, as docs/reference/policy.md has it"},
        {"type": "null", "description": "the policy that the operator chose"},
    ]
}

Count = ManifestVersion  # 32 bits, and whole
EkName = Annotated[
    str, StringConstraints(pattern=r"^(?:000b[0-9a-f]{64}|000c[0-9a-f]{96}|000d[0-9a-f]{128})$")
]


def _name_or_document(value: object) -> object:
    if value is None or isinstance(value, str | dict):
        return value
    raise ValueError("want the name of a policy, or a policy as an object")


class ChallengeAnswerDocument(BaseModel):
    """The answer to a challenge of `POST /ak-challenges`: a secret, or a certification."""

    model_config = ConfigDict(extra="forbid")

    challenge: str = Field(min_length=1, max_length=64, description="as the challenge has it")
    secret: Annotated[Base64, *at_most(_MAX_SECRET)] | None = Field(
        default=None, description="what TPM2_ActivateCredential gave back"
    )
    certify_info: Annotated[Base64, *at_most(_MAX_CERTIFICATION)] | None = Field(
        default=None, description="TPMS_ATTEST of TPM2_Certify, with the imported key"
    )
    signature: Annotated[Base64, *at_most(_MAX_SIGNATURE)] | None = Field(
        default=None, description="TPMT_SIGNATURE over it"
    )

    @model_validator(mode="after")
    def _is_one_answer(self) -> "ChallengeAnswerDocument":
        certified = (self.certify_info is not None, self.signature is not None)
        if certified != ((False, False) if self.secret is not None else (True, True)):
            raise ValueError("want either secret, or certify_info and signature")
        return self

    def answer(self) -> ChallengeAnswer:
        """The answer, read.

        Raises:
            WireError: a malformed certification or signature.
        """
        if self.secret is not None:
            return ActivationAnswer(self.challenge, self.secret)
        return CertifyAnswer.parse(self.challenge, self.certify_info or b"", self.signature or b"")


class ChannelDocument(BaseModel):
    """The channel to the attester, as the relying party saw it."""

    model_config = ConfigDict(extra="forbid")

    type: ChannelBinding
    value: Annotated[Base64, *at_most(MAX_CHANNEL_SIZE)] = Field(
        default=b"",
        description="of tls-server-end-point the digest of the attester's certificate (RFC 5929, 4.1)",
    )

    @model_validator(mode="after")
    def _has_its_value(self) -> "ChannelDocument":
        if bool(self.value) is (self.type is ChannelBinding.NONE):
            raise ValueError("want a value, and for `none` no value")
        return self

    def channel(self) -> Channel:
        """The channel that a session is bound to."""
        return Channel(self.type.channel, self.value)


class BootCountersDocument(BaseModel):
    """The counters of an earlier verdict's claims."""

    model_config = ConfigDict(extra="forbid")

    reset_count: Count
    restart_count: Count
    ek_name: EkName | None = Field(
        default=None, description="of that verdict, too: a vTPM without persistent state is another one"
    )

    def counters(self) -> BootCounters:
        """The counters to compare with."""
        name = bytes.fromhex(self.ek_name) if self.ek_name is not None else None
        return BootCounters(reset_count=self.reset_count, restart_count=self.restart_count, ek_name=name)


class AppraisalRequest(BaseModel):
    """Evidence, the nonce it was asked for with, and what it was to say."""

    model_config = ConfigDict(extra="forbid")

    nonce: Nonce = Field(description="the nonce of the caller; of a bare report the expected REPORT_DATA")
    evidence: EvidenceDocument
    activation: ChallengeAnswerDocument | None = Field(
        default=None, description="shows that attestation key and EK are in one TPM"
    )
    channel_binding: ChannelDocument | None = Field(
        default=None, description="what the session must be bound to; null: to no channel"
    )
    last_boot: BootCountersDocument | None = Field(
        default=None, description="where the TPM was last seen, to find out about boots since"
    )

    def expectation(self) -> QuoteExpectation:
        """What the caller knows of the quote."""
        return QuoteExpectation(
            channel=self.channel_binding.channel() if self.channel_binding else NO_CHANNEL,
            last_boot=self.last_boot.counters() if self.last_boot else None,
        )

    def answer(self) -> ChallengeAnswer | None:
        """The answer to a challenge, if there is one.

        Raises:
            WireError: as ChallengeAnswerDocument.answer.
        """
        return self.activation.answer() if self.activation else None


class VerifyRequest(AppraisalRequest):
    """Evidence, the nonce it was asked for with, the policy to appraise it by, and what it was to say."""

    policy: Annotated[
        str | dict[str, Any] | None, BeforeValidator(_name_or_document), WithJsonSchema(_POLICY_SCHEMA)
    ] = None
    pcrs: Pcrs | None = Field(
        default=None, description="the registers that were to be quoted; null: those of the policy"
    )

    def expectation(self) -> QuoteExpectation:
        """What the caller knows of the quote; it may have asked for other registers than the policy does."""
        return replace(super().expectation(), pcrs=self.pcrs)
