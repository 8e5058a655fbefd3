"""Checks of the signature and of the endorsement of the key that made it.

Sources: AMD 56860 (report, KEY_INFO), AMD 57230 (VCEK and VLEK certificates, CRL).
"""

from app.appraisal.findings import CheckId, Finding, failed, not_requested, passed, warned
from app.appraisal.subject import Subject
from app.trust.crl import RevocationState
from app.trust.vek import VekKind
from app.wire.report import CPUID_SINCE, SIGNING_KEY_NONE, SIGNING_KEY_VCEK, SIGNING_KEY_VLEK

_KINDS = {SIGNING_KEY_VCEK: VekKind.VCEK, SIGNING_KEY_VLEK: VekKind.VLEK}


def check_signature(subject: Subject) -> Finding:
    """Did the endorsed key sign the first 672 bytes?"""
    expected = "ECDSA P-384 with SHA-384 by the endorsed key"
    if subject.endorsements.signature_valid:
        return passed(CheckId.SIGNATURE, expected, "valid", "The endorsed key signed this report.")
    why = "The report was changed, or another key than the endorsed one signed it."
    remedy = "Get fresh evidence, and the certificate of the very chip and TCB."
    return failed(CheckId.SIGNATURE, expected, "invalid", why, remedy)


def check_chain(subject: Subject) -> Finding:
    """Does the chain lead from the signing key to a root in force, now, by AMD's profile?"""
    chain = subject.chain
    if chain is None:
        why = "The report names no signing key, so nothing endorses it."
        return failed(CheckId.CHAIN, "a chain to a trusted ARK", "no leaf certificate", why)
    if chain.problems:
        actual = "; ".join(f"{p.fault.value}: {p.certificate}: {p.why}" for p in chain.problems)
        why = f"The certificate chain does not hold ({len(chain.problems)} problem(s))."
        return failed(CheckId.CHAIN, "a chain to a trusted ARK", actual, why)
    root = f"{chain.root.name} ({chain.root.origin} root)" if chain.root else "no root"
    why = f"Every certificate up to {root} is valid at the time of appraisal."
    return passed(CheckId.CHAIN, "a chain to a trusted ARK", root, why)


def check_vek_kind(subject: Subject) -> Finding:
    """Is the certificate of the kind of key that the report says signed it?"""
    signing_key = subject.report.key_info.signing_key
    expected = _KINDS.get(signing_key)
    kind = subject.chain.vek.kind if subject.chain else None
    if expected is not None and kind is expected:
        why = f"SIGNING_KEY and the certificate agree on a {expected.value.upper()}."
        return passed(CheckId.VEK_KIND, expected.value, kind.value, why)
    if expected is None:
        named = "none" if signing_key == SIGNING_KEY_NONE else "reserved"
        why = f"SIGNING_KEY {signing_key} ({named}) is no key that AMD endorses."
    else:
        why = f"The report says a {expected.value.upper()} signed it, the certificate is another kind."
    actual = kind.value if kind else "unknown"
    return failed(CheckId.VEK_KIND, expected.value if expected else "vcek or vlek", actual, why)


def check_vek_tcb(subject: Subject) -> Finding:
    """Does the certificate carry exactly REPORTED_TCB, component by component?"""
    vek = subject.chain.vek if subject.chain else None
    certified = vek.tcb if vek else None
    # The layout of the certificate's line: the key was derived under it.
    same_line = vek is not None and vek.line is not None and vek.line is subject.line
    reported = subject.tcbs["reported"] if same_line else None
    expected = str(reported) if reported else subject.report.reported_tcb.hex()
    if certified is not None and certified == reported:
        why = "The key was derived for exactly the TCB that the report states."
        return passed(CheckId.VEK_TCB, expected, str(certified), why)
    why = "The certificate is for another TCB than the one the report states."
    if certified is None:
        why = "The certificate does not state a complete TCB."
    remedy = "Get the VCEK for this chip and REPORTED_TCB; tables kept by a host go stale after an update."
    return failed(CheckId.VEK_TCB, expected, str(certified or "none"), why, remedy)


def check_vek_hwid(subject: Subject) -> Finding:
    """Is the VCEK this chip's; is the VLEK one of an accepted provider?"""
    vek = subject.chain.vek if subject.chain else None
    if vek is not None and vek.kind is VekKind.VLEK:
        return _check_csp_id(subject, vek.csp_id, vek.hwid)
    chip_id = subject.report.chip_id
    hwid = vek.hwid if vek else None
    if vek is None or hwid is None or vek.csp_id is not None:
        why = "A VCEK certificate carries a HWID and no provider name; this one does not."
        return failed(CheckId.VEK_HWID, chip_id.hex(), hwid.hex() if hwid else "none", why)
    if subject.report.key_info.mask_chip_key or not any(chip_id):
        why = "The host masks CHIP_ID, so the certificate's HWID has nothing to be compared with."
        if subject.policy.root_of_trust.allow_masked_chip_id:
            why += " The policy accepts this."
            return passed(CheckId.VEK_HWID, "masked", hwid.hex(), why)
        remedy = "Unmask CHIP_ID on the host, or set root_of_trust.allow_masked_chip_id."
        return failed(CheckId.VEK_HWID, "a CHIP_ID", "masked", why, remedy)
    if chip_id == hwid.ljust(len(chip_id), b"\0"):
        why = "The certificate was issued for this chip."
        return passed(CheckId.VEK_HWID, chip_id.hex(), hwid.hex(), why)
    why = "The certificate was issued for another chip."
    return failed(CheckId.VEK_HWID, chip_id.hex(), hwid.hex(), why)


def _check_csp_id(subject: Subject, csp_id: str | None, hwid: bytes | None) -> Finding:
    allowed = subject.policy.policy.csp_ids
    expected = " or ".join(allowed) if allowed else "a provider name"
    if csp_id is None or hwid is not None:
        why = "A VLEK certificate names its provider and no chip; this one does not."
        return failed(CheckId.VEK_HWID, expected, csp_id, why)
    if allowed and csp_id not in allowed:
        why = "The policy does not list this cloud provider."
        return failed(CheckId.VEK_HWID, expected, csp_id, why, "Add it to policy.csp_ids.")
    why = "A VLEK names a provider instead of a chip."
    return passed(CheckId.VEK_HWID, expected, csp_id, why)


def check_product(subject: Subject) -> Finding:
    """Is the processor of a known line, the one whose chain endorses it, and accepted?"""
    certified, line, cpuid = subject.certified_line, subject.line, subject.report.cpuid
    accepted = subject.policy.root_of_trust.product_lines
    expected = " or ".join(accepted)
    actual = f"CPUID {cpuid}: {line or 'unknown'}" if cpuid else f"no CPUID; certified as {certified}"
    if line is None or certified is None:
        why = "No published chain certifies this processor."
        return failed(CheckId.PRODUCT, expected, actual, why)
    if line is not certified:
        why = f"The processor is a {line} part, its key is certified as {certified}."
        return failed(CheckId.PRODUCT, str(certified), actual, why)
    product_name = subject.chain.vek.product_name if subject.chain else None
    if subject.report.version < CPUID_SINCE and product_name and not product_name.startswith(line):
        # From version 3 on CPUID decides: certificates with a wrong product name were issued.
        why = f"The certificate's product name {product_name!r} contradicts its issuer."
        return failed(CheckId.PRODUCT, str(line), product_name, why)
    if line not in accepted:
        why = f"The policy does not accept {line}."
        remedy = "Add it to root_of_trust.product_lines."
        return failed(CheckId.PRODUCT, expected, actual, why, remedy)
    why = f"Report and certificate agree on {line}."
    return passed(CheckId.PRODUCT, expected, actual, why)


def check_simulated(subject: Subject) -> Finding:
    """Is this hardware? A simulator's evidence never passes; trusting its root takes a setting."""
    if not (subject.chain and subject.chain.simulated):
        why = "No certificate of the chain says SIMULATED."
        return passed(CheckId.SIMULATED, "hardware", "not simulated", why)
    if subject.chain.root is None or subject.policy.root_of_trust.allow_simulator is False:
        why = "SIMULATED evidence: no hardware stands behind it."
        remedy = "For development only: trust the simulator's root by an explicit setting."
        return failed(CheckId.SIMULATED, "hardware", "SIMULATED", why, remedy)
    why = "SIMULATED evidence, accepted because a setting trusts the simulator's root: it proves nothing."
    remedy = "Remove that setting wherever real machines are verified."
    return warned(CheckId.SIMULATED, "hardware", "SIMULATED", why, remedy)


def check_revocation(subject: Subject) -> Finding:
    """Has AMD withdrawn the intermediate certificate?"""
    wish = subject.policy.root_of_trust
    status = subject.revocation
    state = status.state
    why = f"CRL: {status.why}."
    expected = "the intermediate is not listed in a current CRL of the ARK"
    if state is RevocationState.REVOKED or state is RevocationState.INVALID:
        return failed(CheckId.REVOCATION, expected, state.value, why)
    if state is RevocationState.CLEAR:
        return passed(CheckId.REVOCATION, expected, state.value, why)
    if not wish.check_crl or wish.crl_unavailable == "ignore":
        return not_requested(CheckId.REVOCATION, state.value, why)
    remedy = "Provide a current CRL (evidence, --crl, store) or let the verifier reach the KDS."
    return warned(CheckId.REVOCATION, expected, state.value, why, remedy)
