import hashlib

import omne_attest.snp as omne
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from tinfoil.attestation.abi_sev import Report as TinfoilReport

from app.evidence.simulator.launch import Launch
from app.evidence.simulator.processor import PARTS, SecurityProcessor
from app.trust.names import VekKind
from app.wire.bits import GuestPolicy
from app.wire.product import ProductLine
from app.wire.report import AttestationReport
from app.wire.tcb import TcbVersion

SECRET = bytes(range(32))
DATA = bytes(range(64))
VERSIONS = [2, 3, 5]


def verify(report: bytes, key: ec.EllipticCurvePublicKey) -> None:
    """As AMD 56860 has it: R and S little-endian in 72 bytes each, over the first 672 bytes."""
    r, s = (int.from_bytes(report[start : start + 72], "little") for start in (0x2A0, 0x2E8))
    key.verify(encode_dss_signature(r, s), report[:0x2A0], ec.ECDSA(hashes.SHA384()))


@pytest.mark.parametrize("line", ProductLine)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", VekKind)
def test_reports_are_signed_by_the_key_for_the_reported_tcb(
    line: ProductLine, version: int, kind: VekKind
) -> None:
    processor = SecurityProcessor(line, SECRET, report_version=version, signing_key=kind)
    raw = processor.report(DATA, 0)
    assert len(raw) == 1184
    assert not any(raw[0x330:])
    report = AttestationReport.parse(raw)
    assert report.encode() == raw
    assert report.version == version
    assert report.key_info.signing_key == {"vcek": 0, "vlek": 1}[kind]
    verify(raw, processor.vek(TcbVersion.parse(report.reported_tcb, line.tcb_layout)).public_key())


@pytest.mark.parametrize("line", ProductLine)
@pytest.mark.parametrize("version", VERSIONS)
def test_other_parsers_read_the_same(line: ProductLine, version: int) -> None:
    raw = SecurityProcessor(line, SECRET, report_version=version).report(DATA, 3)
    ours = AttestationReport.parse(raw)
    peers = [omne.Report.parse(raw)]
    if line is not ProductLine.TURIN:  # tinfoil knows only the older layout of a TCB
        peers.append(TinfoilReport(raw))
    for theirs in peers:
        assert theirs.version == ours.version
        assert theirs.vmpl == ours.vmpl == 3
        assert theirs.guest_svn == ours.guest_svn == 2
        assert bytes(theirs.report_data) == ours.report_data == DATA
        assert bytes(theirs.measurement) == ours.measurement
        assert bytes(theirs.host_data) == ours.host_data
        assert bytes(theirs.chip_id) == ours.chip_id
        assert bytes(theirs.id_key_digest) == ours.id_key_digest
    assert omne.Report.parse(raw).policy == 0x30000


def test_chip_ids_have_the_size_of_the_line() -> None:
    def chip_id(line: ProductLine, kind: VekKind = VekKind.VCEK) -> bytes:
        processor = SecurityProcessor(line, SECRET, signing_key=kind)
        return AttestationReport.parse(processor.report(DATA, 0)).chip_id

    assert chip_id(ProductLine.MILAN)[63]
    assert chip_id(ProductLine.TURIN)[7]
    assert not any(chip_id(ProductLine.TURIN)[8:])
    assert not any(chip_id(ProductLine.MILAN, VekKind.VLEK))  # as on shared fleets


def test_the_same_secret_is_the_same_chip() -> None:
    one, same = SecurityProcessor(ProductLine.MILAN, SECRET), SecurityProcessor(ProductLine.MILAN, SECRET)
    other = SecurityProcessor(ProductLine.MILAN, bytes(32))
    tcb = one.current_tcb
    assert one.hwid == same.hwid != other.hwid
    assert one.vek(tcb).private_numbers() == same.vek(tcb).private_numbers()
    assert one.vek(tcb).private_numbers() != other.vek(tcb).private_numbers()


def test_keys_differ_by_every_tcb_component_and_by_kind() -> None:
    processor = SecurityProcessor(ProductLine.TURIN, SECRET)
    base = {"fmc": 1, "bootloader": 1, "tee": 1, "snp": 1, "microcode": 1}
    tcbs = [TcbVersion(**base), *(TcbVersion(**{**base, name: 2}) for name in base)]
    keys = {processor.vek(tcb).private_numbers().private_value for tcb in tcbs}
    vlek = SecurityProcessor(ProductLine.TURIN, SECRET, signing_key=VekKind.VLEK).vek(tcbs[0])
    assert len(keys | {vlek.private_numbers().private_value}) == len(tcbs) + 1
    assert processor.vek(tcbs[0]).curve.name == "secp384r1"


def test_each_guest_has_a_report_id_of_its_own() -> None:
    one, other = (SecurityProcessor(ProductLine.MILAN, SECRET) for _ in range(2))
    ids = [AttestationReport.parse(chip.report(DATA, 0)).report_id for chip in (one, one, other)]
    assert ids[0] == ids[1] != ids[2]


def test_fields_exist_from_their_version_on() -> None:
    reports = {
        version: AttestationReport.parse(
            SecurityProcessor(ProductLine.MILAN, SECRET, report_version=version).report(DATA, 0)
        )
        for version in VERSIONS
    }
    assert [reports[version].cpuid is None for version in VERSIONS] == [True, False, False]
    assert [reports[version].current_mit_vector is None for version in VERSIONS] == [True, True, False]
    assert [reports[version].platform_info.raw for version in VERSIONS] == [0x05, 0x25, 0x25]


@pytest.mark.parametrize("line", ProductLine)
def test_parts_are_of_their_line_and_beyond_every_published_floor(line: ProductLine) -> None:
    part = PARTS[line]
    assert part.cpuid.product_line is line
    # least SNP SVN, microcode and firmware build that the bulletins up to 2026 ask for
    snp, microcode, build = {"Milan": (0x1D, 0xDE, 35), "Genoa": (0x1B, 0x56, 49), "Turin": (4, 0x51, 65)}[
        line
    ]
    assert part.tcb.snp >= snp
    assert part.tcb.microcode >= microcode
    assert (part.firmware.major, part.firmware.minor) == (1, 55)
    assert part.firmware.build >= build


def test_what_was_settled_at_launch_is_reported() -> None:
    launch = Launch(policy=GuestPolicy.parse(0xB001F), measurement=b"m" * 48, guest_svn=9)
    raw = SecurityProcessor(ProductLine.MILAN, SECRET, launch=launch).report(DATA, 0)
    report = AttestationReport.parse(raw)
    assert (report.policy.encode(), report.measurement, report.guest_svn) == (0xB001F, b"m" * 48, 9)


def test_the_default_measurement_can_be_recomputed_by_anybody() -> None:
    expected = hashlib.sha384(b"svsm-attest SIMULATED COCONUT-SVSM image").digest()
    assert Launch().measurement == expected


def test_an_unknown_report_version_is_refused() -> None:
    with pytest.raises(ValueError, match="report version 4"):
        SecurityProcessor(ProductLine.MILAN, SECRET, report_version=4)
