"""The attestation result: findings and claims, from which the verdict is computed, never stored."""

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from app.appraisal.findings import Finding, Profile, Tier, genuine, tier


@dataclass(frozen=True, kw_only=True)
class AttestationResult:
    """What one appraisal came to."""

    profile: Profile
    findings: tuple[Finding, ...]
    claims: dict[str, dict[str, Any]]
    endorsements: dict[str, Any]
    caveats: tuple[str, ...]
    policy_id: str
    policy_digest: str
    appraised_at: datetime

    @cached_property
    def verdict(self) -> Tier:
        """The tier that the findings add up to."""
        return tier(self.findings, self.profile)

    @cached_property
    def genuine(self) -> bool:
        """Did a genuine security processor, under the roots in force, sign this report?"""
        return genuine(self.findings)

    def document(self) -> dict[str, Any]:
        """The verdict as the contract's JSON object."""
        return {
            "verdict": self.verdict.value,
            "genuine": self.genuine,
            "profile": self.profile.value,
            "findings": [
                {
                    "check": finding.check.value,
                    "outcome": finding.outcome.value,
                    "expected": finding.expected,
                    "actual": finding.actual,
                    "why": finding.why,
                    "remedy": finding.remedy,
                    "source": finding.source,
                }
                for finding in self.findings
            ],
            "caveats": list(self.caveats),
            "claims": self.claims,
            "endorsements": self.endorsements,
            "policy": {"id": self.policy_id, "digest": self.policy_digest},
            "appraised_at": self.appraised_at.isoformat().replace("+00:00", "Z"),
            "ear": None,
        }
