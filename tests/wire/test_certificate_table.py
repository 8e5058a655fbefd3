import json
import struct
from pathlib import Path
from uuid import UUID

import pytest

from app.errors import WireError
from app.wire import guid
from app.wire.certificate_table import SVSM_SIZE, CertificateEntry, CertificateTable

STRANGER = UUID("deadbeef-0000-4000-8000-000000000001")
VCEK_TEXT_ORDER = bytes.fromhex("63da758de6644564adc5f4b93be8accd")
VCEK_MIXED_ENDIAN = bytes.fromhex("8d75da6364e66445adc5f4b93be8accd")
END = bytes(24)


def entry(name: bytes | UUID, offset: int, length: int) -> bytes:
    return (name if isinstance(name, bytes) else name.bytes) + struct.pack("<II", offset, length)


def refusal(raw: bytes) -> tuple[int, str]:
    with pytest.raises(WireError) as caught:
        CertificateTable.parse(raw)
    assert caught.value.structure == "certificate table"
    return caught.value.offset, caught.value.reason


def test_two_entries_written_by_hand() -> None:
    raw = entry(guid.VCEK, 72, 4) + entry(guid.ASK, 76, 3) + END + b"leafask"
    table = CertificateTable.parse(raw)
    assert table.entries == (CertificateEntry(guid.VCEK, b"leaf"), CertificateEntry(guid.ASK, b"ask"))
    assert (table.get(guid.ASK), table.get(guid.ARK)) == (b"ask", None)
    assert table.encode() == raw


@pytest.mark.parametrize("name", [VCEK_TEXT_ORDER, VCEK_MIXED_ENDIAN])
def test_both_byte_orders_name_the_vcek(name: bytes) -> None:
    table = CertificateTable.parse(entry(name, 48, 4) + END + b"leaf")
    assert table.get(guid.VCEK) == b"leaf"
    assert table.encode()[:16] == VCEK_TEXT_ORDER


def test_a_stranger_is_kept_in_text_order() -> None:
    table = CertificateTable.parse(entry(STRANGER, 48, 1) + END + b"?")
    assert table.entries == (CertificateEntry(STRANGER, b"?"),)


def test_only_an_all_zero_entry_ends_the_header() -> None:
    table = CertificateTable.parse(entry(guid.NULL, 48, 1) + END + b"?")
    assert table.entries == (CertificateEntry(guid.NULL, b"?"),)


def test_data_may_stand_in_any_order() -> None:
    table = CertificateTable.parse(entry(guid.VCEK, 75, 4) + entry(guid.ASK, 72, 3) + END + b"askleaf")
    assert (table.get(guid.VCEK), table.get(guid.ASK)) == (b"leaf", b"ask")


def test_empty_entries_take_no_room_anywhere() -> None:
    raw = entry(guid.VCEK, 0, 0) + entry(guid.ASK, 96, 3) + entry(guid.ARK, 97, 0) + END + b"ask"
    table = CertificateTable.parse(raw)
    assert [(one.guid, one.data) for one in table.entries] == [
        (guid.VCEK, b""),
        (guid.ASK, b"ask"),
        (guid.ARK, b""),
    ]


def test_padding() -> None:
    table = CertificateTable((CertificateEntry(guid.VCEK, b"leaf"),))
    padded = table.encode(SVSM_SIZE)
    assert len(padded) == 16384
    assert padded.startswith(table.encode())
    assert CertificateTable.parse(padded) == table
    assert table.encode(52) == table.encode()
    assert CertificateTable.parse(bytes(SVSM_SIZE)) == CertificateTable(())
    assert CertificateTable(()).encode() == END


def test_a_table_is_not_cut_to_fit() -> None:
    with pytest.raises(WireError, match=r"^certificate table at 0x33: 52 bytes do not fit 51$"):
        CertificateTable((CertificateEntry(guid.VCEK, b"leaf"),)).encode(51)


@pytest.mark.parametrize("size", [0, 1, 23])
def test_too_short_for_the_end_of_the_header(size: int) -> None:
    offset, reason = refusal(bytes(size))
    assert (offset, reason) == (
        0,
        f"entry (no all-zero entry ends the header) needs 24 bytes, {size} left",
    )


def test_no_end_of_the_header() -> None:
    offset, reason = refusal(entry(guid.VCEK, 24, 0))
    assert (offset, reason) == (24, "entry (no all-zero entry ends the header) needs 24 bytes, 0 left")


@pytest.mark.parametrize(
    ("offset", "length"),
    [(52, 1), (48, 5), (49, 4), (0xFFFFFFFF, 0), (48, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF)],
)
def test_data_outside_the_table(offset: int, length: int) -> None:
    raw = entry(guid.VCEK, offset, length) + END + b"leaf"
    assert refusal(raw) == (0, f"{guid.VCEK} at {offset} with {length} bytes lies outside 52")


@pytest.mark.parametrize("offset", [0, 24, 47])
def test_data_inside_the_header(offset: int) -> None:
    raw = entry(guid.VCEK, offset, 4) + END + b"leaf"
    assert refusal(raw) == (0, f"{guid.VCEK} points into the header, which ends at 48")


@pytest.mark.parametrize("second", [VCEK_TEXT_ORDER, VCEK_MIXED_ENDIAN])
def test_a_guid_that_occurs_twice(second: bytes) -> None:
    raw = entry(guid.VCEK, 72, 4) + entry(second, 76, 4) + END + b"leafleaf"
    assert refusal(raw) == (24, f"{guid.VCEK} occurs twice")


@pytest.mark.parametrize(
    ("first", "second", "culprit"),
    [((72, 4), (75, 4), 1), ((75, 4), (72, 4), 0), ((72, 4), (72, 4), None), ((72, 8), (73, 1), 1)],
)
def test_shared_bytes(first: tuple[int, int], second: tuple[int, int], culprit: int | None) -> None:
    raw = entry(guid.VCEK, *first) + entry(guid.ASK, *second) + END + b"leafleaf"
    offset, reason = refusal(raw)
    assert reason.endswith("shares bytes with another entry")
    assert offset in ((0, 24) if culprit is None else (24 * culprit,))


def test_bounds() -> None:
    names = [UUID(int=number) for number in range(1, 66)]
    full = b"".join(entry(name, 24 * 65, 0) for name in names[:64]) + END
    assert len(CertificateTable.parse(full).entries) == 64
    over = b"".join(entry(name, 24 * 66, 0) for name in names) + END
    assert refusal(over) == (24 * 64, "more than 64 entries")
    assert len(CertificateTable.parse(bytes(65536)).entries) == 0
    assert refusal(bytes(65537)) == (65536, "65537 bytes, at most 65536")


# The published cases: which entries each holds, or where and why it is refused.
GOOD = ["VCEK", "ASK", "ARK"]
VCEK = str(guid.VCEK)
CASES: dict[str, list[str] | tuple[int, str]] = {
    "genoa-good": GOOD,
    "genoa-good-page-padded": GOOD,
    "genoa-little-endian-guid": GOOD,
    "genoa-unknown-guid-extra": ["?", *GOOD],
    "genoa-empty": [],
    "genoa-vcek-only": ["VCEK"],
    "genoa-vcek-pem": ["VCEK as PEM", "ASK", "ARK"],
    "genoa-no-terminator": (72, "lies outside 4735"),  # the first certificate read as an entry
    "genoa-offset-past-end": (0, f"{VCEK} at 4769 with 1347 bytes lies outside 4759"),
    "genoa-length-past-end": (0, f"{VCEK} at 96 with 2147483647 bytes lies outside 4759"),
    "genoa-offset-into-header": (0, f"{VCEK} points into the header, which ends at 96"),
    "genoa-duplicate-vcek": (24, f"{VCEK} occurs twice"),
    "genoa-truncated-header": (0, f"{VCEK} at 96 with 1347 bytes lies outside 30"),
}


def test_published_tables(vectors: Path, subtests: pytest.Subtests) -> None:
    leaf = (vectors / "genoa-v5-a" / "vcek.der").read_bytes()
    contents = {
        "VCEK": (guid.VCEK, leaf),
        "ASK": (guid.ASK, (vectors / "ca" / "genoa-ask.der").read_bytes()),
        "ARK": (guid.ARK, (vectors / "ca" / "genoa-ark.der").read_bytes()),
    }
    index = json.loads((vectors / "vectors.json").read_text())["certificate_tables"]
    assert {case["id"] for case in index} == set(CASES)
    for case in index:
        with subtests.test(case["id"]):
            raw = (vectors / case["file"]).read_bytes()
            outcome = CASES[case["id"]]
            if isinstance(outcome, tuple):
                assert case["expected"].startswith("malformed")
                offset, reason = refusal(raw)
                assert offset == outcome[0]
                assert reason.endswith(outcome[1])
                continue
            assert not case["expected"].startswith("malformed")
            entries = CertificateTable.parse(raw).entries
            assert len(entries) == len(outcome)
            for found, what in zip(entries, outcome, strict=True):
                if what in contents:
                    assert (found.guid, found.data) == contents[what]
            if "?" in outcome:
                assert entries[0].guid not in guid.NAMES
            if "VCEK as PEM" in outcome:
                assert entries[0].guid == guid.VCEK
                assert entries[0].data.startswith(b"-----BEGIN CERTIFICATE-----")
