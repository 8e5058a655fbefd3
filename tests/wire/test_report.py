"""ATTESTATION_REPORT against the layout table of AMD 56860, byte by byte and bit by bit."""

import dataclasses
import struct
from typing import Any

import pytest

from app.errors import UnsupportedVersionError, WireError
from app.wire.product import Cpuid
from app.wire.report import (
    REPORT_SIZE,
    SIGNED_SIZE,
    SIGNING_KEY_NONE,
    SIGNING_KEY_VCEK,
    SIGNING_KEY_VLEK,
    VMPL_HOST,
    AttestationReport,
    FirmwareVersion,
    KeyInfo,
    Signature,
)
from tests.wire.samples import REPORT_FIELDS, changed_fields, patched, report

VERSIONS = [2, 3, 4, 5]


def u(raw: bytes) -> int:
    return int.from_bytes(raw, "little")


def expected(raw: bytes, offset: int, size: int, name: str) -> Any:
    """What a field must hold, read from the raw bytes by the table alone."""
    field = raw[offset : offset + size]
    if name in {"guest_svn", "vmpl"} or name.endswith("_mit_vector"):
        return u(field)
    if name == "cpuid":
        return Cpuid(family=field[0], model=field[1], stepping=field[2])
    if name in {"current_version", "committed_version"}:
        return FirmwareVersion(build=field[0], minor=field[1], major=field[2])
    if name == "signature":
        return Signature(r=u(field[:72]), s=u(field[72:]))
    return field


def refusal(raw: bytes) -> WireError:
    with pytest.raises(WireError) as caught:
        AttestationReport.parse(raw)
    return caught.value


@pytest.mark.parametrize("version", VERSIONS)
def test_every_field_stands_where_the_table_says(version: int) -> None:
    raw = report(version)
    parsed = AttestationReport.parse(raw)
    assert parsed.version == version
    absent = {"cpuid": version < 3, "launch_mit_vector": version < 5, "current_mit_vector": version < 5}
    for offset, size, name in REPORT_FIELDS:
        value = getattr(parsed, name)
        if absent.get(name):
            assert value is None
        elif name == "platform_info":
            assert value.raw == u(raw[offset : offset + size])
        else:
            assert value == expected(raw, offset, size, name), name
    assert dataclasses.asdict(parsed.policy) == {
        "abi_major": 0x37,
        "abi_minor": 0x1F,
        "smt": True,
        "migrate_ma": False,
        "debug": False,
        "single_socket": True,
        "cxl": False,
        "mem_aes_256_xts": True,
        "rapl_dis": False,
        "ciphertext_hiding": False,
        "page_swap_disable": True,
    }
    assert parsed.key_info == KeyInfo(author_key_en=True, mask_chip_key=False, signing_key=1)
    assert parsed.signature_algo == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_encode_is_the_inverse(version: int) -> None:
    raw = report(version)
    parsed = AttestationReport.parse(raw)
    assert parsed.encode() == raw
    assert AttestationReport.parse(parsed.encode()) == parsed


@pytest.mark.parametrize("version", VERSIONS)
def test_the_signature_covers_the_first_672_bytes(version: int) -> None:
    raw = report(version)
    parsed = AttestationReport.parse(raw)
    assert (REPORT_SIZE, SIGNED_SIZE) == (1184, 672)
    assert parsed.signed_bytes == raw[:672]
    changed = dataclasses.replace(parsed, guest_svn=1)
    assert changed.signed_bytes == patched(raw, (4, "01000000"))[:672]


def fate(version: int, byte: int, bit: int) -> str | int:
    """What flipping one bit may change: the one field that owns it, or (an offset) where it is refused."""
    if 0x08 <= byte < 0x10:
        number = 8 * (byte - 0x08) + bit
        return 0x08 if number == 17 or number >= 26 else "policy"
    if 0x34 <= byte < 0x38:
        return 0x34
    if 0x48 <= byte < 0x4C:
        return 0x48 if 8 * (byte - 0x48) + bit >= 5 else "key_info"
    since = {"cpuid": 3, "launch_mit_vector": 5, "current_mit_vector": 5}
    for offset, size, name in REPORT_FIELDS:
        if offset <= byte < offset + size and version >= since.get(name, 0):
            return name
    return byte  # reserved


@pytest.mark.parametrize(
    ("version", "start", "end"),
    [(5, 0x004, REPORT_SIZE), (2, 0x180, 0x210), (4, 0x180, 0x210)],  # VERSION has its own tests
)
def test_every_single_bit_is_one_field_or_refused_where_it_stands(version: int, start: int, end: int) -> None:
    raw = report(version)
    untouched = AttestationReport.parse(raw)
    for byte in range(start, end):
        for bit in range(8):
            flipped = patched(raw, (byte, bytes([raw[byte] ^ 1 << bit])))
            try:
                outcome: str | int = ",".join(changed_fields(untouched, AttestationReport.parse(flipped)))
            except WireError as error:
                outcome = error.offset
            assert outcome == fate(version, byte, bit), f"bit {bit} of byte 0x{byte:x}"


@pytest.mark.parametrize("version", [0, 1, 6, 7, 0x100, 0xFFFFFFFF])
def test_an_unknown_version_is_its_own_error(version: int) -> None:
    error = refusal(patched(report(), (0, struct.pack("<I", version))))
    assert isinstance(error, UnsupportedVersionError)
    assert (error.structure, error.offset) == ("ATTESTATION_REPORT", 0)
    assert (error.version, error.supported) == (version, (2, 3, 4, 5))
    assert str(error).endswith(f"version {version} is not supported (known: 2, 3, 4, 5)")


@pytest.mark.parametrize(
    ("version", "offset", "reason"),
    [
        (2, 0x188, "reserved byte must be zero"),  # CPUID before version 3
        (2, 0x18A, "reserved byte must be zero"),
        (2, 0x1F8, "LAUNCH_MIT_VECTOR (reserved before version 5) must be zero"),
        (4, 0x18B, "reserved byte must be zero"),
        (4, 0x1FF, "LAUNCH_MIT_VECTOR (reserved before version 5) must be zero"),
        (4, 0x200, "CURRENT_MIT_VECTOR (reserved before version 5) must be zero"),
        (5, 0x04C, "reserved byte must be zero"),
        (5, 0x19F, "reserved byte must be zero"),
        (5, 0x1EB, "byte after CURRENT_VERSION must be zero"),
        (5, 0x1EF, "byte after COMMITTED_VERSION must be zero"),
        (5, 0x208, "reserved byte must be zero"),
        (5, 0x29F, "reserved byte must be zero"),
        (5, 0x330, "reserved byte after the signature must be zero"),
        (5, 0x49F, "reserved byte after the signature must be zero"),
    ],
)
def test_reserved_bytes(version: int, offset: int, reason: str) -> None:
    error = refusal(patched(report(version), (offset, "80")))
    assert (error.structure, error.offset, error.reason) == ("ATTESTATION_REPORT", offset, reason)


@pytest.mark.parametrize(
    ("change", "structure", "offset", "reason"),
    [
        ((0x08, "00000000"), "GUEST_POLICY", 0x08, "reserved bit 17 must be one (0x0)"),
        ((0x0B, "04"), "GUEST_POLICY", 0x08, "bits from 26 must be zero (0x453371f)"),
        ((0x34, "00"), "ATTESTATION_REPORT", 0x34, "SIGNATURE_ALGO is 0, want 1"),
        ((0x34, "02"), "ATTESTATION_REPORT", 0x34, "SIGNATURE_ALGO is 2, want 1"),
        ((0x48, "25"), "ATTESTATION_REPORT", 0x48, "KEY_INFO bits 5..31 must be zero (0x25)"),
        ((0x4B, "80"), "ATTESTATION_REPORT", 0x48, "KEY_INFO bits 5..31 must be zero (0x80000005)"),
    ],
)
def test_reserved_bits(change: tuple[int, str], structure: str, offset: int, reason: str) -> None:
    error = refusal(patched(report(), change))
    assert (error.structure, error.offset, error.reason) == (structure, offset, reason)


@pytest.mark.parametrize(
    ("value", "author_key_en", "mask_chip_key", "signing_key"),
    [
        (0, False, False, 0),
        (1, True, False, 0),
        (2, False, True, 0),
        (4, False, False, 1),
        (0x1F, True, True, 7),
    ],
)
def test_key_info(value: int, signing_key: int, *, author_key_en: bool, mask_chip_key: bool) -> None:
    info = KeyInfo(author_key_en=author_key_en, mask_chip_key=mask_chip_key, signing_key=signing_key)
    assert KeyInfo.parse(value) == info
    assert info.encode() == value


def test_the_signing_keys_that_have_names() -> None:
    assert (SIGNING_KEY_VCEK, SIGNING_KEY_VLEK, SIGNING_KEY_NONE) == (0, 1, 7)


def test_key_info_names_its_place() -> None:
    with pytest.raises(WireError, match=r"^ATTESTATION_REPORT at 0x0: KEY_INFO bits 5..31 must be zero"):
        KeyInfo.parse(0x20)


@pytest.mark.parametrize("size", [0, 1, 671, 672, 1183, 1185, 1204, 1216, 2000, 4000, 4096])
def test_exactly_1184_bytes(size: int) -> None:
    error = refusal((report() + bytes(4096))[:size])
    assert (error.structure, error.offset) == ("ATTESTATION_REPORT", min(size, 1184))
    assert error.reason == f"{size} bytes, want 1184"


def test_a_report_that_the_host_asked_for_is_readable() -> None:
    parsed = AttestationReport.parse(patched(report(), (0x30, "ffffffff")))
    assert parsed.vmpl == VMPL_HOST == 0xFFFFFFFF  # the appraisal refuses it


def test_a_report_shows_its_fields_and_not_its_bytes() -> None:
    shown = repr(AttestationReport.parse(report()))
    assert "report_data=" in shown
    assert "_raw" not in shown


def test_signature_numbers_beyond_the_curve_are_kept_for_the_signature_check() -> None:
    parsed = AttestationReport.parse(patched(report(), (0x2A0, b"\xff" * 144)))
    assert parsed.signature == Signature(r=2**576 - 1, s=2**576 - 1)


def test_firmware_versions_are_ordered_major_first() -> None:
    assert FirmwareVersion(major=1, minor=55, build=40) < FirmwareVersion(major=1, minor=56, build=1)
    assert FirmwareVersion(major=2, minor=0, build=0) > FirmwareVersion(major=1, minor=255, build=255)
    assert str(FirmwareVersion(major=1, minor=55, build=40)) == "1.55.40"


@pytest.mark.parametrize(
    ("version", "change", "offset", "reason"),
    [
        (5, {"guest_svn": 2**32}, 0, "GUEST_SVN 4294967296 does not fit 4 bytes"),
        (5, {"guest_svn": -1}, 0, "GUEST_SVN -1 does not fit 4 bytes"),
        (5, {"vmpl": 2**32}, 0, "VMPL"),
        (5, {"report_data": bytes(63)}, 0, "REPORT_DATA has 63 bytes, want 64"),
        (5, {"measurement": bytes(49)}, 0, "MEASUREMENT has 49 bytes, want 48"),
        (5, {"chip_id": bytes(8)}, 0, "CHIP_ID has 8 bytes, want 64"),
        (5, {"launch_tcb": bytes(9)}, 0, "LAUNCH_TCB has 9 bytes, want 8"),
        (5, {"cpuid": None}, 0x188, "CPUID fields exist exactly from version 3"),
        (
            2,
            {"cpuid": Cpuid(family=1, model=1, stepping=1)},
            0x188,
            "CPUID fields exist exactly from version 3",
        ),
        (5, {"cpuid": Cpuid(family=256, model=1, stepping=1)}, 0, "CPUID 256 does not fit 1 bytes"),
        (5, {"launch_mit_vector": None}, 0x1F8, "LAUNCH_MIT_VECTOR exists exactly from version 5"),
        (4, {"current_mit_vector": 0}, 0x200, "CURRENT_MIT_VECTOR exists exactly from version 5"),
        (5, {"current_mit_vector": 2**64}, 0, "CURRENT_MIT_VECTOR 18446744073709551616 does not fit 8 bytes"),
        (5, {"current_version": FirmwareVersion(major=1, minor=256, build=0)}, 0, "firmware version 256"),
        (
            5,
            {"key_info": KeyInfo(author_key_en=True, mask_chip_key=True, signing_key=8)},
            0x48,
            "SIGNING_KEY 8",
        ),
        (
            5,
            {"key_info": KeyInfo(author_key_en=True, mask_chip_key=True, signing_key=-1)},
            0x48,
            "SIGNING_KEY -1",
        ),
        (5, {"signature": Signature(r=2**576, s=1)}, 0, "signature"),
    ],
)
def test_what_does_not_fit_is_not_written(
    version: int, change: dict[str, Any], offset: int, reason: str
) -> None:
    with pytest.raises(WireError) as caught:
        dataclasses.replace(AttestationReport.parse(report(version)), **change).encode()
    assert (caught.value.structure, caught.value.offset) == ("ATTESTATION_REPORT", offset)
    assert caught.value.reason.startswith(reason)
