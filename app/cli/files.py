"""Reading what the user names: files, standard input, hexadecimal digits; always within a bound."""

import re
import sys
from contextlib import nullcontext
from pathlib import Path

from app.cli.failure import InputError
from app.errors import NonceError
from app.wire.binding import NONCE_SIZE

STDIN = "-"
_HEX = re.compile(r"[0-9a-fA-F]+")


def display_name(path: Path) -> str:
    """What messages call a file."""
    return "standard input" if str(path) == STDIN else str(path)


def read_file(path: Path, limit: int, *, larger: tuple[bytes, int] | None = None) -> bytes:
    """The whole content of a file, or of standard input for `-`.

    Args:
        path: the file.
        limit: the most bytes it may have.
        larger: how a kind begins that may have more, and how many.

    Raises:
        InputError: it cannot be read, or has too many bytes.
    """
    name = display_name(path)
    try:
        with nullcontext(sys.stdin.buffer) if str(path) == STDIN else path.open("rb") as file:
            raw = file.read(limit + 1)
            if larger is not None and len(raw) > limit and raw.startswith(larger[0]):
                limit = larger[1]
                raw += file.read(limit + 1 - len(raw))
    except OSError as error:
        remedy = "Name a file, or - for standard input." if isinstance(error, IsADirectoryError) else None
        raise InputError(name, f"cannot be read: {error.strerror or error}", remedy) from error
    except ValueError as error:  # a NUL in a file name
        raise InputError(name, f"cannot be read: {error}") from error
    if len(raw) > limit:
        raise InputError(name, f"more than {limit} bytes, which nothing of this kind has")
    return raw


def read_64_bytes(text: str, what: str) -> bytes:
    """64 bytes: 128 hexadecimal digits, or the name of a file of exactly 64 bytes (`-`: standard input).

    Args:
        text: what the user gave.
        what: what it is for, such as `--nonce`.

    Raises:
        NonceError: neither of them.
        InputError: the file cannot be read.
    """
    digits = 2 * NONCE_SIZE
    if len(text) == digits and _HEX.fullmatch(text):
        return bytes.fromhex(text)
    path = Path(text)
    if text != STDIN and not _exists(path):
        if _HEX.fullmatch(text):
            raise NonceError(f"{what} has {len(text)} hexadecimal digits, want exactly {digits} (or a file)")
        raise NonceError(f"{what} {text!r} is neither {digits} hexadecimal digits nor a file")
    raw = read_file(path, 16 * NONCE_SIZE)
    if len(raw) == NONCE_SIZE:
        return raw
    hint = ""
    if _HEX.fullmatch(raw.decode("ascii", "replace").strip()):
        hint = '; it holds digits as text: give them as they are, "$(cat FILE)"'
    raise NonceError(f"{what}: {display_name(path)} has {len(raw)} bytes, want exactly {NONCE_SIZE}{hint}")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for a file name, or with a NUL
        return False
