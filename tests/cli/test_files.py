"""What the user names is read within bounds, and called by its name in every error."""

import io
import sys
from pathlib import Path

import pytest

from app.cli.failure import InputError
from app.cli.files import read_64_bytes, read_file
from app.errors import NonceError

RAW = bytes(range(64))


def test_a_file_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_bytes(RAW)
    assert read_file(file, 64) == RAW
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(RAW)))
    assert read_file(Path("-"), 64) == RAW


def test_more_than_the_bound_is_refused_without_reading_on(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(RAW)
    with pytest.raises(InputError, match="more than 63 bytes") as error:
        read_file(file, 63)
    assert error.value.place == str(file)
    with pytest.raises(InputError, match="more than 10 bytes"):
        read_file(Path("/dev/zero"), 10)


@pytest.mark.parametrize("name", ["missing", ".", "nul\0byte", "long" * 2000])
def test_what_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_file(tmp_path / name, 10)


def test_64_bytes_by_digits_or_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "nonce"
    file.write_bytes(RAW)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(RAW)))
    for text in (RAW.hex(), RAW.hex().upper(), str(file), "-"):
        assert read_64_bytes(text, "--nonce") == RAW


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ab" * 63, "has 126 hexadecimal digits, want exactly 128"),
        ("ab" * 65, "has 130 hexadecimal digits"),
        ("zz" * 64, "neither 128 hexadecimal digits nor a file"),
        ("", "neither"),
        ("no\0file", "neither"),
    ],
)
def test_anything_else_is_no_nonce(text: str, reason: str) -> None:
    with pytest.raises((NonceError, InputError), match=reason or None):
        read_64_bytes(text or "nowhere", "--nonce")


@pytest.mark.parametrize("size", [0, 32, 63, 65, 128])
def test_a_file_of_another_size_is_never_padded_cut_or_hashed(size: int, tmp_path: Path) -> None:
    file = tmp_path / "nonce"
    file.write_bytes(b"\xff" * size)
    with pytest.raises(NonceError, match=f"has {size} bytes, want exactly 64"):
        read_64_bytes(str(file), "--nonce")


def test_a_file_of_digits_gets_a_hint(tmp_path: Path) -> None:
    file = tmp_path / "nonce"
    file.write_text(RAW.hex() + "\n")
    with pytest.raises(NonceError, match="digits as text"):
        read_64_bytes(str(file), "--nonce")
