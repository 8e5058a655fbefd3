import struct
from uuid import UUID

import pytest

from app.errors import UnsupportedVersionError, WireError
from app.wire import guid
from app.wire.manifest import (
    KIND_NAMES,
    EkManifest,
    KeyListManifest,
    Manifest,
    parse_manifest,
    uefi_mm_manifest,
    vtpm_manifest,
)
from app.wire.services_manifest import ServiceEntry, ServicesManifest
from app.wire.tpm.public import TpmtPublic
from app.wire.uefi_mm import UefiMmManifest
from tests.wire.samples import COUNTING_EK, SWTPM_EK, p256_ek, patched, signing_key, sized

UEFI_MM = bytes.fromhex("0000000002000000")
AK = signing_key()
KEY_LIST = struct.pack(">II", 1, 2) + sized(SWTPM_EK) + sized(AK)


def services(*entries: tuple[UUID, bytes]) -> bytes:
    return ServicesManifest(tuple(ServiceEntry(name, data) for name, data in entries)).encode()


VTPM, MM = guid.SERVICE_VTPM, guid.SERVICE_UEFI_MM
EK = EkManifest(TpmtPublic.parse(SWTPM_EK))
KEYS = KeyListManifest((TpmtPublic.parse(SWTPM_EK), TpmtPublic.parse(AK)))
SECURE_BOOT = UefiMmManifest(2)

NO_COUNT = patched(services()[:20], (16, "14"))
THREE_KEYS = patched(KEY_LIST, (4, "00000003"))
BAD_SECOND_KEY = patched(KEY_LIST, (332, "80"))
SAME_KEY_AGAIN = struct.pack(">II", 1, 3) + sized(COUNTING_EK) + sized(AK) + sized(COUNTING_EK)


@pytest.mark.parametrize(
    ("raw", "kind", "vtpm", "uefi_mm"),
    [
        (SWTPM_EK, EkManifest, EK, None),
        (KEY_LIST, KeyListManifest, KEYS, None),
        (UEFI_MM, UefiMmManifest, None, SECURE_BOOT),
        (services(), ServicesManifest, None, None),
        (services((VTPM, SWTPM_EK)), ServicesManifest, EK, None),
        (services((VTPM, KEY_LIST)), ServicesManifest, KEYS, None),
        (services((MM, UEFI_MM)), ServicesManifest, None, SECURE_BOOT),
        (services((VTPM, SWTPM_EK), (MM, UEFI_MM)), ServicesManifest, EK, SECURE_BOOT),
        (services((VTPM, b""), (MM, b"")), ServicesManifest, None, None),  # listed without a manifest
        (services((guid.VCEK, b"what is this")), ServicesManifest, None, None),
    ],
)
def test_structure_alone_decides(
    raw: bytes,
    kind: type[Manifest],
    vtpm: EkManifest | KeyListManifest | None,
    uefi_mm: UefiMmManifest | None,
) -> None:
    manifest = parse_manifest(raw)
    assert type(manifest) is kind
    assert vtpm_manifest(manifest) == vtpm
    assert uefi_mm_manifest(manifest) == uefi_mm
    assert manifest.encode() == raw
    assert kind in KIND_NAMES


def test_the_largest_manifest() -> None:
    raw = services((guid.VCEK, bytes(65536 - 48)))
    assert len(raw) == 65536
    assert parse_manifest(raw).encode() == raw


def test_versions_and_keys() -> None:
    assert (EK.version, EK.ek.encode()) == (0, SWTPM_EK)
    assert (KEYS.version, [key.encode() for key in KEYS.keys]) == (1, [SWTPM_EK, AK])


@pytest.mark.parametrize(
    ("raw", "structure", "offset", "reason"),
    [
        (b"", "TPMT_PUBLIC", 0, "type needs 2 bytes, 0 left"),
        (b"\0", "TPMT_PUBLIC", 0, "type needs 2 bytes, 1 left"),
        (b"\0\0", "vTPM manifest", 0, "version needs 4 bytes, 2 left"),
        (sized(SWTPM_EK), "TPMT_PUBLIC", 0, "starts with its own size: this is a TPM2B_PUBLIC, want it bare"),
        (SWTPM_EK + b"\0", "TPMT_PUBLIC", 314, "1 bytes follow the end of the structure"),
        (UEFI_MM + b"\0", "vTPM manifest", 0, "version 0 has no header: it is one bare TPMT_PUBLIC"),
        (bytes(65537), "manifest", 65536, "65537 bytes, at most 65536"),
        (bytes.fromhex("bb9e8463"), "TPMT_PUBLIC", 0, "type 0xbb9e is neither RSA nor ECC"),
        (NO_COUNT, "services manifest", 20, "number of services needs 4 bytes, 0 left"),
        (services() + b"\0", "services manifest", 16, "says 24 bytes, is 25"),
        (services((VTPM, b"\1")), "TPMT_PUBLIC", 0, "type needs 2 bytes, 1 left"),
        (
            services((VTPM, UEFI_MM)),
            "vTPM manifest",
            0,
            "version 0 has no header: it is one bare TPMT_PUBLIC",
        ),
        (services((MM, b"\1")), "UEFI MM manifest", 1, "1 bytes, want 8"),
        (services((MM, SWTPM_EK)), "UEFI MM manifest", 8, "314 bytes, want 8"),
    ],
)
def test_what_is_no_manifest(raw: bytes, structure: str, offset: int, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        parse_manifest(raw)
    error = caught.value
    assert (error.structure, error.offset, error.reason) == (structure, offset, reason)


@pytest.mark.parametrize("version", [2, 3, 0xFFFF])
def test_an_unknown_version_of_the_key_list(version: int) -> None:
    with pytest.raises(UnsupportedVersionError) as caught:
        parse_manifest(patched(KEY_LIST, (0, struct.pack(">I", version))))
    error = caught.value
    assert (error.offset, error.version, error.supported) == (0, version, (0, 1))


def test_an_unknown_version_of_the_uefi_mm_manifest() -> None:
    with pytest.raises(UnsupportedVersionError) as caught:
        parse_manifest(bytes.fromhex("0300000000000000"))
    assert (caught.value.version, caught.value.supported) == (3, (0,))


@pytest.mark.parametrize("count", [0, 1, 65, 0xFFFFFFFF])
def test_number_of_keys(count: int) -> None:
    with pytest.raises(WireError, match=f"{count} keys, want 2 to 64") as caught:
        parse_manifest(patched(KEY_LIST, (4, struct.pack(">I", count))))
    assert caught.value.offset == 4


def test_64_keys() -> None:
    keys = [p256_ek(scalar) for scalar in range(1, 65)]
    raw = struct.pack(">II", 1, 64) + b"".join(sized(key) for key in keys)
    manifest = parse_manifest(raw)
    assert isinstance(manifest, KeyListManifest)
    assert [key.encode() for key in manifest.keys] == keys


@pytest.mark.parametrize(
    ("raw", "structure", "offset", "reason"),
    [
        (KEY_LIST + b"\0", "vTPM manifest", 414, "1 bytes follow the end of the structure"),
        (KEY_LIST[:-1], "vTPM manifest", 326, "TPMT_PUBLIC needs 88 bytes, 87 left"),
        (KEY_LIST[:324], "vTPM manifest", 324, "TPM2B_PUBLIC size needs 2 bytes, 0 left"),
        (THREE_KEYS, "vTPM manifest", 414, "TPM2B_PUBLIC size needs 2 bytes, 0 left"),
        (BAD_SECOND_KEY, "TPMT_PUBLIC", 330, "objectAttributes 0x00058072 has an undefined bit"),
        (SAME_KEY_AGAIN, "vTPM manifest", 414, "a key is listed twice"),
    ],
)
def test_key_list_rules(raw: bytes, structure: str, offset: int, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        parse_manifest(raw)
    error = caught.value
    assert (error.structure, error.offset, error.reason) == (structure, offset, reason)
