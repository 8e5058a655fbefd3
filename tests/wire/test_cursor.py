import pytest

from app.errors import WireError
from app.wire.cursor import Cursor


def test_reads_both_byte_orders_and_counts() -> None:
    cursor = Cursor("thing", bytes.fromhex("0102 0304 05"))
    assert cursor.integer(2, "little") == 0x0201
    assert cursor.integer(2, "big", big_endian=True) == 0x0304
    assert (cursor.offset, cursor.remaining) == (4, 1)
    assert cursor.take(1, "rest") == b"\x05"
    cursor.end()


def test_never_reads_past_the_end() -> None:
    cursor = Cursor("thing", b"abc")
    cursor.take(2, "head")
    with pytest.raises(WireError, match=r"^thing at 0x2: tail needs 2 bytes, 1 left$") as caught:
        cursor.take(2, "tail")
    assert (caught.value.structure, caught.value.offset) == ("thing", 2)
    assert cursor.take(1, "tail") == b"c"  # a refused read consumes nothing


def test_offsets_count_in_the_enclosing_blob() -> None:
    cursor = Cursor("inner", b"abcd", base=0x100)
    cursor.take(3, "head")
    assert cursor.offset == 0x103
    assert cursor.fail("wrong", back=2).offset == 0x101
    with pytest.raises(WireError, match=r"^inner at 0x103: 1 bytes follow the end of the structure$"):
        cursor.end()


def test_zeros_names_the_first_byte_that_is_not() -> None:
    cursor = Cursor("thing", b"\0\0\0\7\7")
    cursor.zeros(2, "reserved byte")
    with pytest.raises(WireError, match=r"^thing at 0x3: reserved byte must be zero$"):
        cursor.zeros(3, "reserved byte")
