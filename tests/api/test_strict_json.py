import contextlib
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.strict_json import MAX_DEPTH, MAX_VALUES, loads

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(JSON, st.booleans())
def test_what_json_writes_is_read(value: object, ascii_only: bool) -> None:  # noqa: FBT001
    assert loads(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=64))
def test_arbitrary_bytes_raise_nothing_but_a_value_error(raw: bytes) -> None:
    try:
        value = loads(raw)
    except ValueError:
        return
    assert value == json.loads(raw)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8 at byte 7"),  # a surrogate, encoded
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b"{", "not JSON: .* line 1, column 2"),
        (b"{} {}", "not JSON: Extra data"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1,}', "not JSON"),
        (b'"\x01"', "not JSON: Invalid control character"),
        (b"01", "not JSON"),
        (b"+1", "not JSON"),
        (b"NaN", "NaN is not JSON"),
        (b'{"a": Infinity}', "Infinity is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"1e999", "too large"),
        (b"-1e999", "too large"),
        (b"1" * 21, "too large"),
        (b"9" * 100_000, "too large"),
        (b'{"a": 1, "a": 1}', "two members of the same name"),
        (b'{"a": {"b": 1, "b": 2}}', "two members of the same name"),
        (b'{"a": 1, "\\u0061": 2}', "two members of the same name"),
        (b'"\\ud800"', "half of a surrogate pair"),
        (b'{"\\udfff": 1}', "half of a surrogate pair"),
        (b"[" * 10_000, "nested deeper"),
        (b"[" * 1_000_000, "more than 65536 values"),
        # A string that never ends takes no longer to be refused than any other megabyte.
        (b"[" * 33 + b'"' + b'\\"' * 500_000, "nested deeper"),
        (b"[]," * 33 + b'"' + b'\\"' * 500_000, "not JSON"),
        (b"[]," * 33 + b'"' + b"\\" * 999_999, "not JSON"),
        (b"[]," * 33 + b'"\\\n' * 300_000, "not JSON"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "nested deeper"),
        (b"[" + b"0," * MAX_VALUES + b"0]", "more than 65536 values"),
        (b"[" + b"{}," * MAX_VALUES + b"0]", "more than 65536 values"),
    ],
)
def test_what_has_no_one_meaning_is_refused(raw: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        loads(raw)
    assert type(caught.value) is ValueError
    assert len(str(caught.value)) < 100


def test_a_whole_pair_is_a_character() -> None:
    assert loads(b'"\\ud83d\\ude00"') == "\N{GRINNING FACE}"


def test_depth_counts_brackets_outside_strings_only() -> None:
    assert loads(json.dumps(["[" * 100] * 5).encode()) == ["[" * 100] * 5
    assert loads(json.dumps(['\\"[[[' * 20, "{"] * 5).encode())
    at_most = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    loads(at_most)
    loads(b"[" + b"[]," * 40 + b"[]]")
    with pytest.raises(ValueError, match="nested"):
        loads(b"[" + at_most + b"]")


@pytest.mark.parametrize(
    "raw",
    [
        b"[" + b"[]," * 30_000 + b"[]]",
        b"{" + b",".join(b'"%d":1' % number for number in range(30_000)) + b"}",
        b'["' + b"\\\\" * 500_000 + b'"]',
        b'["' + b'\\"' * 500_000,
        b'{"' * 500_000,
    ],
    ids=["lists", "members", "backslashes", "quotes", "braces"],
)
def test_a_mebibyte_of_anything_is_read_or_refused_quickly(raw: bytes) -> None:
    started = time.process_time()
    with contextlib.suppress(ValueError):
        loads(raw)
    assert time.process_time() - started < 0.5
