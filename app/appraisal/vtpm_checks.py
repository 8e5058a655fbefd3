"""Checks of the vTPM: is an EK bound by the SVSM, of which kind, and enrolled?"""

import hashlib

from app.appraisal.findings import CheckId, Finding, failed, not_requested, passed, warned
from app.appraisal.quote_checks import check_quote
from app.appraisal.subject import Subject

_NO_VTPM = "The manifest is about other services: it says nothing of a vTPM."


def check_vtpm(subject: Subject, *, fresh: bool, at_vmpl_0: bool) -> list[Finding]:
    """Every check of the vTPM part; `fresh` and `at_vmpl_0` are what the report's checks found."""
    return [
        _check_binding(subject, fresh=fresh, at_vmpl_0=at_vmpl_0),
        _check_manifest_version(subject),
        _check_ek_template(subject),
        _check_ek_enrolled(subject),
        *check_quote(subject, bound=fresh and at_vmpl_0),
    ]


def _check_binding(subject: Subject, *, fresh: bool, at_vmpl_0: bool) -> Finding:
    """Does the SVSM itself vouch for this EK, for this nonce?"""
    expected = "an EK in the manifest, bound by REPORT_DATA of a VMPL 0 report"
    if subject.nonce is None:
        why = "Without a nonce no binding can be recomputed."
        return not_requested(CheckId.VTPM_BINDING, None, why)
    if not (fresh and at_vmpl_0):
        missing = "REPORT_DATA" if at_vmpl_0 else "VMPL"
        why = f"The report does not bind this manifest as an SVSM would ({missing})."
        return failed(CheckId.VTPM_BINDING, expected, "not bound", why)
    if subject.vtpm is None:
        remedy = "Ask the attester for the vtpm service, or for all."
        return warned(CheckId.VTPM_BINDING, expected, "no vTPM in the manifest", _NO_VTPM, remedy)
    ek = subject.ek
    actual = f"EK {ek.name.hex()}" if ek else "no EK among the keys"
    why = "The SVSM vouches for this EK, for this nonce."
    return passed(CheckId.VTPM_BINDING, expected, actual, why)


def _check_manifest_version(subject: Subject) -> Finding:
    allowed = subject.policy.reference_values.vtpm.manifest_versions
    if subject.vtpm is None:
        return not_requested(CheckId.VTPM_MANIFEST_VERSION, None, _NO_VTPM)
    version = str(subject.vtpm.version)
    expected = " or ".join(allowed)
    if version in allowed:
        why = f"The vTPM manifest has version {version}, told from its structure."
        return passed(CheckId.VTPM_MANIFEST_VERSION, expected, version, why)
    why = f"The policy does not accept vTPM manifest version {version}."
    remedy = "Add it to reference_values.vtpm.manifest_versions."
    return failed(CheckId.VTPM_MANIFEST_VERSION, expected, version, why, remedy)


def _check_ek_template(subject: Subject) -> Finding:
    """Is the EK an EK: fixedTPM, restricted, decrypting, with the policy of a TCG template?"""
    if subject.vtpm is None:
        return not_requested(CheckId.VTPM_EK_TEMPLATE, None, _NO_VTPM)
    allowed = subject.policy.reference_values.vtpm.ek_templates
    expected = " or ".join(allowed) if allowed else "a TCG EK template"
    template = subject.ek.template if subject.ek else None
    if template is None:
        why = "The key follows no TCG EK template, so a TPM may do other things with it than an EK's."
        return failed(CheckId.VTPM_EK_TEMPLATE, expected, "none", why)
    if allowed and template not in allowed:
        why = f"The policy does not accept template {template}."
        remedy = "Add it to reference_values.vtpm.ek_templates."
        return failed(CheckId.VTPM_EK_TEMPLATE, expected, template, why, remedy)
    return passed(CheckId.VTPM_EK_TEMPLATE, expected, template, f"The EK follows template {template}.")


def _check_ek_enrolled(subject: Subject) -> Finding:
    enrolled = subject.policy.reference_values.vtpm.ek_sha256
    if subject.vtpm is None:
        return not_requested(CheckId.VTPM_EK_ENROLLED, None, _NO_VTPM)
    digest = hashlib.sha256(subject.ek.encode()).digest() if subject.ek else None
    actual = digest.hex() if digest else "no EK"
    if not enrolled:
        return not_requested(CheckId.VTPM_EK_ENROLLED, actual, "The policy enrols no EK.")
    if digest in enrolled:
        return passed(CheckId.VTPM_EK_ENROLLED, "an enrolled EK", actual, "The EK is enrolled.")
    why = "The policy does not list this EK; an SVSM without persistence makes a new one at every boot."
    remedy = "Add its SHA-256 to reference_values.vtpm.ek_sha256."
    return failed(CheckId.VTPM_EK_ENROLLED, "an enrolled EK", actual, why, remedy)
