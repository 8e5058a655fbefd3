"""Findings: what every check of an appraisal reports, and the verdict they add up to.

Check names: attestation-results profile of this project (docs/reference/checks.md). Tiers: AR4SI
(draft-ietf-rats-ar4si), failing closed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class CheckId(StrEnum):
    """Every check, in the order in which findings are listed."""

    SIGNATURE = "snp.signature"
    CHAIN = "snp.chain"
    VEK_KIND = "snp.vek.kind"
    VEK_TCB = "snp.vek.tcb"
    VEK_HWID = "snp.vek.hwid"
    PRODUCT = "snp.product"
    SIMULATED = "snp.simulated"
    REVOCATION = "snp.revocation"
    REPORT_DATA = "snp.report_data"
    VMPL = "snp.vmpl"
    REPORT_VERSION = "snp.report_version"
    TCB_RELATIONS = "snp.tcb.relations"
    TCB_MINIMUM = "snp.tcb.minimum"
    FIRMWARE = "snp.firmware"
    MITIGATION_VECTOR = "snp.mit_vector"
    POLICY_DEBUG = "snp.policy.debug"
    POLICY_MIGRATE_MA = "snp.policy.migrate_ma"
    POLICY_ABI = "snp.policy.abi"
    POLICY_SMT = "snp.policy.smt"
    POLICY_SINGLE_SOCKET = "snp.policy.single_socket"
    POLICY_CXL = "snp.policy.cxl"
    POLICY_MEM_AES_256_XTS = "snp.policy.mem_aes_256_xts"
    POLICY_RAPL_DIS = "snp.policy.rapl_dis"
    POLICY_CIPHERTEXT_HIDING = "snp.policy.ciphertext_hiding"
    POLICY_PAGE_SWAP_DISABLE = "snp.policy.page_swap_disable"
    PLATFORM_INFO = "snp.platform_info"
    ID_BLOCK = "snp.id_block"
    MEASUREMENT = "snp.measurement"
    CHIP_ALLOWED = "snp.chip_allowed"
    VTPM_BINDING = "vtpm.binding"
    VTPM_MANIFEST_VERSION = "vtpm.manifest_version"
    VTPM_EK_TEMPLATE = "vtpm.ek_template"
    VTPM_EK_ENROLLED = "vtpm.ek_enrolled"
    VTPM_PCRS = "vtpm.pcrs"
    REQUIRED_CLAIMS = "policy.required_claims"


class Profile(StrEnum):
    """What kind of evidence was appraised."""

    SVSM = "svsm"  # a report of an SVSM about the manifest of its services
    SNP = "snp"  # a bare report about 64 bytes of REPORT_DATA

    @property
    def checks(self) -> tuple[CheckId, ...]:
        """The checks that report on every appraisal of this profile."""
        return tuple(
            check for check in CheckId if self is Profile.SVSM or not check.value.startswith("vtpm.")
        )


class Outcome(StrEnum):
    """What a check came to."""

    PASSED = "passed"
    FAILED = "failed"
    WARNED = "warned"
    NOT_REQUESTED = "not_requested"


class Tier(StrEnum):
    """AR4SI trustworthiness tiers."""

    AFFIRMING = "affirming"
    WARNING = "warning"
    CONTRAINDICATED = "contraindicated"
    NONE = "none"


# The report is one that a genuine security processor signed.
GENUINE = frozenset(
    {
        CheckId.SIGNATURE,
        CheckId.CHAIN,
        CheckId.VEK_KIND,
        CheckId.VEK_TCB,
        CheckId.VEK_HWID,
        CheckId.PRODUCT,
    }
)
# No policy can waive these: without their answer there is no verdict.
MANDATORY = GENUINE | {
    CheckId.SIMULATED,
    CheckId.REPORT_DATA,
    CheckId.VMPL,
    CheckId.TCB_RELATIONS,
    CheckId.MEASUREMENT,
    CheckId.VTPM_BINDING,
}
# A warning of these is shown in every result but does not lower the verdict: that the simulator's
# root is trusted took a setting of the verifier's operator, who asked for just this.
ADVISORY = frozenset({CheckId.SIMULATED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The outcome of one check. `why` and `remedy` are one sentence each."""

    check: CheckId
    outcome: Outcome
    expected: str | None
    actual: str | None
    why: str
    remedy: str | None = None
    source: str


def genuine(findings: Iterable[Finding]) -> bool:
    """Did every check that makes a report genuine pass?"""
    passed = {finding.check for finding in findings if finding.outcome is Outcome.PASSED}
    return passed >= GENUINE


def tier(findings: tuple[Finding, ...], profile: Profile) -> Tier:
    """The verdict: affirming only if every check reported, none failed and none was waived.

    A failed check contraindicates whatever else is missing; a missing or waived mandatory
    check leaves no verdict; a warning lowers it.
    """
    outcomes = {finding.check: finding.outcome for finding in findings}
    if Outcome.FAILED in outcomes.values():
        return Tier.CONTRAINDICATED
    complete = len(findings) == len(outcomes) and outcomes.keys() == set(profile.checks)
    mandatory = MANDATORY & set(profile.checks)
    if not complete or any(outcomes[check] is Outcome.NOT_REQUESTED for check in mandatory):
        return Tier.NONE
    if any(outcome is Outcome.WARNED and check not in ADVISORY for check, outcome in outcomes.items()):
        return Tier.WARNING
    return Tier.AFFIRMING
