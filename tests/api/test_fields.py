import base64
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from app.api.fields import Base64, Nonce, NonceText, Report

ANY: TypeAdapter[bytes] = TypeAdapter(Base64)
NONCE: TypeAdapter[bytes] = TypeAdapter(Nonce)
TEXT: TypeAdapter[bytes] = TypeAdapter(NonceText)

BASE64_TEXT = st.text(st.sampled_from("ABQZagz059+/=-_ \n"), max_size=12)


def accepts(adapter: TypeAdapter[bytes], value: object) -> bool:
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True


def pattern(adapter: TypeAdapter[Any]) -> str:
    found: str = adapter.json_schema()["pattern"]
    return found


@given(st.binary(max_size=100))
def test_every_byte_string_has_one_text(raw: bytes) -> None:
    text = base64.b64encode(raw).decode()
    assert ANY.validate_python(text) == raw
    assert ANY.dump_python(raw, mode="json") == text
    assert re.fullmatch(pattern(ANY), text)


@given(BASE64_TEXT)
def test_the_schema_accepts_exactly_what_the_field_accepts(text: str) -> None:
    assert bool(re.fullmatch(pattern(ANY), text)) == accepts(ANY, text)


@pytest.mark.parametrize(
    "text",
    [
        "QQ",  # no padding
        "QR==",  # bits after the end
        "QUJ=",  # the same with two bytes
        "QUJD\n",
        " QUJD",
        "QU-_",  # the URL alphabet
        "A!A@AA",
        "QQ==QQ==",
        "=",
        "\uff31\uff31==",
        "QUJD=",
    ],
)
def test_other_spellings_are_refused(text: str) -> None:
    assert not accepts(ANY, text)


@pytest.mark.parametrize("value", [None, 1, 1.5, True, [], {}, ["QQ=="]])
def test_other_types_are_refused(value: object) -> None:
    assert not accepts(ANY, value)


@pytest.mark.parametrize("size", [0, 1, 32, 63, 65, 128])
def test_a_nonce_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ValidationError, match=f"{size} bytes, want exactly 64"):
        NONCE.validate_python(base64.b64encode(bytes(size)).decode())


@given(st.binary(min_size=64, max_size=64))
def test_64_bytes_fit_the_schema_of_a_nonce(raw: bytes) -> None:
    text = base64.b64encode(raw).decode()
    assert NONCE.validate_python(text) == raw
    assert re.fullmatch(pattern(NONCE), text)


def test_66_bytes_have_as_many_characters_but_are_no_nonce() -> None:
    text = base64.b64encode(bytes(66)).decode()
    assert len(text) == 88
    assert not re.fullmatch(pattern(NONCE), text)
    assert not accepts(NONCE, text)


def test_the_schema_of_a_report_has_its_size() -> None:
    report: TypeAdapter[bytes] = TypeAdapter(Report)
    for size, fits in ((1183, False), (1184, True), (1185, False)):
        text = base64.b64encode(b"\xa5" * size).decode()
        assert bool(re.fullmatch(pattern(report), text)) == fits


@given(st.binary(min_size=64, max_size=64))
def test_a_nonce_in_a_url_has_five_spellings(raw: bytes) -> None:
    padded = base64.urlsafe_b64encode(raw).decode()
    for text in (raw.hex(), raw.hex().upper(), padded, padded.rstrip("=")):
        assert TEXT.validate_python(text) == raw
        assert re.fullmatch(pattern(TEXT), text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "0 characters: want 64 bytes"),
        ("00" * 63, "126 characters"),
        ("0" * 127, "127 characters"),
        ("g" * 128, "128 characters"),
        ("A" * 87, "87 characters"),
        ("A" * 84 + "+/", "and _ in place of"),
        ("A" * 86 + "A=", "not base64url"),
        ("A" * 85 + "B", "not canonical"),
        ("A" * 85 + "B==", "not canonical"),
        ("\uff21" * 86, "not base64url"),
        ("é" * 128, "128 characters"),
    ],
)
def test_what_is_no_nonce_is_told_why(text: str, why: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(why)):
        TEXT.validate_python(text)
    assert not re.fullmatch(pattern(TEXT), text)


def test_a_nonce_in_a_url_is_text() -> None:
    assert not accepts(TEXT, 5)
