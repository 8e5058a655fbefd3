"""The ATTESTATION_REPORT, field by field.

Names and offsets: AMD 56860 (SEV-SNP Firmware ABI), ATTESTATION_REPORT.
"""

from datetime import UTC, datetime
from typing import Any

from app.appraisal.claims import snp_claims
from app.appraisal.policy import default_policy
from app.appraisal.subject import Subject
from app.cli.inspection.sheet import Row, Section, Sheet, hexadecimal, yes_no
from app.errors import WireError
from app.trust.crl import check_revocation
from app.trust.endorsements import Endorsements
from app.wire.bits import GuestPolicy, PlatformInfo
from app.wire.product import ProductLine
from app.wire.report import (
    REPORT_SIZE,
    SIGNED_SIZE,
    SIGNING_KEY_NONE,
    SIGNING_KEY_VCEK,
    SIGNING_KEY_VLEK,
    VMPL_HOST,
    AttestationReport,
)
from app.wire.tcb import TcbLayout, TcbVersion

_SIGNING_KEYS = {
    SIGNING_KEY_VCEK: "signed by a VCEK",
    SIGNING_KEY_VLEK: "signed by a VLEK",
    SIGNING_KEY_NONE: "signed by no key",
}
# field of GuestPolicy: AMD's name, what a one means, what a zero means
_POLICY_WORDS = {
    "smt": ("SMT", "simultaneous multithreading is allowed", "the platform must have SMT off"),
    "migrate_ma": ("MIGRATE_MA", "a migration agent is allowed", "no migration agent"),
    "debug": ("DEBUG", "debugging is allowed: the host can read the guest's memory", "no debugging"),
    "single_socket": ("SINGLE_SOCKET", "one socket only", "any number of sockets"),
    "cxl": ("CXL_ALLOW", "CXL devices are allowed", "no CXL"),
    "mem_aes_256_xts": ("MEM_AES_256_XTS", "AES-256-XTS is demanded", "not demanded"),
    "rapl_dis": ("RAPL_DIS", "RAPL must be off", "not demanded"),
    "ciphertext_hiding": ("CIPHERTEXT_HIDING", "ciphertext hiding is demanded", "not demanded"),
    "page_swap_disable": (
        "PAGE_SWAP_DISABLE",
        "the guest's pages may be neither moved nor swapped",
        "not demanded",
    ),
}
_DANGEROUS = {"debug", "migrate_ma"}
_PLATFORM_WORDS = {
    "smt": ("SMT_EN", "simultaneous multithreading is on", "SMT is off"),
    "tsme": ("TSME_EN", "all memory is encrypted transparently", "TSME is off"),
    "ecc": ("ECC_EN", "memory has ECC", "ECC is not reported"),
    "rapl_disabled": ("RAPL_DIS", "RAPL is off", "RAPL is on"),
    "ciphertext_hiding": ("CIPHERTEXT_HIDING_DRAM_EN", "ciphertext hiding is on", "not on"),
    "alias_check_complete": (
        "ALIAS_CHECK_COMPLETE",
        "memory was checked for aliases (BadRAM)",
        "memory was not checked for aliases (BadRAM)",
    ),
    "tio": ("TIO_EN", "trusted I/O is on", "not on"),
}


def report_sheet(report: AttestationReport, line: ProductLine | None = None) -> Sheet:
    """Lay a report open.

    Args:
        report: the report.
        line: the product line, where something else than the report tells it; CPUID wins.
    """
    told = report.cpuid.product_line if report.cpuid else None
    line = told or line
    return Sheet(
        kind="attestation-report",
        title=f"SEV-SNP attestation report, version {report.version}",
        size=REPORT_SIZE,
        remarks=(_summary(report, line),),
        sections=(
            Section("Report", _report_rows(report)),
            Section("Platform", _platform_rows(report, line)),
            Section("Guest", _guest_rows(report)),
            Section("Guest policy", guest_policy_rows(report.policy, "0x008")),
            Section("Platform info", _platform_info_rows(report.platform_info)),
            Section("Signature", _signature_rows(report)),
        ),
        document={"report": report_document(report)},
    )


def report_document(report: AttestationReport) -> dict[str, Any]:
    """A report under the names that claims have in a verdict."""
    now = datetime.now(UTC)
    subject = Subject(
        report=report,
        manifest=None,
        manifest_bytes=None,
        nonce=None,
        endorsements=Endorsements(
            leaf=None, intermediate=None, root=None, crl=None, crl_why="", signature_valid=False
        ),
        chain=None,
        revocation=check_revocation(None, None, None, now),
        policy=default_policy(),
        at=now,
    )
    signature = {"r": f"{report.signature.r:096x}", "s": f"{report.signature.s:096x}"}
    return {**snp_claims(subject), "signature": signature}


def _summary(report: AttestationReport, line: ProductLine | None) -> str:
    by = _SIGNING_KEYS.get(report.key_info.signing_key, "signed by a reserved kind of key")
    vmpl = "asked for by the host" if report.vmpl == VMPL_HOST else f"VMPL {report.vmpl}"
    debug = "DEBUGGING ALLOWED" if report.policy.debug else "no debugging"
    return ", ".join((str(line or "product not named"), by, vmpl, debug))


def _report_rows(report: AttestationReport) -> tuple[Row, ...]:
    key = report.key_info
    return (
        Row(place="0x000", name="VERSION", value=str(report.version)),
        Row(place="0x030", name="VMPL", value=_vmpl(report.vmpl), note=_vmpl_note(report.vmpl)),
        Row(
            place="0x034",
            name="SIGNATURE_ALGO",
            value=str(report.signature_algo),
            note="ECDSA P-384 with SHA-384",
        ),
        Row(
            place="0x048",
            name="SIGNING_KEY",
            value=str(key.signing_key),
            note=_SIGNING_KEYS.get(key.signing_key, "reserved"),
            alarming=key.signing_key not in {SIGNING_KEY_VCEK, SIGNING_KEY_VLEK},
        ),
        Row(
            place="",
            name="MASK_CHIP_KEY",
            value=yes_no(key.mask_chip_key),
            note="zeros instead of a signature" if key.mask_chip_key else "",
            alarming=key.mask_chip_key,
        ),
        Row(
            place="0x050",
            name="REPORT_DATA",
            value=hexadecimal(report.report_data),
            note="" if report.vmpl else "of an SVSM: SHA-512 of nonce and manifest",
        ),
        Row(
            place="0x140", name="REPORT_ID", value=hexadecimal(report.report_id), note="this boot of this VM"
        ),
        Row(
            place="0x160",
            name="REPORT_ID_MA",
            value=hexadecimal(report.report_id_ma),
            note="" if report.report_id_ma.strip(b"\xff") else "no migration agent",
        ),
    )


def _vmpl(vmpl: int) -> str:
    return f"0x{vmpl:08x}" if vmpl == VMPL_HOST else str(vmpl)


def _vmpl_note(vmpl: int) -> str:
    if vmpl == 0:
        return "the most privileged level, an SVSM's where there is one"
    if vmpl == VMPL_HOST:
        return "the host asked for this report, not the guest"
    return "below an SVSM: nothing at this level speaks for one"


def _platform_rows(report: AttestationReport, line: ProductLine | None) -> tuple[Row, ...]:
    chip = report.chip_id
    significant = chip[: line.hwid_size] if line else chip
    masked = not any(chip)
    note = "masked by the host, or signed by a VLEK" if masked else ""
    if not masked and len(significant) < len(chip):
        note = f"the first {len(significant)} bytes; the rest is zero"
        significant = chip if any(chip[len(significant) :]) else significant
    provisional = (
        report.current_version != report.committed_version or report.current_tcb != report.committed_tcb
    )
    return (
        _cpuid_row(report, line),
        Row(place="0x1a0", name="CHIP_ID", value=hexadecimal(significant), note=note),
        _tcb_row("0x038", "CURRENT_TCB", report.current_tcb, line),
        _tcb_row("0x180", "REPORTED_TCB", report.reported_tcb, line),
        _tcb_row("0x1e0", "COMMITTED_TCB", report.committed_tcb, line),
        _tcb_row("0x1f0", "LAUNCH_TCB", report.launch_tcb, line),
        Row(
            place="0x1e8",
            name="CURRENT_VERSION",
            value=str(report.current_version),
            note="of the firmware: major.minor.build",
        ),
        Row(
            place="0x1ec",
            name="COMMITTED_VERSION",
            value=str(report.committed_version),
            note="the current firmware is provisional: the host can roll it back" if provisional else "",
        ),
        _mitigation_row("0x1f8", "LAUNCH_MIT_VECTOR", report.launch_mit_vector),
        _mitigation_row("0x200", "CURRENT_MIT_VECTOR", report.current_mit_vector),
    )


def _cpuid_row(report: AttestationReport, line: ProductLine | None) -> Row:
    if report.cpuid is None:
        note = "before version 3 a report does not name its processor"
        if line is not None:
            note += f"; its certificate says {line}"
        return Row(place="0x188", name="CPUID", value="absent", note=note)
    note = f"family/model/stepping: {line or 'of no line with a published chain'}"
    return Row(place="0x188", name="CPUID", value=str(report.cpuid), note=note, alarming=line is None)


def _tcb_row(place: str, name: str, raw: bytes, line: ProductLine | None) -> Row:
    layout = line.tcb_layout if line else TcbLayout.PRE_TURIN
    try:
        tcb = TcbVersion.parse(raw, layout)
    except WireError as error:
        return Row(place=place, name=name, value=raw.hex(), note=error.reason, alarming=line is not None)
    parts = "  ".join(f"{part} {level}" for part, level in tcb.components().items())
    note = raw.hex() if line else f"{raw.hex()}, read as Milan's or Genoa's"
    return Row(place=place, name=name, value=parts, note=note)


def _mitigation_row(place: str, name: str, vector: int | None) -> Row:
    if vector is None:
        return Row(place=place, name=name, value="absent", note="from version 5 on")
    bits = [str(bit) for bit in range(64) if vector >> bit & 1]
    return Row(place=place, name=name, value=f"0x{vector:x}", note=f"bits {', '.join(bits)}" if bits else "")


def _guest_rows(report: AttestationReport) -> tuple[Row, ...]:
    author = report.key_info.author_key_en
    id_note = "" if any(report.id_key_digest) else "started without an ID block"
    return (
        Row(place="0x090", name="MEASUREMENT", value=hexadecimal(report.measurement), note="launch digest"),
        Row(place="0x0c0", name="HOST_DATA", value=hexadecimal(report.host_data), note="set by the host"),
        Row(place="0x004", name="GUEST_SVN", value=str(report.guest_svn)),
        Row(place="0x010", name="FAMILY_ID", value=hexadecimal(report.family_id)),
        Row(place="0x020", name="IMAGE_ID", value=hexadecimal(report.image_id)),
        Row(place="0x0e0", name="ID_KEY_DIGEST", value=hexadecimal(report.id_key_digest), note=id_note),
        Row(
            place="0x110",
            name="AUTHOR_KEY_DIGEST",
            value=hexadecimal(report.author_key_digest),
            note="" if author else "AUTHOR_KEY_EN is 0: no author key",
        ),
    )


def guest_policy_rows(policy: GuestPolicy, place: str = "") -> tuple[Row, ...]:
    """Every bit of a guest policy, which stands at `place`, in words."""
    rows = [
        Row(place=place, name="POLICY", value=f"0x{policy.encode():x}"),
        Row(name="ABI", value=f"{policy.abi_major}.{policy.abi_minor}", note="least firmware ABI"),
    ]
    for field, (name, when_set, when_clear) in _POLICY_WORDS.items():
        value = getattr(policy, field)
        note = when_set if value else when_clear
        rows.append(
            Row(name=name, value=str(int(value)), note=note, alarming=bool(value and field in _DANGEROUS))
        )
    return tuple(rows)


def _platform_info_rows(info: PlatformInfo) -> tuple[Row, ...]:
    rows = [Row(place="0x040", name="PLATFORM_INFO", value=f"0x{info.raw:x}")]
    for field, value in info.flags().items():
        name, when_set, when_clear = _PLATFORM_WORDS[field]
        rows.append(Row(name=name, value=str(int(value)), note=when_set if value else when_clear))
    rows += [
        Row(name=f"bit {bit}", value="1", note="set, but no public table names it")
        for bit in info.unknown_bits
    ]
    return tuple(rows)


def _signature_rows(report: AttestationReport) -> tuple[Row, ...]:
    unsigned = not (report.signature.r or report.signature.s)
    return (
        Row(
            place="0x2a0",
            name="R",
            value=f"{report.signature.r:096x}",
            note=f"over the first {SIGNED_SIZE} bytes",
            alarming=unsigned,
        ),
        Row(place="0x2e8", name="S", value=f"{report.signature.s:096x}", alarming=unsigned),
    )
