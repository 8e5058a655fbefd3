import hashlib

import pytest

from app.errors import WireError
from app.wire.cursor import Cursor
from app.wire.tpm import algorithms as alg
from app.wire.tpm.pcr import PcrSelection, PcrValues


def read(raw: bytes) -> PcrSelection:
    cursor = Cursor("here", raw)
    selection = PcrSelection.read(cursor)
    cursor.end()
    return selection


@pytest.mark.parametrize(
    ("banks", "raw"),
    [
        ({"sha256": range(24)}, "00000001 000b 03 ffffff"),
        ({"sha256": [0]}, "00000001 000b 03 010000"),
        ({"sha256": [23]}, "00000001 000b 03 000080"),
        ({"sha384": [8, 7]}, "00000001 000c 03 800100"),
        ({"sha256": [0, 1, 2, 7, 16]}, "00000001 000b 03 870001"),
        ({"sha384": [1], "sha256": [2]}, "00000002 000c 03 020000 000b 03 040000"),
        (
            {"sha256": [2], "sha384": [1], "sha512": [0]},
            "00000003 000b 03 040000 000c 03 020000 000d 03 010000",
        ),
    ],
)
def test_selections_by_name_and_as_bytes(banks: dict[str, list[int]], raw: str) -> None:
    selection = PcrSelection.of(banks)
    assert selection.encode() == bytes.fromhex(raw)
    assert read(bytes.fromhex(raw)) == selection
    assert selection.names() == {name: sorted(pcrs) for name, pcrs in banks.items()}


@pytest.mark.parametrize(
    ("banks", "text"),
    [
        ({"sha256": range(24)}, "sha256:0-23"),
        ({"sha256": [7]}, "sha256:7"),
        ({"sha256": [0, 1, 3, 5, 6, 7, 23]}, "sha256:0-1,3,5-7,23"),
        ({"sha384": [0, 2], "sha256": [1]}, "sha384:0,2+sha256:1"),
    ],
)
def test_selections_in_short(banks: dict[str, list[int]], text: str) -> None:
    assert str(PcrSelection.of(banks)) == text


def test_the_order_of_banks_is_part_of_a_selection_and_that_of_registers_is_not() -> None:
    assert PcrSelection.of({"sha256": [1], "sha384": [1]}) != PcrSelection.of({"sha384": [1], "sha256": [1]})
    assert PcrSelection.of({"sha256": [7, 0]}) == PcrSelection.of({"sha256": [0, 7]})


@pytest.mark.parametrize(
    ("banks", "reason"),
    [
        ({}, "no bank is selected"),
        ({"sha1": [0]}, "sha1 is not a bank that is accepted (sha256, sha384, sha512)"),
        ({"x" * 1000: [0]}, "x" * 16 + " is not a bank that is accepted (sha256, sha384, sha512)"),
        ({"sha256": []}, "sha256: want distinct registers from 0 to 23"),
        ({"sha256": [24]}, "sha256: want distinct registers from 0 to 23"),
        ({"sha256": [-1]}, "sha256: want distinct registers from 0 to 23"),
        ({"sha256": [3, 4, 3]}, "sha256: want distinct registers from 0 to 23"),
    ],
)
def test_selections_that_make_no_sense(banks: dict[str, list[int]], reason: str) -> None:
    with pytest.raises(WireError) as caught:
        PcrSelection.of(banks)
    assert (caught.value.structure, caught.value.reason) == ("TPML_PCR_SELECTION", reason)


@pytest.mark.parametrize(
    ("raw", "offset", "reason"),
    [
        ("", 0, "number of banks needs 4 bytes, 0 left"),
        ("00000000", 0, "0 banks, want 1 to 3"),
        ("00000004", 0, "4 banks, want 1 to 3"),
        ("ffffffff", 0, "4294967295 banks, want 1 to 3"),
        ("00000001 0004 03 010000", 4, "the SHA-1 bank is not accepted"),
        ("00000002 000b 03 010000 0004 03 010000", 10, "the SHA-1 bank is not accepted"),
        ("00000001 0010 03 010000", 4, "bank 0x0010 is not SHA-256, SHA-384 or SHA-512"),
        ("00000001 000b 02 0100", 6, "bitmap of 2 bytes, want 3"),
        ("00000001 000b 04 01000000", 6, "bitmap of 4 bytes, want 3"),
        ("00000001 000b 03 0100", 7, "bitmap needs 3 bytes, 2 left"),
        ("00000001 000b 03 000000", 7, "bank sha256 selects nothing"),
        ("00000002 000b 03 010000 000b 03 020000", 10, "bank sha256 is named twice"),
        ("00000002 000b 03 010000", 10, "bank needs 2 bytes, 0 left"),
        ("00000001 000b 03 010000 00", 10, "1 bytes follow the end of the structure"),
    ],
)
def test_reading_is_strict(raw: str, offset: int, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        read(bytes.fromhex(raw))
    assert (caught.value.structure, caught.value.offset, caught.value.reason) == ("here", offset, reason)


VALUES = {"sha384": {2: b"c" * 48}, "sha256": {7: b"b" * 32, 0: b"a" * 32}}


def test_values_by_name() -> None:
    values = PcrValues.of(VALUES)
    assert values.selection == PcrSelection.of({"sha384": [2], "sha256": [0, 7]})
    assert values.names() == VALUES
    assert values.get(alg.SHA256, 0) == b"a" * 32
    assert values.get(alg.SHA256, 7) == b"b" * 32
    assert values.get(alg.SHA384, 2) == b"c" * 48
    assert values.get(alg.SHA256, 2) is None
    assert values.get(alg.SHA512, 2) is None


@pytest.mark.parametrize("name", ["sha256", "sha384", "sha512"])
def test_the_digest_takes_banks_in_their_order_and_registers_ascending(name: str) -> None:
    identifier = {"sha256": alg.SHA256, "sha384": alg.SHA384, "sha512": alg.SHA512}[name]
    joined = b"c" * 48 + b"a" * 32 + b"b" * 32
    assert PcrValues.of(VALUES).digest(identifier) == hashlib.new(name, joined).digest()


@pytest.mark.parametrize(("bank", "size"), [("sha256", 20), ("sha256", 48), ("sha384", 32), ("sha512", 0)])
def test_a_value_has_the_size_of_its_bank(bank: str, size: int) -> None:
    with pytest.raises(WireError) as caught:
        PcrValues.of({bank: {0: bytes(size)}})
    assert caught.value.reason == f"{bank}: a value has not the size of the bank's digest"
