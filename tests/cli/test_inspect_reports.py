"""`inspect` on reports: bare, wrapped, and no longer fitting."""

from pathlib import Path

import pytest

from app.cli.inspection.identify import identify
from app.cli.inspection.report import report_sheet
from app.wire.product import ProductLine
from app.wire.report import AttestationReport
from tests.cli.command_line import Cli


@pytest.mark.parametrize(
    ("name", "line", "version"),
    [
        ("milan-v2-baremetal-a", None, 2),
        ("milan-v3-oak", "Milan", 3),
        ("milan-v5-gcp", "Milan", 5),
        ("genoa-line-v5-model-a0", "Genoa", 5),
        ("turin-v5-oak", "Turin", 5),
        ("milan-v3-coconut-svsm-doc", "Milan", 3),
    ],
)
def test_a_real_report(name: str, line: str | None, version: int, cli: Cli, vectors: Path) -> None:
    file = vectors / name / "report.bin"
    raw = file.read_bytes()
    ended = cli("inspect", file)
    assert ended.status == 0
    assert ended.out.startswith(f"report.bin: SEV-SNP attestation report, version {version} (1184 bytes)")
    assert raw[0x90:0xC0].hex() in ended.out  # whole digests, to be copied
    assert (line or "product not named") in ended.out.split("\n")[1]
    documented = cli("inspect", file, "--json").json
    assert documented["kind"] == "attestation-report"
    assert documented["report"]["product"] == line
    assert documented["report"]["measurement"] == raw[0x90:0xC0].hex()
    assert documented["file"] == str(file)


def test_every_row_of_a_report_stands_at_its_offset(vectors: Path) -> None:
    """The offsets that are shown, against the bytes that stand there."""
    raw = (vectors / "genoa-v5-a" / "report.bin").read_bytes()
    rows = {
        row.name: row
        for section in report_sheet(AttestationReport.parse(raw)).sections
        for row in section.rows
        if row.place
    }
    for name, size in (
        ("REPORT_DATA", 64),
        ("MEASUREMENT", 48),
        ("REPORT_ID", 32),
        ("CHIP_ID", 64),
    ):
        offset = int(rows[name].place, 16)
        assert rows[name].value == raw[offset : offset + size].hex()
    for name in ("CURRENT_TCB", "REPORTED_TCB", "COMMITTED_TCB", "LAUNCH_TCB"):
        offset = int(rows[name].place, 16)
        assert rows[name].note == raw[offset : offset + 8].hex()
    for name, size in (("VERSION", 4), ("GUEST_SVN", 4), ("VMPL", 4), ("SIGNATURE_ALGO", 4)):
        offset = int(rows[name].place, 16)
        assert int(rows[name].value) == int.from_bytes(raw[offset : offset + size], "little")
    for name in ("POLICY", "PLATFORM_INFO", "LAUNCH_MIT_VECTOR", "CURRENT_MIT_VECTOR"):
        offset = int(rows[name].place, 16)
        assert int(rows[name].value, 16) == int.from_bytes(raw[offset : offset + 8], "little")
    for name in ("R", "S"):
        offset = int(rows[name].place, 16)
        assert int(rows[name].value, 16) == int.from_bytes(raw[offset : offset + 72], "little")
    for name in ("CURRENT_VERSION", "COMMITTED_VERSION"):
        offset = int(rows[name].place, 16)
        build, minor, major = raw[offset : offset + 3]
        assert rows[name].value == f"{major}.{minor}.{build}"
    offset = int(rows["CPUID"].place, 16)
    assert rows["CPUID"].value == "/".join(f"{byte:02x}" for byte in raw[offset : offset + 3])
    assert int.from_bytes(raw[0x48:0x4C], "little") >> 2 & 7 == int(rows["SIGNING_KEY"].value)
    for name, size in (("HOST_DATA", 32), ("FAMILY_ID", 16), ("IMAGE_ID", 16), ("ID_KEY_DIGEST", 48)):
        offset = int(rows[name].place, 16)
        assert raw[offset : offset + size] == bytes(size)
        assert rows[name].value == f"{size} zero bytes"
    assert raw[int(rows["REPORT_ID_MA"].place, 16) :][:32] == b"\xff" * 32


def test_what_should_alarm_does(vectors: Path) -> None:
    synthetic = vectors / "synthetic" / "genoa"

    def alarming(path: Path) -> set[str]:
        sheet = identify(path.read_bytes())
        return {row.name for section in sheet.sections for row in section.rows if row.alarming}

    assert alarming(vectors / "genoa-v5-a" / "report.bin") == set()
    assert alarming(vectors / "milan-v2-debug-policy" / "report.bin") == {"DEBUG"}
    assert alarming(synthetic / "policy-migrate" / "report.bin") == {"MIGRATE_MA"}
    assert alarming(synthetic / "keyinfo-none-unsigned" / "report.bin") == {"SIGNING_KEY", "R", "S"}
    assert alarming(synthetic / "mask-chip-key" / "report.bin") == {"MASK_CHIP_KEY"}


def test_words_for_levels_keys_and_bits(cli: Cli, vectors: Path) -> None:
    synthetic = vectors / "synthetic" / "genoa"
    host = cli("inspect", synthetic / "vmpl-host" / "report.bin").out
    assert "0xffffffff  the host asked for this report, not the guest" in host
    assert "below an SVSM" in cli("inspect", synthetic / "vmpl-3" / "report.bin").out
    assert "signed by a VLEK" in cli("inspect", synthetic / "good-vlek" / "report.bin").out
    assert "reserved" in cli("inspect", synthetic / "keyinfo-reserved-3" / "report.bin").out
    bits = cli("inspect", synthetic / "platform-unknown-bits" / "report.bin").out
    assert "bit 6" in bits
    assert "bit 9" in bits
    assert "provisional" in cli("inspect", synthetic / "provisional-firmware" / "report.bin").out


def test_a_tcb_is_read_in_the_layout_of_its_line(vectors: Path) -> None:
    turin = AttestationReport.parse((vectors / "turin-v5-oak" / "report.bin").read_bytes())
    text = str(report_sheet(turin).sections)
    assert "fmc 0  bootloader 1  tee 0  snp 2  microcode 71" in text
    old = AttestationReport.parse((vectors / "milan-v2-baremetal-a" / "report.bin").read_bytes())
    assert "read as Milan's or Genoa's" in str(report_sheet(old).sections)
    assert "its certificate says Milan" in str(report_sheet(old, ProductLine.MILAN).sections)
    # A TCB that does not fit is shown raw.
    assert "reserved byte is not zero" in str(report_sheet(old, ProductLine.TURIN).sections)


@pytest.mark.parametrize(
    ("before", "after", "form"),
    [
        (bytes(4) + (1184).to_bytes(4, "little") + bytes(24), b"", "MSG_REPORT_RSP"),
        (b"HCLA" + bytes(28), b"{}", "an Azure HCL blob"),
        (b"", bytes(2816), "a longer buffer"),
        (b"", b"\x01" * 20, "a longer buffer"),
        (b"", b"\x01" * 40, "a longer buffer"),
    ],
)
def test_a_wrapped_report_is_shown_and_how_to_unwrap_it(
    before: bytes, after: bytes, form: str, cli: Cli, vectors: Path, tmp_path: Path
) -> None:
    report = (vectors / "genoa-v5-a" / "report.bin").read_bytes()
    file = tmp_path / "wrapped"
    file.write_bytes(before + report + after)
    ended = cli("inspect", file, "--json")
    assert ended.status == 0
    assert ended.json["wrapping"] == {"form": form, "report_offset": len(before)}
    assert ended.json["size"] == len(before + report + after)
    assert any("tail -c" in line or "head -c 1184" in line for line in ended.json["remarks"])


def test_real_wrappings(cli: Cli, vectors: Path) -> None:
    azure = cli("inspect", vectors / "milan-v2-azure-hcl" / "report-1204-bytes.bin", "--json").json
    assert (azure["kind"], azure["size"]) == ("attestation-report", 1204)
    response = cli(
        "inspect", vectors / "negative/genoa-v5-a--guest-response-header/report.bin", "--json"
    ).json
    assert response["wrapping"]["form"] == "MSG_REPORT_RSP"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("genoa-v5-a--truncated-1183", "ATTESTATION_REPORT at 0x49f: 1183 bytes, want 1184"),
        ("genoa-v5-a--truncated-1", "nothing known begins with 05"),
        ("genoa-v5-a--truncated-0", "there is nothing: 0 bytes"),
        ("genoa-v5-a--version-6", "version 6 is not supported"),
        ("genoa-v5-a--sigalgo-2", "ATTESTATION_REPORT at 0x34"),
        ("genoa-v5-a--leaf-truncated", "its outer SEQUENCE has 1347 bytes, and here are 1346"),
        ("genoa-v5-a--leaf-trailing-byte", "its outer SEQUENCE has 1347 bytes, and here are 1348"),
    ],
)
def test_what_stops_to_fit_is_told_with_its_place(name: str, said: str, cli: Cli, vectors: Path) -> None:
    file = next((vectors / "negative" / name).iterdir())
    ended = cli("inspect", file, "--json")
    assert ended.status == 2
    assert said in ended.json["detail"]
    assert ended.json["file"] == str(file)


def test_a_report_of_zeros_is_no_report(cli: Cli, tmp_path: Path) -> None:
    """What a failed request leaves in the buffer of a client that does not look at its status."""
    file = tmp_path / "zeros"
    file.write_bytes(bytes(1184))
    ended = cli("inspect", file)
    assert (ended.status, "version 0 is not supported" in ended.err) == (2, True)
