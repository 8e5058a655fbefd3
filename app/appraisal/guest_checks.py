"""Checks of the guest: freshness, privilege level, guest policy, ID block, measurement."""

from collections.abc import Callable

from app.appraisal.findings import CheckId, Finding, Outcome, failed, not_requested, passed, warned
from app.appraisal.nearest_measurement import in_force, nearest
from app.appraisal.policy import ReferenceMeasurement
from app.appraisal.subject import Subject
from app.wire.binding import SVSM_VMPL, expected_report_data
from app.wire.report import VMPL_HOST

_MAX_VMPL = 3
# Permissions: dangerous when given beyond the policy. A refusal of these two is final.
_GRAVE = {"debug": CheckId.POLICY_DEBUG, "migrate_ma": CheckId.POLICY_MIGRATE_MA}
_PERMISSIONS = {"smt": CheckId.POLICY_SMT, "cxl": CheckId.POLICY_CXL}
# Demands: dangerous when missing.
_DEMANDS = {
    "single_socket": CheckId.POLICY_SINGLE_SOCKET,
    "mem_aes_256_xts": CheckId.POLICY_MEM_AES_256_XTS,
    "rapl_dis": CheckId.POLICY_RAPL_DIS,
    "ciphertext_hiding": CheckId.POLICY_CIPHERTEXT_HIDING,
    "page_swap_disable": CheckId.POLICY_PAGE_SWAP_DISABLE,
}
_LAUNCH = "Launch the VM with another guest policy, or change policy.guest_policy."


def check_report_data(subject: Subject) -> Finding:
    """Is this report fresh, and is it about this manifest?

    SVSM evidence: REPORT_DATA equals SHA-512(nonce || manifest), where in a session the nonce follows
    from the relying party's. A bare report: it equals the 64 bytes that were given.
    """
    actual = subject.report.report_data
    nonce = subject.report_nonce
    if nonce is None:
        why = "No nonce was given, so nothing tells a fresh report from a replayed one."
        return not_requested(CheckId.REPORT_DATA, actual.hex(), why)
    if subject.manifest_bytes is None:
        expected, what = nonce, "the expected REPORT_DATA"
    else:
        expected, what = expected_report_data(nonce, subject.manifest_bytes), "nonce and manifest"
    if subject.session is not None:
        what = "nonce, attestation key, channel and manifest"
    if actual == expected:
        why = f"REPORT_DATA is bound to {what}."
        return passed(CheckId.REPORT_DATA, expected.hex(), actual.hex(), why)
    why = f"REPORT_DATA does not fit {what}: another nonce, another manifest, or a replay."
    remedy = "Attest again with a nonce of your own and send that very nonce."
    return failed(CheckId.REPORT_DATA, expected.hex(), actual.hex(), why, remedy)


def check_vmpl(subject: Subject) -> Finding:
    """Who asked for the report? SVSM evidence is VMPL 0 or the guest could have made it."""
    vmpl, wish = subject.report.vmpl, subject.policy.policy.vmpl
    if subject.manifest is not None:
        allowed = {SVSM_VMPL} if wish is None else {SVSM_VMPL} & {wish}
    else:
        allowed = set(range(_MAX_VMPL + 1)) if wish is None else {wish}
    expected = " or ".join(str(level) for level in sorted(allowed)) or f"0 (SVSM) and {wish} (policy)"
    if vmpl in allowed:
        return passed(CheckId.VMPL, expected, vmpl, f"A guest component at VMPL {vmpl} asked for the report.")
    why = "Whoever asked for this report does not run where the policy demands."
    if vmpl == VMPL_HOST:
        why = "The host asked for this report, not the guest."
    elif subject.manifest is not None:
        why = f"Software at VMPL {vmpl} can name any key it likes; only the SVSM runs at VMPL 0."
    return failed(CheckId.VMPL, expected, vmpl, why)


def check_guest_policy(subject: Subject) -> list[Finding]:
    """What the guest's policy allows, and what it demands of the platform."""
    return [
        *(_check_permission(subject, name, check, failed) for name, check in _GRAVE.items()),
        _check_abi(subject),
        *(_check_permission(subject, name, check, warned) for name, check in _PERMISSIONS.items()),
        *(_check_demand(subject, name, check) for name, check in _DEMANDS.items()),
    ]


def _check_permission(subject: Subject, name: str, check: CheckId, refuse: Callable[..., Finding]) -> Finding:
    allowed = getattr(subject.policy.policy.guest_policy, name)
    actual = getattr(subject.report.policy, name)
    if allowed:
        return not_requested(check, str(actual).lower(), f"The policy lets a guest allow {name.upper()}.")
    if not actual:
        return passed(check, "false", "false", f"The guest policy forbids {name.upper()}.")
    return refuse(check, "false", "true", f"The guest policy allows {name.upper()}.", _LAUNCH)


def _check_demand(subject: Subject, name: str, check: CheckId) -> Finding:
    demanded = getattr(subject.policy.policy.guest_policy, name)
    actual = getattr(subject.report.policy, name)
    if not demanded:
        return not_requested(check, str(actual).lower(), f"The policy does not ask for {name.upper()}.")
    if actual:
        return passed(check, "true", "true", f"The guest policy demands {name.upper()}.")
    return warned(check, "true", "false", f"The guest policy does not demand {name.upper()}.", _LAUNCH)


def _check_abi(subject: Subject) -> Finding:
    wish, policy = subject.policy.policy.guest_policy, subject.report.policy
    actual = f"{policy.abi_major}.{policy.abi_minor}"
    if not (wish.abi_major or wish.abi_minor):
        return not_requested(CheckId.POLICY_ABI, actual, "The policy asks for no least firmware ABI.")
    expected = f"at least {wish.abi_major}.{wish.abi_minor}"
    if (policy.abi_major, policy.abi_minor) >= (wish.abi_major, wish.abi_minor):
        why = "The guest policy demands a firmware ABI that is recent enough."
        return passed(CheckId.POLICY_ABI, expected, actual, why)
    why = "The guest would have run on an older firmware ABI too."
    return warned(CheckId.POLICY_ABI, expected, actual, why, _LAUNCH)


def check_id_block(subject: Subject) -> Finding:
    """Do ID key, author key, family, image, guest SVN and HOST_DATA fit what the policy names?"""
    report, wish = subject.report, subject.policy.policy
    author_trusted = report.key_info.author_key_en and (
        report.author_key_digest in wish.trusted_author_key_hashes
    )
    tests = {
        "an ID block": (wish.require_id_block, any(report.id_key_digest)),
        "an author key": (wish.require_author_key, report.key_info.author_key_en),
        "a trusted author key": (
            bool(wish.trusted_author_key_hashes) and not wish.trusted_id_key_hashes,
            author_trusted,
        ),
        # A trusted author vouches for the ID key.
        "a trusted ID key": (
            bool(wish.trusted_id_key_hashes),
            report.id_key_digest in wish.trusted_id_key_hashes or author_trusted,
        ),
        "FAMILY_ID": (wish.family_id is not None, report.family_id == wish.family_id),
        "IMAGE_ID": (wish.image_id is not None, report.image_id == wish.image_id),
        f"GUEST_SVN at least {wish.minimum_guest_svn}": (
            wish.minimum_guest_svn > 0,
            report.guest_svn >= wish.minimum_guest_svn,
        ),
        "HOST_DATA": (bool(wish.host_data), report.host_data in wish.host_data),
    }
    actual = f"ID key {report.id_key_digest.hex()[:16]}…, GUEST_SVN {report.guest_svn}"
    asked = [name for name, (wanted, _) in tests.items() if wanted]
    if not asked:
        return not_requested(CheckId.ID_BLOCK, actual, "The policy names no identity of the guest.")
    wrong = [name for name, (wanted, holds) in tests.items() if wanted and not holds]
    if wrong:
        why = f"The guest's identity is not the one asked for: {', '.join(wrong)}."
        return failed(CheckId.ID_BLOCK, ", ".join(asked), actual, why)
    return passed(CheckId.ID_BLOCK, ", ".join(asked), actual, "The guest's identity is the one asked for.")


def known_measurement(subject: Subject) -> ReferenceMeasurement | None:
    """The reference value that this report's MEASUREMENT equals; a denial wins over an approval."""
    order = ("denied", "deprecated", "allowed")
    found = [
        known
        for known in subject.policy.reference_values.measurements
        if known.value == subject.report.measurement
    ]
    return min(found, key=lambda known: order.index(known.state), default=None)


def check_measurement(subject: Subject) -> Finding:
    """Is the launch digest a known one, in date, and not withdrawn?"""
    actual = subject.report.measurement.hex()
    known = known_measurement(subject)
    if known is None:
        return _unknown_measurement(subject)
    if known.state == "denied":
        why = f"The launch digest is {known.name}, which the policy denies."
        return failed(CheckId.MEASUREMENT, "no denied digest", actual, why)
    if known.not_after is not None and subject.at.date() > known.not_after:
        why = f"The approval of {known.name} ended on {known.not_after}."
        return warned(
            CheckId.MEASUREMENT, f"until {known.not_after}", actual, why, "Approve it again or update."
        )
    if known.state == "deprecated":
        why = f"The launch digest is {known.name}, which the policy calls deprecated."
        return warned(CheckId.MEASUREMENT, "a current launch digest", actual, why, "Update the VM's image.")
    return passed(CheckId.MEASUREMENT, known.name, actual, f"The launch digest is {known.name}.")


def _unknown_measurement(subject: Subject) -> Finding:
    """What the launch digest may have been meant to be: see app.appraisal.nearest_measurement."""
    digest, references = subject.report.measurement, subject.policy.reference_values.measurements
    unknown = "No reference value is known for this launch digest, so the code is unrecognised"
    close = nearest(digest, references)
    if close is not None:
        known, mistake = close
        why = f"{unknown}; nearest is {known.name} ({known.state}), {mistake}."
        remedy = (
            "Compute the digest again with `svsm-attest measure`, and compare it with the reference value."
        )
        return warned(CheckId.MEASUREMENT, known.value.hex(), digest.hex(), why, remedy)
    names = in_force(references, subject.at.date())
    expected = f"a known launch digest: {names}" if names else "a known launch digest"
    why = f"{unknown}; {'none resembles it' if references else 'the policy has none'}."
    remedy = (
        "Compute the expected digest with `svsm-attest measure`, or capture it, and add it to"
        " reference_values.measurements."
    )
    return warned(CheckId.MEASUREMENT, expected, digest.hex(), why, remedy)


def is_passed(findings: list[Finding], check: CheckId) -> bool:
    """Did this check pass?"""
    return any(finding.check is check and finding.outcome is Outcome.PASSED for finding in findings)
