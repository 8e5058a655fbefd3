"""Findings: what every check of an appraisal reports, and the verdict they add up to.

Check names: attestation-results profile of this project (docs/reference/checks.md). Tiers: AR4SI
(draft-ietf-rats-ar4si), failing closed.
"""

from collections.abc import Iterable, Mapping
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
    VTPM_AK = "vtpm.ak"
    VTPM_AK_BINDING = "vtpm.ak_binding"
    QUOTE_SIGNATURE = "vtpm.quote.signature"
    QUOTE_NONCE = "vtpm.quote.nonce"
    QUOTE_SELECTION = "vtpm.quote.selection"
    QUOTE_DIGEST = "vtpm.quote.digest"
    VTPM_PCRS = "vtpm.pcrs"
    VTPM_EVENT_LOG = "vtpm.event_log"
    VTPM_SECURE_BOOT = "vtpm.secure_boot"
    VTPM_BOOT_COUNTERS = "vtpm.boot_counters"
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
# A quote counts whole or not at all: where one of these reports on it, all of them are mandatory.
QUOTE = frozenset(
    {
        CheckId.VTPM_AK,
        CheckId.VTPM_AK_BINDING,
        CheckId.QUOTE_SIGNATURE,
        CheckId.QUOTE_NONCE,
        CheckId.QUOTE_SELECTION,
        CheckId.QUOTE_DIGEST,
    }
)
# What is read from a quote that holds.
QUOTED = frozenset(
    {
        CheckId.VTPM_PCRS,
        CheckId.VTPM_EVENT_LOG,
        CheckId.VTPM_SECURE_BOOT,
        CheckId.VTPM_BOOT_COUNTERS,
    }
)
# A warning of these is shown in every result but does not lower the verdict: that the simulator's
# root is trusted took a setting of the verifier's operator, who asked for just this.
ADVISORY = frozenset({CheckId.SIMULATED})


_ABI = "AMD 56860 (SEV-SNP Firmware ABI)"
_VCEK = "AMD 57230 (VCEK certificate and KDS interface)"
_SVSM = "SVSM specification 58019"
_EK = "TCG EK Credential Profile for TPM Family 2.0"
_TPM = "TCG TPM 2.0 Library"
_QUOTE = f"{_TPM}, Part 3, TPM2_Quote"
_FIRMWARE_PROFILE = "TCG PC Client Platform Firmware Profile"
_SESSION = "svsm-attest docs/session.md"
_PROFILE = "svsm-attest docs/reference/policy.md"

SOURCES: dict[CheckId, str] = {
    CheckId.SIGNATURE: f"{_ABI}, ATTESTATION_REPORT.SIGNATURE",
    CheckId.CHAIN: f"{_VCEK}, certificate chain",
    CheckId.VEK_KIND: f"{_ABI}, ATTESTATION_REPORT.KEY_INFO",
    CheckId.VEK_TCB: f"{_VCEK}, SPL extensions",
    CheckId.VEK_HWID: f"{_VCEK}, hwid and csp_id extensions",
    CheckId.PRODUCT: f"{_ABI}, CPUID fields; {_VCEK}, product names",
    CheckId.SIMULATED: "svsm-attest docs/threat-model.md",
    CheckId.REVOCATION: f"{_VCEK}, certificate revocation list",
    CheckId.REPORT_DATA: f"{_SVSM}, SVSM_ATTEST_SINGLE_SERVICE and SVSM_ATTEST_SERVICES",
    CheckId.VMPL: f"{_SVSM}, section 7; {_ABI}, ATTESTATION_REPORT.VMPL",
    CheckId.REPORT_VERSION: f"{_ABI}, ATTESTATION_REPORT.VERSION",
    CheckId.TCB_RELATIONS: f"{_ABI}, TCB_VERSION; SNP_COMMIT",
    CheckId.TCB_MINIMUM: _PROFILE,
    CheckId.FIRMWARE: f"{_ABI}, CURRENT and COMMITTED version; SNP_COMMIT",
    CheckId.MITIGATION_VECTOR: f"{_ABI}, mitigation vectors",
    CheckId.PLATFORM_INFO: f"{_ABI}, PLATFORM_INFO",
    CheckId.ID_BLOCK: f"{_ABI}, ID block",
    CheckId.MEASUREMENT: f"{_ABI}, ATTESTATION_REPORT.MEASUREMENT",
    CheckId.CHIP_ALLOWED: _PROFILE,
    CheckId.VTPM_BINDING: f"{_SVSM}, section 8.3",
    CheckId.VTPM_MANIFEST_VERSION: f"{_SVSM}, section 8.3.3",
    CheckId.VTPM_EK_TEMPLATE: f"{_EK}, annex B",
    CheckId.VTPM_EK_ENROLLED: _PROFILE,
    CheckId.VTPM_AK: f"{_TPM}, Part 1, Attestation; Part 2, TPMA_OBJECT",
    CheckId.VTPM_AK_BINDING: f"{_TPM}, Part 1, Credential Protection; Part 3, TPM2_ActivateCredential",
    CheckId.QUOTE_SIGNATURE: _QUOTE,
    CheckId.QUOTE_NONCE: f"{_SESSION}; {_TPM}, Part 2, TPMS_ATTEST.extraData",
    CheckId.QUOTE_SELECTION: f"{_TPM}, Part 2, TPMS_QUOTE_INFO.pcrSelect",
    CheckId.QUOTE_DIGEST: f"{_TPM}, Part 2, TPMS_QUOTE_INFO.pcrDigest",
    CheckId.VTPM_PCRS: _PROFILE,
    CheckId.VTPM_EVENT_LOG: f"{_FIRMWARE_PROFILE}, Event Logging",
    CheckId.VTPM_SECURE_BOOT: f"{_FIRMWARE_PROFILE}, PCR 7",
    CheckId.VTPM_BOOT_COUNTERS: f"{_TPM}, Part 2, TPMS_CLOCK_INFO",
    CheckId.REQUIRED_CLAIMS: "AR4SI (draft-ietf-rats-ar4si), trustworthiness vector",
} | {check: f"{_ABI}, guest policy" for check in CheckId if check.startswith("snp.policy.")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The outcome of one check. `why` and `remedy` are one sentence each."""

    check: CheckId
    outcome: Outcome
    expected: str | None = None
    actual: str | None = None
    why: str
    remedy: str | None = None

    @property
    def source(self) -> str:
        """Document and section that demand this check."""
        return SOURCES[self.check]


def passed(check: CheckId, expected: object, actual: object, why: str) -> Finding:
    """The evidence is as it should be."""
    return Finding(check=check, outcome=Outcome.PASSED, expected=str(expected), actual=str(actual), why=why)


def failed(check: CheckId, expected: object, actual: object, why: str, remedy: str | None = None) -> Finding:
    """The evidence is not as it must be."""
    outcome = Outcome.FAILED
    return Finding(
        check=check, outcome=outcome, expected=str(expected), actual=str(actual), why=why, remedy=remedy
    )


def warned(check: CheckId, expected: object, actual: object, why: str, remedy: str | None = None) -> Finding:
    """The evidence is acceptable, but not what was wished for."""
    outcome = Outcome.WARNED
    return Finding(
        check=check, outcome=outcome, expected=str(expected), actual=str(actual), why=why, remedy=remedy
    )


def not_requested(check: CheckId, actual: object, why: str) -> Finding:
    """Nothing was asked for, and the finding says so."""
    shown = None if actual is None else str(actual)
    return Finding(check=check, outcome=Outcome.NOT_REQUESTED, actual=shown, why=why)


def genuine(findings: Iterable[Finding]) -> bool:
    """Did every check that makes a report genuine pass?"""
    passed = {finding.check for finding in findings if finding.outcome is Outcome.PASSED}
    return passed >= GENUINE


def mandatory(outcomes: Mapping[str, str]) -> frozenset[CheckId]:
    """The checks that cannot be waived, given what each came to; of a quote these are all or none."""
    quoted = any(outcomes.get(check, Outcome.NOT_REQUESTED) != Outcome.NOT_REQUESTED for check in QUOTE)
    return MANDATORY | QUOTE if quoted else MANDATORY


def tier(findings: tuple[Finding, ...], profile: Profile) -> Tier:
    """The verdict: affirming only if every check reported, none failed and none was waived.

    A failed check contraindicates whatever else is missing; a missing or waived mandatory
    check leaves no verdict, and of a quote every check is mandatory; a warning lowers it.
    """
    outcomes: dict[str, Outcome] = {finding.check: finding.outcome for finding in findings}
    if Outcome.FAILED in outcomes.values():
        return Tier.CONTRAINDICATED
    complete = len(findings) == len(outcomes) and outcomes.keys() == set(profile.checks)
    due = mandatory(outcomes) & set(profile.checks)
    if not complete or any(outcomes[check] is Outcome.NOT_REQUESTED for check in due):
        return Tier.NONE
    if any(outcome is Outcome.WARNED and check not in ADVISORY for check, outcome in outcomes.items()):
        return Tier.WARNING
    return Tier.AFFIRMING
