"""UEFI structures, as far as firmware and boot loaders measure them.

Sources: UEFI Specification (EFI_SIGNATURE_LIST, EFI_LOAD_OPTION, EFI_DEVICE_PATH_PROTOCOL, GPT); TCG PC
Client Platform Firmware Profile (UEFI_IMAGE_LOAD_EVENT, UEFI_GPT_DATA). All
integers are little-endian.
"""

import struct
import zlib
from uuid import UUID

SHIM_LOCK = UUID("605dab50-e046-4300-abb6-3dd810dd8b23")
CERT_X509 = UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
CERT_SHA256 = UUID("c1c41626-504c-4092-aca9-41f936934328")

_LOAD_OPTION_ACTIVE = 1
_MEDIA, _FILE_PATH, _END, _END_ENTIRE = 4, 4, 0x7F, 0xFF
_GPT_REVISION = 0x00010000
_GPT_HEADER_SIZE = 92
_GPT_ENTRY_SIZE = 128
_GPT_ENTRIES = 128


def text(value: str) -> bytes:
    """A CHAR16 string with its terminating zero."""
    return value.encode("utf-16-le") + b"\0\0"


def signature_data(owner: UUID, data: bytes) -> bytes:
    """EFI_SIGNATURE_DATA: who enrolled a certificate or digest, and the same."""
    return owner.bytes_le + data


def signature_list(kind: UUID, owner: UUID, data: bytes) -> bytes:
    """EFI_SIGNATURE_LIST with one certificate or digest."""
    signature = signature_data(owner, data)
    size = 28 + len(signature)
    return kind.bytes_le + struct.pack("<III", size, 0, len(signature)) + signature


def file_path(path: str) -> bytes:
    """A device path of one file on the boot partition."""
    name = text(path)
    return (
        struct.pack("<BBH", _MEDIA, _FILE_PATH, 4 + len(name))
        + name
        + struct.pack("<BBH", _END, _END_ENTIRE, 4)
    )


def load_option(description: str, path: str) -> bytes:
    """EFI_LOAD_OPTION: the value of a Boot#### variable."""
    device_path = file_path(path)
    return struct.pack("<IH", _LOAD_OPTION_ACTIVE, len(device_path)) + text(description) + device_path


def image_load_event(path: str, address: int, size: int) -> bytes:
    """UEFI_IMAGE_LOAD_EVENT: where a program was loaded to, and from which file."""
    device_path = file_path(path)
    return struct.pack("<QQQQ", address, size, 0, len(device_path)) + device_path


def firmware_blob(address: int, size: int) -> bytes:
    """UEFI_PLATFORM_FIRMWARE_BLOB: where a firmware volume lies."""
    return struct.pack("<QQ", address, size)


def gpt_data(disk: UUID, partition_type: UUID, partition: UUID, sectors: int) -> bytes:
    """UEFI_GPT_DATA: the header of a disk with one partition, which fills it, and that partition."""
    entry = partition_type.bytes_le + partition.bytes_le + struct.pack("<QQQ", 2048, sectors - 34, 0)
    entry = entry.ljust(_GPT_ENTRY_SIZE, b"\0")
    table = entry.ljust(_GPT_ENTRIES * _GPT_ENTRY_SIZE, b"\0")
    header = struct.pack(
        "<8sIIIIQQQQ16sQIII",
        b"EFI PART",
        _GPT_REVISION,
        _GPT_HEADER_SIZE,
        0,  # its own checksum
        0,
        1,
        sectors - 1,
        34,
        sectors - 34,
        disk.bytes_le,
        2,
        _GPT_ENTRIES,
        _GPT_ENTRY_SIZE,
        zlib.crc32(table),
    )
    header = header[:16] + struct.pack("<I", zlib.crc32(header)) + header[20:]
    return header + struct.pack("<Q", 1) + entry
