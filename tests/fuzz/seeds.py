"""Valid inputs to start from: our own always, published ones and a certificate package's where present."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

from omne_attest import vectors as omne

from app.wire import b64, guid
from app.wire.certificate_table import CertificateEntry, CertificateTable
from app.wire.services_manifest import ServiceEntry, ServicesManifest
from tests.fuzz.boot_seeds import boot_seeds
from tests.fuzz.tpm_seeds import KEYS, tpm_seeds
from tests.wire.samples import SWTPM_EK, p256_ek, report, sized

UEFI_MM = bytes.fromhex("0000000003000000")
KEY_LIST = struct.pack(">II", 1, len(KEYS)) + b"".join(sized(key) for key in KEYS)


def own() -> Iterator[tuple[str, bytes]]:
    """(target, input) for every target, without a file from anywhere."""
    for version in (2, 3, 4, 5):
        yield "report", report(version)
    yield "report", omne.attestation()
    leaf, ask, ark = omne.vcek(), omne.ask(), omne.ark()
    for certificate in (leaf, ask, ark):
        yield "certificates", certificate
    entries = (
        CertificateEntry(guid.VCEK, leaf),
        CertificateEntry(guid.ASK, ask),
        CertificateEntry(guid.ARK, ark),
    )
    for table in (CertificateTable(()), CertificateTable(entries)):
        yield "certificate-table", table.encode()
        yield "offered", table.encode(len(table.encode()) + 64)
    services = (ServiceEntry(guid.SERVICE_VTPM, SWTPM_EK), ServiceEntry(guid.SERVICE_UEFI_MM, UEFI_MM))
    listed = (ServiceEntry(guid.SERVICE_VTPM, KEY_LIST), ServiceEntry(guid.SERVICE_UEFI_MM, b""))
    for entries_of_one in ((), services, listed):
        manifest = ServicesManifest(entries_of_one).encode()
        yield "services-manifest", manifest
        yield "manifest", manifest
    for manifest in (SWTPM_EK, p256_ek(), KEY_LIST, UEFI_MM):
        yield "manifest", manifest
    yield "uefi-mm", UEFI_MM
    yield "tcb", bytes.fromhex("04000000000018db")
    yield "tcb-turin", bytes.fromhex("0102030400000047")
    for raw in (b"f", b"fo", b"foobar"):
        yield "base64", b64.encode(raw).encode()
    yield from tpm_seeds()
    yield from boot_seeds()


def published(folder: Path) -> Iterator[tuple[str, bytes]]:
    """(target, input) from the published vectors below `folder`."""
    index = json.loads((folder / "vectors.json").read_text())
    for case in (*index["real"], *index["synthetic"]):
        if "report" in case["files"]:
            yield "report", (folder / case["files"]["report"]).read_bytes()
    for case in index["certificate_tables"]:
        yield "certificate-table", (folder / case["file"]).read_bytes()
        yield "offered", (folder / case["file"]).read_bytes()
    for case in index["crls"]:
        yield "crl", (folder / case["file"]).read_bytes()
    for pattern in ("ca/*", "certs/*.der", "*/v?ek.der", "synthetic/genoa/*/v?ek.der"):
        for path in sorted(folder.glob(pattern)):
            yield "certificates", path.read_bytes()
