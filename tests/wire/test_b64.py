import base64

import pytest

from app.wire import b64


@pytest.mark.parametrize(
    ("raw", "text"),
    # RFC 4648 section 10
    [(b"", ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (b"foobar", "Zm9vYmFy")],
)
def test_vectors_of_the_rfc(raw: bytes, text: str) -> None:
    assert b64.encode(raw) == text
    assert b64.decode(text) == raw


def test_the_two_characters_that_tell_the_alphabets_apart() -> None:
    assert b64.encode(b"\xfb\xff") == "+/8="
    assert b64.decode("+/8=") == b"\xfb\xff"


@pytest.mark.parametrize(
    "text",
    [
        "-_8=",  # the URL alphabet
        "Zg",  # no padding
        "Zg=",
        "Zg===",
        "Zh==",  # bits after the last byte are not zero: a second text for the same byte
        "Zm9=",
        "Zm 9v",
        "Zm9v\n",
        "\nZm9v",
        "A!A@AA==",
        "Zg==Zg==",
        "=",
        "====",
        "Z",
        "Zm9vé",
        "Zm9v\ud800",
        "\0\0\0\0",
    ],
)
def test_one_text_for_one_byte_string(text: str) -> None:
    with pytest.raises(ValueError, match="base64"):
        b64.decode(text)


def test_the_standard_decoder_takes_what_ours_refuses() -> None:
    assert base64.b64decode("A!A@AA==") == b"\0\0\0"
    assert base64.b64decode("Zh==") == b"f"
