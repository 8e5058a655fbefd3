"""Every reader of outside bytes: reports, certificates and manifests here, the others by their own kind."""

import base64
import contextlib

from cryptography import x509

from app.errors import CertificateError, WireError
from app.trust import certificates, vek
from app.trust.offered import OfferedEndorsements
from app.wire import b64, guid
from app.wire.certificate_table import CertificateTable
from app.wire.manifest import Manifest, parse_manifest, uefi_mm_manifest, vtpm_manifest
from app.wire.report import SIGNED_SIZE, AttestationReport
from app.wire.services_manifest import ServicesManifest
from app.wire.tcb import TcbLayout, TcbVersion
from app.wire.uefi_mm import UefiMmManifest
from tests.fuzz.boot_targets import BOOT_TARGETS
from tests.fuzz.target import Target
from tests.fuzz.tpm_targets import TPM_TARGETS


def check_report(raw: bytes, report: AttestationReport) -> None:
    assert report.encode() == raw
    assert report.signed_bytes == raw[:SIGNED_SIZE]
    assert report.platform_info.flags().keys() >= {"smt"}
    assert all(report.platform_info.raw >> bit & 1 for bit in report.platform_info.unknown_bits)
    assert (report.cpuid is None) == (report.version < 3)
    for field in (report.current_tcb, report.reported_tcb, report.committed_tcb, report.launch_tcb):
        for layout in TcbLayout:
            with contextlib.suppress(WireError):
                assert TcbVersion.parse(field, layout).encode(layout) == field


def check_certificate_table(raw: bytes, table: CertificateTable) -> None:
    packed = table.encode()
    assert len(packed) <= len(raw)
    assert CertificateTable.parse(packed) == table
    assert CertificateTable.parse(table.encode(len(raw))) == table
    assert sum(len(entry.data) for entry in table.entries) <= len(raw)
    assert all(table.get(entry.guid) == entry.data for entry in table.entries)


def check_services_manifest(raw: bytes, manifest: ServicesManifest) -> None:
    again = manifest.encode()
    assert ServicesManifest.parse(again) == manifest
    # The offset of an empty entry is the only thing that two forms of one table can differ in.
    assert len(again) == len(raw)
    assert again == raw or any(not entry.data for entry in manifest.entries)
    assert all(manifest.get(entry.guid) == entry.data for entry in manifest.entries[:64])


def check_manifest(raw: bytes, manifest: Manifest) -> None:
    assert parse_manifest(manifest.encode()) == manifest
    if isinstance(manifest, ServicesManifest):
        check_services_manifest(raw, manifest)
    else:
        assert manifest.encode() == raw
    vtpm, uefi_mm = vtpm_manifest(manifest), uefi_mm_manifest(manifest)
    if isinstance(manifest, ServicesManifest):
        assert (vtpm.encode() if vtpm else b"") == (manifest.get(guid.SERVICE_VTPM) or b"")
        assert (uefi_mm.encode() if uefi_mm else b"") == (manifest.get(guid.SERVICE_UEFI_MM) or b"")
    else:
        assert manifest in {vtpm, uefi_mm}


def check_uefi_mm(raw: bytes, manifest: UefiMmManifest) -> None:
    assert manifest.encode() == raw


def check_tcb(raw: bytes, tcb: TcbVersion) -> None:
    layout = TcbLayout.PRE_TURIN if tcb.fmc is None else TcbLayout.TURIN
    assert tcb.encode(layout) == raw
    assert tcb.covers(tcb)


def read_base64(raw: bytes) -> tuple[str, bytes]:
    text = raw.decode("utf-8", "surrogateescape")
    return text, b64.decode(text)


def check_base64(raw: bytes, value: tuple[str, bytes]) -> None:
    text, decoded = value
    assert text.encode() == raw
    assert b64.encode(decoded) == text
    assert base64.b64decode(text, validate=True) == decoded


def read_certificates(raw: bytes) -> tuple[x509.Certificate, ...]:
    return certificates.load_certificates(raw, "fuzz")


def check_certificates(raw: bytes, found: tuple[x509.Certificate, ...]) -> None:
    assert found
    for certificate in found:
        der = certificates.der(certificate)
        assert certificates.load_certificate(der, "again") == certificate
        assert certificates.is_pem(raw) or der == raw
        leaf = vek.read_vek(certificate)
        assert leaf.hwid is None or leaf.line is None or len(leaf.hwid) == leaf.line.hwid_size
        if leaf.tcb is not None and leaf.line is not None:
            layout = leaf.line.tcb_layout
            assert TcbVersion.parse(leaf.tcb.encode(layout), layout) == leaf.tcb


def check_offered(raw: bytes, offered: OfferedEndorsements) -> None:
    names = {entry.guid for entry in CertificateTable.parse(raw).entries}
    assert not offered.crls or guid.CRL in names
    if offered.leaves or offered.intermediates or offered.roots:
        assert names & {guid.VCEK, guid.VLEK, guid.ASK, guid.ARK}


def read_crl(raw: bytes) -> x509.CertificateRevocationList:
    return certificates.load_crl(raw, "fuzz")


def check_crl(raw: bytes, crl: x509.CertificateRevocationList) -> None:
    der = certificates.der(crl)
    assert certificates.load_crl(der, "again") == crl
    assert certificates.is_pem(raw) or der == raw
    assert certificates.crl_digest(crl)


TARGETS: dict[str, Target] = {  # type: ignore[type-arg]  # each has its own type of value
    "report": Target(AttestationReport.parse, (WireError,), check_report),
    "certificate-table": Target(CertificateTable.parse, (WireError,), check_certificate_table),
    "services-manifest": Target(ServicesManifest.parse, (WireError,), check_services_manifest),
    "manifest": Target(parse_manifest, (WireError,), check_manifest),
    "uefi-mm": Target(UefiMmManifest.parse, (WireError,), check_uefi_mm),
    "tcb": Target(lambda raw: TcbVersion.parse(raw, TcbLayout.PRE_TURIN), (WireError,), check_tcb),
    "tcb-turin": Target(lambda raw: TcbVersion.parse(raw, TcbLayout.TURIN), (WireError,), check_tcb),
    "base64": Target(read_base64, (ValueError,), check_base64),
    "certificates": Target(read_certificates, (CertificateError,), check_certificates),
    "offered": Target(OfferedEndorsements.from_table, (WireError, CertificateError), check_offered),
    "crl": Target(read_crl, (CertificateError,), check_crl),
    **TPM_TARGETS,
    **BOOT_TARGETS,
}
