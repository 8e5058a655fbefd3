"""Standard base64 with padding, read strictly: one text for one byte string."""

import base64
import binascii


def decode(text: str) -> bytes:
    """The bytes of canonical, padded, standard-alphabet base64.

    Raises:
        ValueError: a foreign character, missing padding, or bits that are not zero at the end.
    """
    try:
        raw = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except UnicodeEncodeError as error:
        raise ValueError("not standard base64: a character outside ASCII") from error
    except binascii.Error as error:
        raise ValueError(f"not standard base64: {error}") from error
    if encode(raw) != text:
        raise ValueError("not canonical base64")
    return raw


def encode(raw: bytes) -> str:
    """Standard base64 with padding."""
    return base64.b64encode(raw).decode("ascii")
