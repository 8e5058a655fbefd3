"""Valid inputs to start from for what firmware says of a boot."""

import hashlib
import struct
from collections.abc import Iterator
from uuid import UUID

from tests.wire.igvm.files import igvm, like_coconut, small

_GLOBAL = UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
_SPEC_ID = b"Spec ID Event03\0" + struct.pack("<IBBBBI4HB", 0, 0, 2, 0, 2, 2, 0x000B, 32, 0x000C, 48, 0)
SECURE_BOOT = _GLOBAL.bytes_le + struct.pack("<QQ", 10, 1) + "SecureBoot".encode("utf-16-le") + b"\1"
DEVICE_PATH = bytes.fromhex("02010c00d041030a00000000 0404 0800 5c005800 7fff0400")
IMAGE_LOAD = struct.pack("<QQQQ", 0x7E000000, 0x1000, 0, len(DEVICE_PATH)) + DEVICE_PATH


def boot_seeds() -> Iterator[tuple[str, bytes]]:
    """(target, input) for every target about a boot."""
    yield "uefi-variable", SECURE_BOOT
    yield "uefi-image-load", IMAGE_LOAD
    head = struct.pack("<II20sI", 0, 3, b"", len(_SPEC_ID)) + _SPEC_ID
    events = (
        _event(0, 3, b"StartupLocality\0\3")
        + _event(0, 3, b"SP800-155 Event\0" + bytes(16))
        + _event(7, 0x80000001, SECURE_BOOT)
        + _event(4, 0x80000003, IMAGE_LOAD)
        + _event(7, 4, bytes(4))
    )
    for padding in (b"", bytes(64), b"\xff" * 64):
        yield "event-log", head + events + padding
    yield "igvm", igvm(*small())
    yield "igvm", igvm(*like_coconut(), version=2)


def _event(pcr: int, kind: int, data: bytes) -> bytes:
    digests = (b"\x0b\0", hashlib.sha256(data).digest(), b"\x0c\0", hashlib.sha384(data).digest())
    return struct.pack("<III", pcr, kind, 2) + b"".join(digests) + struct.pack("<I", len(data)) + data
