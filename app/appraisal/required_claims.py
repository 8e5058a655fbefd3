"""Which AR4SI claims an appraisal asserts, held against those that the policy requires.

Source: draft-ietf-rats-ar4si, trustworthiness vector. A claim that nothing was asserted about
caps the verdict at warning.
"""

from app.appraisal.findings import CheckId, Finding, Outcome, not_requested, passed, warned
from app.appraisal.subject import Subject

# Any of these checks, once requested, asserts the claim. The others of AR4SI are never asserted:
# nothing in this evidence speaks of file systems, stored data or data sources. That an attestation
# key is the EK's says nothing about an instance that somebody knows: an enrolled EK does.
_ASSERTED_BY = {
    "hardware": {CheckId.CHAIN},
    "configuration": {CheckId.POLICY_DEBUG, CheckId.VMPL},
    "executables": {CheckId.MEASUREMENT, CheckId.VTPM_PCRS},
    "runtime-opaque": {CheckId.SIGNATURE},
    "instance-identity": {CheckId.CHIP_ALLOWED, CheckId.VTPM_EK_ENROLLED},
}


def check_required_claims(subject: Subject, findings: list[Finding]) -> Finding:
    """Was something asserted about every claim that the policy requires?"""
    required = subject.policy.policy.required_claims
    if not required:
        return not_requested(CheckId.REQUIRED_CLAIMS, None, "The policy requires no claim.")
    asked = {finding.check for finding in findings if finding.outcome is not Outcome.NOT_REQUESTED}
    asserted = sorted(claim for claim, checks in _ASSERTED_BY.items() if checks & asked)
    expected, actual = ", ".join(required), ", ".join(asserted)
    missing = [claim for claim in required if claim not in asserted]
    if missing:
        why = f"Nothing was asserted about {', '.join(missing)}."
        remedy = "Give the policy something to check it by, or take it from required_claims."
        return warned(CheckId.REQUIRED_CLAIMS, expected, actual, why, remedy)
    return passed(CheckId.REQUIRED_CLAIMS, expected, actual, "Every required claim was asserted.")
