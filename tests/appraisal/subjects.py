"""A subject that passes every check, built from plain values, and ways to change it."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from app.appraisal.policy import Policy
from app.appraisal.policy_document import policy_from
from app.appraisal.subject import Subject
from app.trust.chain import ChainStatus
from app.trust.crl import RevocationState, RevocationStatus
from app.trust.endorsements import Endorsements
from app.trust.roots import TrustedRoot
from app.trust.vek import Vek, VekKind
from app.wire.binding import expected_report_data
from app.wire.bits import GuestPolicy, PlatformInfo
from app.wire.manifest import parse_manifest
from app.wire.product import Cpuid, ProductLine
from app.wire.report import AttestationReport, FirmwareVersion, KeyInfo, Signature
from app.wire.tcb import TcbLayout, TcbVersion
from app.wire.tpm.template import PREFIXES

if TYPE_CHECKING:
    from cryptography import x509

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
NONCE = bytes(range(64))
EK = PREFIXES["L-1"] + b"\x80" + bytes(254) + b"\x01"
CHIP = bytes(range(1, 65))
MEASUREMENT = b"\x11" * 48
TCB = TcbVersion(bootloader=4, tee=0, snp=27, microcode=0xDE)
CERTIFICATE = cast("x509.Certificate", None)  # no check looks into a certificate itself


def tcb_bytes(**components: int) -> bytes:
    parts = {"bootloader": 4, "tee": 0, "snp": 27, "microcode": 0xDE, **components}
    return TcbVersion(**parts).encode(TcbLayout.PRE_TURIN)


GUEST_POLICY = GuestPolicy(
    abi_major=1,
    abi_minor=55,
    smt=True,
    migrate_ma=False,
    debug=False,
    single_socket=False,
    cxl=False,
    mem_aes_256_xts=False,
    rapl_dis=False,
    ciphertext_hiding=False,
    page_swap_disable=False,
)

REPORT = AttestationReport(
    version=5,
    guest_svn=3,
    policy=GUEST_POLICY,
    family_id=b"\x22" * 16,
    image_id=b"\x33" * 16,
    vmpl=0,
    platform_info=PlatformInfo(0x25),
    key_info=KeyInfo(author_key_en=False, mask_chip_key=False, signing_key=0),
    report_data=expected_report_data(NONCE, EK),
    measurement=MEASUREMENT,
    host_data=b"\x44" * 32,
    id_key_digest=b"\x55" * 48,
    author_key_digest=b"\x66" * 48,
    report_id=b"\x77" * 32,
    report_id_ma=b"\xff" * 32,
    current_tcb=tcb_bytes(),
    reported_tcb=tcb_bytes(),
    committed_tcb=tcb_bytes(),
    launch_tcb=tcb_bytes(),
    cpuid=Cpuid(family=0x19, model=1, stepping=1),
    chip_id=CHIP,
    current_version=FirmwareVersion(major=1, minor=55, build=40),
    committed_version=FirmwareVersion(major=1, minor=55, build=40),
    launch_mit_vector=0x0B,
    current_mit_vector=0x0B,
    signature=Signature(r=1, s=1),
)

VEK = Vek(
    certificate=CERTIFICATE,
    kind=VekKind.VCEK,
    line=ProductLine.MILAN,
    struct_version=0,
    product_name="Milan-B0",
    tcb=TCB,
    hwid=CHIP,
    csp_id=None,
    problems=(),
)

ROOT = TrustedRoot(
    line=ProductLine.MILAN, name="ARK-Milan", certificate_sha256="aa", key_sha256="bb", origin="amd"
)

CHAIN = ChainStatus(vek=VEK, root=ROOT, line=ProductLine.MILAN, problems=(), simulated=False)

ENDORSEMENTS = Endorsements(
    leaf=CERTIFICATE, intermediate=CERTIFICATE, root=CERTIFICATE, crl=None, crl_why="", signature_valid=True
)

KNOWN: dict[str, Any] = {"measurements": [{"value": MEASUREMENT.hex(), "name": "svsm"}]}


def policy(
    checks: dict[str, Any] | None = None,
    *,
    root_of_trust: dict[str, Any] | None = None,
    reference_values: dict[str, Any] | None = None,
) -> Policy:
    return policy_from(
        {
            "version": 1,
            "id": "test",
            "policy": checks or {},
            "root_of_trust": root_of_trust or {},
            "reference_values": KNOWN if reference_values is None else reference_values,
        }
    )


def subject(**changes: Any) -> Subject:
    """The good subject, with members of the report, the leaf or the chain, or its own, replaced."""
    parts: dict[str, Any] = {
        "manifest": parse_manifest(EK),
        "manifest_bytes": EK,
        "nonce": NONCE,
        "endorsements": ENDORSEMENTS,
        "revocation": RevocationStatus(state=RevocationState.CLEAR, why="it does not list SEV-Milan"),
        "policy": policy(),
        "at": AT,
    }
    report, vek, chain = dict[str, Any](), dict[str, Any](), dict[str, Any]()
    for name, value in changes.items():
        if name in parts or name == "chain":
            parts[name] = value
        elif name.startswith("vek_"):
            vek[name.removeprefix("vek_")] = value
        elif name.startswith("chain_"):
            chain[name.removeprefix("chain_")] = value
        else:
            report[name] = value
    parts["report"] = replace(REPORT, **report)
    parts.setdefault("chain", replace(CHAIN, vek=replace(VEK, **vek), **chain))
    return Subject(**parts)


def bare(**changes: Any) -> Subject:
    """A bare report whose REPORT_DATA is what the caller expects."""
    return subject(**{"manifest": None, "manifest_bytes": None, "nonce": REPORT.report_data, **changes})
