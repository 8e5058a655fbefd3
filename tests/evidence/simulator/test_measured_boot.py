"""The simulated boot against tpm2_eventlog, and against what a verifier claims of it."""

import hashlib
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from cryptography import x509

from app.appraisal.boot_claims import boot_claims
from app.appraisal.event_log_checks import proven_registers
from app.evidence.simulator.measured_boot import BANKS, USUAL_BOOT, Boot, boot_log
from app.wire import event_types as ev
from app.wire.event_log import EventLog
from app.wire.tpm import algorithms as alg
from app.wire.tpm.pcr import PcrValues
from tests.interop.software_tpm import demand

X509_GUID = UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")  # EFI_CERT_X509_GUID
WITHOUT_SECURE_BOOT = Boot(secure_boot=False)
BOOTS = [USUAL_BOOT, WITHOUT_SECURE_BOOT, Boot(kernel="6.1.0-simulated")]


def read_by_tools(log: EventLog, folder: Path) -> dict[str, Any]:
    demand("tpm2_eventlog")
    (folder / "log").write_bytes(log.encode())
    done = subprocess.run(["tpm2_eventlog", folder / "log"], check=True, capture_output=True, text=True)
    assert not done.stderr
    document: dict[str, Any] = yaml.safe_load(done.stdout)
    return document


def registers(log: EventLog, bank: str = "sha256") -> PcrValues:
    algorithm = {name: number for number, name in alg.HASH_NAMES.items()}[bank]
    return PcrValues.of({bank: dict(enumerate(log.replay(algorithm)))})


@pytest.mark.parametrize("boot", BOOTS, ids=str)
def test_other_software_reads_the_log_alike(boot: Boot, tmp_path: Path) -> None:
    log = boot_log(boot)
    document = read_by_tools(log, tmp_path)
    theirs = document["events"][1:]  # the first is the log's own
    assert len(theirs) == len(log.events)
    for event, read in zip(log.events, theirs, strict=True):
        assert (event.pcr, ev.NAMES[event.type]) == (read["PCRIndex"], read["EventType"])
        digests = {one["AlgorithmId"]: one["Digest"] for one in read["Digests"]}
        assert digests == {alg.HASH_NAMES[one]: digest.hex() for one, digest in event.digests.items()}
    for bank in BANKS:
        replayed = document["pcrs"][alg.HASH_NAMES[bank]]
        values = [int.from_bytes(value, "big") for value in log.replay(bank)]
        assert replayed == {pcr: values[pcr] for pcr in log.extended(bank)}


def test_other_software_finds_what_was_meant(tmp_path: Path) -> None:
    events = read_by_tools(boot_log(USUAL_BOOT), tmp_path)["events"]
    variables = {
        event["Event"]["UnicodeName"]: event["Event"]
        for event in events
        if event["EventType"] == "EV_EFI_VARIABLE_DRIVER_CONFIG"
    }
    assert list(variables) == ["SecureBoot", "PK", "KEK", "db", "dbx"]
    assert variables["SecureBoot"]["VariableData"] == "01"
    for name in ("PK", "KEK", "db"):
        signatures = bytes.fromhex(variables[name]["VariableData"])
        kind, size, header_size, signature_size = struct.unpack("<16sIII", signatures[:28])
        assert UUID(bytes_le=kind) == X509_GUID
        assert (size, header_size, signature_size) == (len(signatures), 0, len(signatures) - 28)
        holder = x509.load_der_x509_certificate(signatures[28 + 16 :])
        assert holder.subject.rfc4514_string() == f"CN=svsm-attest SIMULATED {name}"
        holder.verify_directly_issued_by(holder)
    paths = [event for event in events if "DevicePath" in event.get("Event", "")]
    assert len(paths) == 3


def test_the_partition_table_is_one() -> None:
    [event] = [event for event in boot_log(USUAL_BOOT).events if event.type == ev.EV_EFI_GPT_EVENT]
    header, (count,), entry = event.data[:92], struct.unpack("<Q", event.data[92:100]), event.data[100:]
    without_checksum = header[:16] + bytes(4) + header[20:]
    assert struct.unpack("<I", header[16:20]) == (zlib.crc32(without_checksum),)
    assert (count, len(entry)) == (1, 128)
    assert struct.unpack("<III", header[80:92]) == (128, 128, zlib.crc32(entry.ljust(128 * 128, b"\0")))


@pytest.mark.parametrize("boot", BOOTS, ids=str)
def test_the_claims_that_a_verifier_makes_of_it(boot: Boot) -> None:
    log = boot_log(boot)
    values = registers(log)
    claims = boot_claims(log, proven_registers(log, values))
    on = boot.secure_boot
    assert claims["secure_boot"] == dict.fromkeys(("enabled", "pk", "kek", "db", "dbx"), on)
    assert claims["kernel_command_line"] == f"/boot/vmlinuz-{boot.kernel} root=/dev/vda2 ro console=ttyS0"
    images = ("shim", "GRUB", f"kernel {boot.kernel}")
    assert claims["boot_applications"] == [
        hashlib.sha256(f"svsm-attest SIMULATED {image}\n".encode()).hexdigest() for image in images
    ]
    assert len(claims["boot_files"]) == 2


@pytest.mark.parametrize(
    ("boot", "changed"),
    [(WITHOUT_SECURE_BOOT, {7}), (Boot(kernel="6.1.0-simulated"), {4, 8, 9})],
    ids=str,
)
def test_another_boot_shows_where_it_differs(boot: Boot, changed: set[int]) -> None:
    usual, other = (registers(boot_log(one)).values[0] for one in (USUAL_BOOT, boot))
    assert {pcr for pcr in range(24) if usual[pcr] != other[pcr]} == changed


def test_the_registers_are_the_same_in_every_release() -> None:
    # A change here is one for everybody who wrote these values into a policy.
    usual = registers(boot_log(USUAL_BOOT)).values[0]
    assert {pcr: usual[pcr].hex() for pcr in KNOWN} == KNOWN


KNOWN = {
    0: "176b143cb69332b86db468eb4d0da577e51d668e83b75e5f2390dd204fddbdaa",
    1: "f4e5878b27e226e82f2e0b47f56a3fa28635f8db729e672fbcb076d88a2bc791",
    4: "7782f14313f32a8904c14479066dac4316b740d13e30b4c2f19c6a7d084c92d5",
    5: "8befde4354ec895c19ccb3f96b4b08c706f4e1793bef92c412298928d9a73720",
    7: "349a90bfe29e18e01960b360d09d9d40c5123d255d371d3200ff301906399dab",
    8: "ccd357e111a584131cdb9e14c0f8e7d90c286750c64c2efd25fd0afca12fdad3",
    9: "bd86e83b5e4df31df4f6bbd7b3cf9f54bca7c5d6e95626b505338821a67e1432",
    14: "e40ad2cdc5ba0d32de8de5a523715265e65dfae943d6e71b6d24328ceb5bc2d0",
}
