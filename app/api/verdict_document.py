"""The shape of a verdict, as the OpenAPI document tells it; the appraisal itself writes it."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.appraisal.findings import CheckId, Outcome, Profile, Tier
from app.trust.crl import RevocationState
from app.trust.names import VekKind


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FindingDocument(_Document):
    """What one check came to."""

    check: CheckId
    outcome: Outcome
    expected: str | None
    actual: str | None
    why: str = Field(description="one sentence")
    remedy: str | None = Field(description="one sentence, where there is something to do")
    source: str = Field(description="document and section that demand this check")


class ClaimsDocument(_Document):
    """What the evidence says, decoded; AMD's field names in snake_case, bytes in hexadecimal."""

    snp: dict[str, Any] = Field(description="everything that the report says")
    vtpm: dict[str, Any] | None = Field(
        default=None,
        description="what the manifest says, and a proven quote (null: not proven); absent for a bare report",
    )


class EndorsementsDocument(_Document):
    """Who vouched for the key that signed the report."""

    root: str | None
    root_origin: Literal["amd", "extra", "simulator"] | None
    root_sha256: str | None
    intermediate_sha256: str | None
    leaf: VekKind | None
    leaf_sha256: str | None
    leaf_not_after: str | None
    simulated: bool = Field(description="true where no hardware stands behind the evidence")
    crl: RevocationState
    crl_number: int | None


class PolicyDocument(_Document):
    """The policy that decided."""

    id: str
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")


class VerdictDocument(_Document):
    """The result of an appraisal that finished, whatever it came to."""

    verdict: Tier
    genuine: bool = Field(
        description="did a genuine security processor, under the roots in force, sign this?"
    )
    profile: Profile = Field(description="svsm with a manifest, snp for a bare report")
    findings: list[FindingDocument] = Field(description="every check of the profile")
    caveats: list[str] = Field(description="what this result cannot promise")
    claims: ClaimsDocument
    endorsements: EndorsementsDocument
    policy: PolicyDocument
    appraised_at: str = Field(description="RFC 3339")
    ear: None = Field(description="no signed token is made")
