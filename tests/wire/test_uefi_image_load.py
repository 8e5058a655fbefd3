import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import WireError
from app.wire.uefi_image_load import ImageLoad

PCI = bytes.fromhex("010106000004")
FILE = bytes.fromhex("04041e00") + "\\EFI\\BOOT.EFI".encode("utf-16-le")
END = bytes.fromhex("7fff0400")


def event(path: bytes, *, size: int | None = None) -> bytes:
    return struct.pack("<QQQQ", 0x7E000000, 0x1000, 0, len(path) if size is None else size) + path


def test_an_image_and_its_path() -> None:
    raw = event(PCI + FILE + END)
    load = ImageLoad.parse(raw)
    assert (load.address, load.length, load.link_time_address) == (0x7E000000, 0x1000, 0)
    assert load.path() == r"1.1/\EFI\BOOT.EFI"
    assert load.encode() == raw


def test_an_image_without_a_path() -> None:
    assert ImageLoad.parse(event(b"")).path() == ""
    assert ImageLoad.parse(event(END)).path() == ""


@pytest.mark.parametrize(
    ("raw", "offset", "reason"),
    [
        (b"", 0, "address needs"),
        (event(b"", size=1), 32, "device path needs 1"),
        (event(b"") + b"\0", 32, "1 bytes follow"),
    ],
)
def test_what_is_refused_and_where(raw: bytes, offset: int, reason: str) -> None:
    with pytest.raises(WireError, match=reason) as caught:
        ImageLoad.parse(raw)
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    ("path", "offset", "reason"),
    [
        (PCI, 6, "no end"),
        (PCI + b"\1", 7, "subtype"),
        (bytes.fromhex("01010300"), 2, "a node of 3 bytes"),
        (bytes.fromhex("01010500"), 4, "node needs 1"),
        (PCI + END + PCI, 10, "6 bytes follow"),
    ],
)
def test_a_path_that_is_none(path: bytes, offset: int, reason: str) -> None:
    load = ImageLoad.parse(event(path))
    with pytest.raises(WireError, match=reason) as caught:
        load.path()
    assert (caught.value.structure, caught.value.offset) == ("device path", offset)


@given(st.binary(max_size=80))
def test_arbitrary_bytes_raise_only_wire_error(raw: bytes) -> None:
    for attempt in (raw, event(raw)):
        with contextlib.suppress(WireError):
            load = ImageLoad.parse(attempt)
            assert load.encode() == attempt
            load.path()
