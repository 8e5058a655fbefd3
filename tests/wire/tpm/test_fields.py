import pytest

from app.errors import WireError
from app.wire.cursor import Cursor
from app.wire.tpm import fields


def read(what: str, raw: str) -> object:
    cursor = Cursor("here", bytes.fromhex(raw), base=100)
    value = getattr(fields, what)(cursor, "it")
    cursor.end()
    return value


@pytest.mark.parametrize(
    ("what", "raw", "value"),
    [
        ("u16", "0102", 0x0102),
        ("u32", "01020304", 0x01020304),
        ("u64", "0102030405060708", 0x0102030405060708),
        ("tpm2b", "0000", b""),
        ("tpm2b", "0002 abcd", b"\xab\xcd"),
        ("hash_algorithm", "000b", 0x000B),
        ("hash_algorithm", "000c", 0x000C),
        ("hash_algorithm", "000d", 0x000D),
        ("digest", "0020" + "11" * 32, b"\x11" * 32),
        ("digest", "0040" + "11" * 64, b"\x11" * 64),
        ("name", "0022 000b" + "11" * 32, b"\x00\x0b" + b"\x11" * 32),
        ("name", "0032 000c" + "11" * 48, b"\x00\x0c" + b"\x11" * 48),
        ("name", "0042 000d" + "11" * 64, b"\x00\x0d" + b"\x11" * 64),
    ],
)
def test_what_is_read(what: str, raw: str, value: object) -> None:
    assert read(what, raw) == value


@pytest.mark.parametrize(
    ("what", "raw", "offset", "reason"),
    [
        ("u16", "01", 100, "it needs 2 bytes, 1 left"),
        ("tpm2b", "0003 abcd", 102, "it needs 3 bytes, 2 left"),
        ("tpm2b", "00", 100, "it size needs 2 bytes, 1 left"),
        ("hash_algorithm", "0004", 100, "it is SHA-1, which is not accepted"),
        ("hash_algorithm", "0012", 100, "it 0x0012 is not SHA-256, SHA-384 or SHA-512"),
        ("digest", "0014" + "11" * 20, 102, "it has 20 bytes, want 32, 48 or 64"),
        ("digest", "0000", 102, "it has 0 bytes, want 32, 48 or 64"),
        ("name", "0000", 102, "it is not the Name of an object"),
        ("name", "0004 80000001", 102, "it is not the Name of an object"),
        ("name", "0016 0004" + "11" * 20, 102, "it is not the Name of an object"),
        ("name", "0022 000c" + "11" * 32, 102, "it is not the Name of an object"),
    ],
)
def test_what_is_refused(what: str, raw: str, offset: int, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        read(what, raw)
    assert (caught.value.structure, caught.value.offset, caught.value.reason) == ("here", offset, reason)


def test_what_is_written() -> None:
    assert fields.p16(1, 0x0203) == bytes.fromhex("00010203")
    assert fields.to_tpm2b(b"\xab") == bytes.fromhex("0001ab")
    assert fields.to_tpm2b(b"") == bytes(2)
