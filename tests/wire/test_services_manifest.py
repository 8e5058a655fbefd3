import struct
from uuid import UUID

import pytest

from app.errors import WireError
from app.wire import guid
from app.wire.binding import expected_report_data
from app.wire.services_manifest import ServiceEntry, ServicesManifest
from tests.wire.samples import COUNTING_EK, NONCE, patched

TABLE_GUID = bytes.fromhex("bb9e8463923d7046a1ff58f9c94b87bb")
UEFI_FLAGS_2 = bytes.fromhex("0000000002000000")

# vTPM data of six bytes and UEFI MM data of eight, laid out by hand.
WORKED = bytes.fromhex(
    "bb9e8463923d7046a1ff58f9c94b87bb"  # the table's own GUID
    "56000000 02000000"  # 86 bytes, 2 services
    "ebf176c42301a5459641b4e7dde5bfe3 48000000 06000000"  # vTPM, 6 bytes at 0x48
    "593a45a41b9e8747a0331986d6adbe55 4e000000 08000000"  # UEFI MM, 8 bytes at 0x4e
    "deadbeef0102 0000000002000000"
)
WORKED_ENTRIES = (
    ServiceEntry(guid.SERVICE_VTPM, bytes.fromhex("deadbeef0102")),
    ServiceEntry(guid.SERVICE_UEFI_MM, UEFI_FLAGS_2),
)


def refusal(raw: bytes) -> tuple[int, str]:
    with pytest.raises(WireError) as caught:
        ServicesManifest.parse(raw)
    assert caught.value.structure == "services manifest"
    return caught.value.offset, caught.value.reason


def table(*entries: tuple[UUID, int, int], data: bytes = b"") -> bytes:
    """A table with these (service, offset, size) entries, right in everything else."""
    head = b"".join(name.bytes_le + struct.pack("<II", offset, size) for name, offset, size in entries)
    length = 24 + len(head) + len(data)
    return TABLE_GUID + struct.pack("<II", length, len(entries)) + head + data


def test_the_worked_example() -> None:
    assert len(WORKED) == 86
    manifest = ServicesManifest.parse(WORKED)
    assert manifest.entries == WORKED_ENTRIES
    assert manifest.get(guid.SERVICE_UEFI_MM) == UEFI_FLAGS_2
    assert manifest.get(guid.VCEK) is None
    assert manifest.encode() == WORKED
    assert expected_report_data(NONCE, WORKED).hex() == (
        "32122203613eb4dbddaa3613a59dda7f649cf0af723c7775501ac51b91780968"
        "085788795702466fdeb62a9b9f11f932ad1941fb56ad344e1c02278d94b72a2f"
    )


# (services, total length, first bytes, REPORT_DATA for the nonce 00..3f), computed outside this code
VECTORS = [
    (
        (ServiceEntry(guid.SERVICE_VTPM, COUNTING_EK), ServiceEntry(guid.SERVICE_UEFI_MM, UEFI_FLAGS_2)),
        394,
        (
            "bb9e8463923d7046a1ff58f9c94b87bb8a01000002000000ebf176c42301a5459641b4e7dde5bfe3"
            "480000003a010000593a45a41b9e8747a0331986d6adbe558201000008000000"
        ),
        (
            "ff41a747a7fd8d63d9d4e0097a68d5105825ebaee56f18f63658321297e307a1"
            "d279e71dc0269d66d13f367178e9b112afb7218046b93f343a5125a9571726bc"
        ),
    ),
    (
        (ServiceEntry(guid.SERVICE_VTPM, COUNTING_EK),),
        362,
        "bb9e8463923d7046a1ff58f9c94b87bb6a01000001000000ebf176c42301a5459641b4e7dde5bfe3300000003a010000",
        (
            "12bbff57d7d78277a2741d872393eda7ddb034cd94238da48db7649af5c109d7"
            "4775ea042ae244a35e5d70289ee513149cb1f76dff5880b299f65d27ab96561b"
        ),
    ),
    (
        (),
        24,
        "bb9e8463923d7046a1ff58f9c94b87bb1800000000000000",
        (
            "c00f8d4c9578a6f7dd271eedd210f8afc415c7ec6fcebbf76a9c8bcfc351c4ed"
            "bbfe0faf361559cab2b4f7ce4db35fe306b621a56c6e6b9870191a43853add5e"
        ),
    ),
]


@pytest.mark.parametrize(("entries", "length", "first", "report_data"), VECTORS)
def test_computed_vectors(
    entries: tuple[ServiceEntry, ...], length: int, first: str, report_data: str
) -> None:
    manifest = ServicesManifest(entries)
    raw = manifest.encode()
    assert len(raw) == length
    assert raw.hex().startswith(first)
    assert expected_report_data(NONCE, raw).hex() == report_data
    assert ServicesManifest.parse(raw) == manifest


def test_a_service_without_a_manifest() -> None:
    manifest = ServicesManifest.parse(table((guid.SERVICE_VTPM, 48, 0)))
    assert manifest.entries == (ServiceEntry(guid.SERVICE_VTPM, b""),)


def test_unknown_services_are_kept() -> None:
    stranger = UUID("deadbeef-0000-4000-8000-000000000001")
    manifest = ServicesManifest.parse(table((stranger, 48, 1), data=b"?"))
    assert manifest.get(stranger) == b"?"


@pytest.mark.parametrize("size", [0, 1, 15])
def test_too_short_for_its_guid(size: int) -> None:
    assert refusal(WORKED[:size]) == (0, f"table GUID needs 16 bytes, {size} left")


def test_another_guid() -> None:
    text_order = guid.SERVICES_MANIFEST.bytes
    reason = "does not start with 63849ebb-3d92-4670-a1ff-58f9c94b87bb"
    assert refusal(patched(WORKED, (0, text_order))) == (0, reason)


@pytest.mark.parametrize(("size", "what", "left"), [(19, "table length", 3), (23, "number of services", 3)])
def test_too_short_for_its_header(size: int, what: str, left: int) -> None:
    raw = patched(WORKED[:size], (16, struct.pack("<I", size)[: size - 16]))
    assert refusal(raw) == (size - left, f"{what} needs 4 bytes, {left} left")


@pytest.mark.parametrize("length", [0, 85, 87, 0xFFFFFFFF])
def test_the_length_must_be_that_of_the_blob(length: int) -> None:
    raw = patched(WORKED, (16, struct.pack("<I", length)))
    assert refusal(raw) == (16, f"says {length} bytes, is 86")


@pytest.mark.parametrize("count", [3, 0x0AAAAAAB, 0xFFFFFFFF])
def test_more_services_than_fit(count: int) -> None:
    raw = patched(WORKED, (20, struct.pack("<I", count)))
    assert refusal(raw) == (20, f"{count} services do not fit 62 bytes")


def test_fewer_services_than_data() -> None:
    # One service: its data would have to start where the second entry stands.
    assert refusal(patched(WORKED, (20, "01000000"))) == (24, "data at 72 leaves a gap before it")
    assert refusal(patched(WORKED, (20, "00000000"))) == (24, "62 bytes belong to no service")


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (0, 6),  # the header
        (47, 6),  # an entry
        (47, 0),
        (48, 7),  # past the end
        (54, 1),
        (55, 0),
        (0xFFFFFFFF, 0),
        (48, 0xFFFFFFFF),
        (0xFFFFFFFF, 8),  # wraps round in 32 bits
    ],
)
def test_data_outside_the_data_area(offset: int, size: int) -> None:
    raw = table((guid.SERVICE_VTPM, offset, size), data=b"abcdef")
    reason = f"data of {guid.SERVICE_VTPM}, {size} bytes at {offset}, lies outside 48..54"
    assert refusal(raw) == (24, reason)


def test_a_service_that_occurs_twice() -> None:
    raw = table((guid.SERVICE_VTPM, 72, 3), (guid.SERVICE_VTPM, 75, 3), data=b"abcdef")
    assert refusal(raw) == (48, f"service {guid.SERVICE_VTPM} occurs twice")


@pytest.mark.parametrize(
    ("first", "second", "place", "reason"),
    [
        ((72, 3), (74, 4), 48, "data at 74 shares bytes with another service"),
        ((72, 6), (72, 6), 48, "data at 72 shares bytes with another service"),
        ((72, 2), (75, 3), 48, "data at 75 leaves a gap before it"),
        ((73, 2), (75, 3), 24, "data at 73 leaves a gap before it"),
        ((75, 3), (72, 3), 24, "data at 75 leaves a gap before it"),  # not in entry order
        ((72, 3), (75, 2), 77, "1 bytes belong to no service"),
        ((72, 0), (72, 0), 72, "6 bytes belong to no service"),
    ],
)
def test_data_is_packed_in_entry_order(
    first: tuple[int, int], second: tuple[int, int], place: int, reason: str
) -> None:
    raw = table((guid.SERVICE_VTPM, *first), (guid.SERVICE_UEFI_MM, *second), data=b"abcdef")
    assert refusal(raw) == (place, reason)


def test_bounds() -> None:
    most = (65536 - 24) // 24
    full = ServicesManifest(tuple(ServiceEntry(UUID(int=n), b"") for n in range(most))).encode()
    assert len(ServicesManifest.parse(full).entries) == most
    assert refusal(full + bytes(65537 - len(full))) == (65536, "65537 bytes, at most 65536")
