"""Fields of HTTP documents: strict base64, nonces, and the schemas that tell what they accept."""

import base64
import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

from app.wire import b64
from app.wire.binding import NONCE_SIZE
from app.wire.report import REPORT_SIZE

_ANY = "[A-Za-z0-9+/]"
_ENDS = {1: f"{_ANY}[AQgw]==", 2: f"{_ANY}{{2}}[AEIMQUYcgkosw048]="}  # canonical: no stray bits
_GROUPS = f"^(?:{_ANY}{{4}})*(?:{_ENDS[1]}|{_ENDS[2]})?$"
_HEX_DIGITS = 2 * NONCE_SIZE
_BASE64URL_LENGTHS = {86, 88}  # of 64 bytes, without padding and with it
NONCE_TEXT = r"^(?:[0-9A-Fa-f]{128}|[A-Za-z0-9_-]{85}[AQgw](?:==)?)$"


def _decode(value: object) -> object:
    """Bytes are left alone: they come from our own code."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError("want a string of standard base64")  # noqa: TRY004 (pydantic's contract)
    return b64.decode(value)


def _schema(size: int | None) -> WithJsonSchema:
    pattern = _GROUPS
    if size is not None:
        groups, rest = divmod(size, 3)
        pattern = f"^{_ANY}{{{4 * groups}}}{_ENDS.get(rest, '')}$"
    return WithJsonSchema({"type": "string", "contentEncoding": "base64", "pattern": pattern})


def _exactly(size: int) -> AfterValidator:
    def check(value: bytes) -> bytes:
        if len(value) != size:
            raise ValueError(f"{len(value)} bytes, want exactly {size}")
        return value

    return AfterValidator(check)


def at_most(size: int) -> tuple[AfterValidator, WithJsonSchema]:
    """Bounds a Base64 of up to `size` bytes: `Annotated[Base64, *at_most(1024)]`."""

    def check(value: bytes) -> bytes:
        if len(value) > size:
            raise ValueError(f"{len(value)} bytes, at most {size}")
        return value

    schema = {
        "type": "string",
        "contentEncoding": "base64",
        "pattern": _GROUPS,
        "maxLength": -(-size // 3) * 4,
    }
    return AfterValidator(check), WithJsonSchema(schema)


def _decode_nonce_text(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError("want text")  # noqa: TRY004 (pydantic's contract)
    if len(value) == _HEX_DIGITS and re.fullmatch(r"[0-9A-Fa-f]+", value):
        return bytes.fromhex(value)
    if len(value) not in _BASE64URL_LENGTHS:
        raise ValueError(
            f"{len(value)} characters: want {NONCE_SIZE} bytes as {_HEX_DIGITS} hexadecimal digits,"
            " or as base64url of 86 characters (88 with padding)"
        )
    if not re.fullmatch(r"[A-Za-z0-9_-]{86}(?:==)?", value):
        raise ValueError("not base64url (RFC 4648 section 5: - and _ in place of + and /)")
    raw = base64.urlsafe_b64decode(value[:86] + "==")
    if base64.urlsafe_b64encode(raw)[:86] != value[:86].encode():
        raise ValueError("not canonical base64url: bits at the end are not zero")
    return raw


_encode = PlainSerializer(b64.encode, return_type=str)

Base64 = Annotated[bytes, BeforeValidator(_decode), _encode, _schema(None)]
"""Bytes as standard base64 with padding; anything else is refused."""

Nonce = Annotated[bytes, BeforeValidator(_decode), _exactly(NONCE_SIZE), _encode, _schema(NONCE_SIZE)]
"""Exactly 64 bytes."""

Report = Annotated[bytes, BeforeValidator(_decode), _encode, _schema(REPORT_SIZE)]
"""An ATTESTATION_REPORT; its length is judged where it is parsed."""

NonceText = Annotated[
    bytes,
    BeforeValidator(_decode_nonce_text),
    WithJsonSchema({"type": "string", "pattern": NONCE_TEXT}),
]
"""Exactly 64 bytes in a URL: hexadecimal digits, or base64url with or without padding."""
