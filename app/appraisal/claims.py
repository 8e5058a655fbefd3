"""Claims: what the evidence says, decoded, in AMD's field names.

Byte strings are lower-case hexadecimal, security version numbers integers, bits booleans,
with the raw value beside decoded bits; None means "not in this report version". What a quote says is
repeated only where it is proven, from the root's chain down to the PCRs; None means "not proven".
"""

import hashlib
from dataclasses import asdict
from typing import Any

from app.appraisal.ak_checks import proof_method
from app.appraisal.boot_checks import counts_plainly, proven_boot
from app.appraisal.boot_claims import boot_claims, secure_boot
from app.appraisal.findings import GENUINE, QUOTE, CheckId, Finding, Outcome
from app.appraisal.quote import Quote
from app.appraisal.subject import Subject
from app.wire.manifest import KIND_NAMES, Manifest, uefi_mm_manifest
from app.wire.report import SIGNING_KEY_NONE, SIGNING_KEY_VCEK, SIGNING_KEY_VLEK

# A genuine report that an SVSM bound to its EK, a key in that EK's TPM, and what that key signed.
_PROVE_QUOTE = GENUINE | QUOTE | {CheckId.VTPM_BINDING, CheckId.VTPM_EK_TEMPLATE}
# Where one of these fails, somebody else may speak as the SVSM and its TPM: whoever has a withdrawn
# signer's key, a build that the policy denies, a host that debugs the VM, an agent that migrates it.
_BELIE_QUOTE = {
    CheckId.REVOCATION,
    CheckId.MEASUREMENT,
    CheckId.POLICY_DEBUG,
    CheckId.POLICY_MIGRATE_MA,
}
_SIGNING_KEYS = {SIGNING_KEY_VCEK: "vcek", SIGNING_KEY_VLEK: "vlek", SIGNING_KEY_NONE: "none"}


def snp_claims(subject: Subject) -> dict[str, Any]:
    """Everything that the report says."""
    report = subject.report
    vek = subject.chain.vek if subject.chain else None
    raw_tcbs = {
        "current": report.current_tcb,
        "reported": report.reported_tcb,
        "committed": report.committed_tcb,
        "launch": report.launch_tcb,
    }
    tcbs = {
        f"{name}_tcb": {**(tcb.components() if (tcb := subject.tcbs[name]) else {}), "raw": raw.hex()}
        for name, raw in raw_tcbs.items()
    }
    return {
        "version": report.version,
        "product": subject.line.value if subject.line else None,
        "cpuid": asdict(report.cpuid) if report.cpuid else None,
        "vmpl": report.vmpl,
        "guest_svn": report.guest_svn,
        "policy": {**asdict(report.policy), "raw": f"0x{report.policy.encode():x}"},
        "platform_info": {
            **report.platform_info.flags(),
            "unknown_bits": list(report.platform_info.unknown_bits),
            "raw": f"0x{report.platform_info.raw:x}",
        },
        "measurement": report.measurement.hex(),
        "report_data": report.report_data.hex(),
        "host_data": report.host_data.hex(),
        "family_id": report.family_id.hex(),
        "image_id": report.image_id.hex(),
        "id_key_digest": report.id_key_digest.hex(),
        "author_key_digest": report.author_key_digest.hex() if report.key_info.author_key_en else None,
        "report_id": report.report_id.hex(),
        "report_id_ma": report.report_id_ma.hex(),
        "chip_id": report.chip_id.hex(),
        "signing_key": _SIGNING_KEYS.get(report.key_info.signing_key, "reserved"),
        "mask_chip_key": report.key_info.mask_chip_key,
        "csp_id": vek.csp_id if vek else None,
        **tcbs,
        "current_version": str(report.current_version),
        "committed_version": str(report.committed_version),
        "launch_mit_vector": report.launch_mit_vector,
        "current_mit_vector": report.current_mit_vector,
    }


def vtpm_claims(subject: Subject, findings: list[Finding]) -> dict[str, Any] | None:
    """What the manifest says, and what a proven quote says; None for a bare report."""
    if subject.manifest is None or subject.manifest_bytes is None:
        return None
    ek = subject.ek
    return {
        "manifest_kind": KIND_NAMES[type(subject.manifest)],
        "manifest_version": str(subject.vtpm.version) if subject.vtpm else None,
        "manifest_sha256": hashlib.sha256(subject.manifest_bytes).hexdigest(),
        "ek_alg": ek.algorithm if ek else None,
        "ek_name": ek.name.hex() if ek else None,
        "ek_sha256": hashlib.sha256(ek.encode()).hexdigest() if ek else None,
        "ek_template": ek.template if ek else None,
        "uefi_mm": _uefi_mm(subject.manifest),
        **_quote_claims(subject, _proven_quote(subject, findings)),
    }


def _proven_quote(subject: Subject, findings: list[Finding]) -> Quote | None:
    passed = {finding.check for finding in findings if finding.outcome is Outcome.PASSED}
    failed = {finding.check for finding in findings if finding.outcome is Outcome.FAILED}
    return subject.quote if passed >= _PROVE_QUOTE and not failed & _BELIE_QUOTE else None


def _quote_claims(subject: Subject, quote: Quote | None) -> dict[str, Any]:
    boot = proven_boot(quote) if quote is not None else None
    state = secure_boot(*boot) if boot is not None else None
    clock = quote.attest.clock if quote is not None else None
    plain = quote if quote is not None and counts_plainly(quote, subject.ek) else None
    return {
        "ak_name": quote.ak.name.hex() if quote else None,
        "ak_alg": quote.ak.algorithm if quote else None,
        "ak_binding": proof_method(subject, quote) if quote else None,
        "pcr_selection": quote.info.selection.names() if quote else None,
        "pcrs": _hexadecimal(quote) if quote else None,
        "clock_ms": clock.clock_ms if clock else None,
        "safe": clock.safe if clock else None,
        # Other keys than those of the endorsement hierarchy are given blurred ones.
        "reset_count": plain.attest.clock.reset_count if plain else None,
        "restart_count": plain.attest.clock.restart_count if plain else None,
        "tpm_firmware_version": f"0x{plain.attest.firmware_version:016x}" if plain else None,
        "secure_boot": state.enabled if state is not None else None,
        "boot": boot_claims(*boot) if boot is not None else None,
    }


def _hexadecimal(quote: Quote) -> dict[str, dict[str, str]]:
    return {
        bank: {str(pcr): value.hex() for pcr, value in registers.items()}
        for bank, registers in quote.pcrs.names().items()
    }


def _uefi_mm(manifest: Manifest) -> dict[str, Any] | None:
    found = uefi_mm_manifest(manifest)
    if found is None:
        return None
    return {
        "persistent": found.persistent,
        "secure_boot": found.secure_boot,
        "updatable": found.updatable,
        "raw": f"0x{found.flags:x}",
    }
