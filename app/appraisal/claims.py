"""Claims: what the evidence says, decoded, in AMD's field names.

Byte strings are lower-case hexadecimal, security version numbers integers, bits booleans,
with the raw value beside decoded bits; None means "not in this report version".
"""

import hashlib
from dataclasses import asdict
from typing import Any

from app.appraisal.subject import Subject
from app.wire.manifest import KIND_NAMES, Manifest, uefi_mm_manifest
from app.wire.report import SIGNING_KEY_NONE, SIGNING_KEY_VCEK, SIGNING_KEY_VLEK

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


def vtpm_claims(subject: Subject) -> dict[str, Any] | None:
    """What the manifest says, or None for a bare report."""
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
