"""What TPM structures are made of: big-endian integers, sized byte strings, hash identifiers, Names.

Source: TCG TPM 2.0 Library, Part 2, 10.4 (TPM2B types) and 9.1 (TPMI_ALG_HASH); Part 1, 16 (Names).
"""

from app.wire.cursor import Cursor
from app.wire.tpm import algorithms as alg


def u16(cursor: Cursor, what: str) -> int:
    """Two bytes, big-endian."""
    return cursor.integer(2, what, big_endian=True)


def u32(cursor: Cursor, what: str) -> int:
    """Four bytes, big-endian."""
    return cursor.integer(4, what, big_endian=True)


def u64(cursor: Cursor, what: str) -> int:
    """Eight bytes, big-endian."""
    return cursor.integer(8, what, big_endian=True)


def tpm2b(cursor: Cursor, what: str) -> bytes:
    """A two-byte size and that many bytes; the caller bounds what the size may be."""
    return cursor.take(u16(cursor, f"{what} size"), what)


def hash_algorithm(cursor: Cursor, what: str) -> int:
    """The identifier of a hash that is trusted to be collision-resistant.

    Raises:
        WireError: SHA-1, by name; everything else that is not SHA-256, SHA-384 or SHA-512.
    """
    identifier = u16(cursor, what)
    if identifier == alg.SHA1:
        raise cursor.fail(f"{what} is SHA-1, which is not accepted", back=2)
    if identifier not in alg.HASH_SIZES:
        raise cursor.fail(f"{what} 0x{identifier:04x} is not SHA-256, SHA-384 or SHA-512", back=2)
    return identifier


def digest(cursor: Cursor, what: str) -> bytes:
    """A TPM2B_DIGEST of the size of a known hash: 32, 48 or 64 bytes.

    Raises:
        WireError: another size.
    """
    value = tpm2b(cursor, what)
    if len(value) not in alg.HASH_SIZES.values():
        raise cursor.fail(f"{what} has {len(value)} bytes, want 32, 48 or 64", back=len(value))
    return value


def name(cursor: Cursor, what: str) -> bytes:
    """A TPM2B_NAME of an object: a hash identifier and a digest of its size (34, 50 or 66 bytes).

    Raises:
        WireError: a handle or nothing in place of a Name, another hash, a digest of another size.
    """
    value = tpm2b(cursor, what)
    size = alg.HASH_SIZES.get(int.from_bytes(value[:2], "big"))
    if size is None or len(value) != 2 + size:
        raise cursor.fail(f"{what} is not the Name of an object", back=len(value))
    return value


def p16(*numbers: int) -> bytes:
    """Two bytes each, big-endian."""
    return b"".join(number.to_bytes(2, "big") for number in numbers)


def to_tpm2b(part: bytes) -> bytes:
    """The inverse of `tpm2b`."""
    return p16(len(part)) + part
