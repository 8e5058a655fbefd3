"""A manifest's kind, decided by its structure alone.

Neither the GUID nor the version that was asked for is bound by the report, so nothing but the
bytes may say what a manifest is.
Sources: SVSM specification 58019 section 8.3.3 (vTPM, version 0); the version 1 list of keys
as provider-internal SVSMs emit it; app.wire.services_manifest; app.wire.uefi_mm.
"""

from dataclasses import dataclass
from typing import Self

from app.errors import UnsupportedVersionError, WireError
from app.wire import guid, services_manifest, uefi_mm
from app.wire.cursor import Cursor
from app.wire.services_manifest import ServicesManifest
from app.wire.tpm.public import TpmtPublic
from app.wire.uefi_mm import UefiMmManifest

STRUCTURE = "manifest"
MAX_SIZE = services_manifest.MAX_SIZE
MAX_KEYS = 64
_MIN_KEYS = 2  # an EK and an AK; a single key is what version 0 is for
_KEY_LIST_VERSION = 1


@dataclass(frozen=True, slots=True)
class EkManifest:
    """vTPM manifest, version 0: exactly one bare TPMT_PUBLIC, the EK."""

    ek: TpmtPublic
    version = 0

    def encode(self) -> bytes:
        """The bare TPMT_PUBLIC."""
        return self.ek.encode()


@dataclass(frozen=True, slots=True)
class KeyListManifest:
    """vTPM manifest, version 1: several keys as TPM2B_PUBLIC, big-endian."""

    keys: tuple[TpmtPublic, ...]
    version = 1

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read u32 version 1, u32 count (2..64) and as many TPM2B_PUBLIC, which fill `raw`.

        Raises:
            WireError: another count, a malformed key, a key listed twice, or left-over bytes.
        """
        cursor = Cursor("vTPM manifest", raw)
        version = cursor.integer(4, "version", big_endian=True)
        if version == 0:
            raise cursor.fail("version 0 has no header: it is one bare TPMT_PUBLIC", back=4)
        if version != _KEY_LIST_VERSION:
            raise UnsupportedVersionError(cursor.structure, 0, version, (0, _KEY_LIST_VERSION))
        count = cursor.integer(4, "number of keys", big_endian=True)
        if not _MIN_KEYS <= count <= MAX_KEYS:
            raise cursor.fail(f"{count} keys, want {_MIN_KEYS} to {MAX_KEYS}", back=4)
        keys: list[TpmtPublic] = []
        for _ in range(count):
            place = cursor.offset
            key = TpmtPublic.read_tpm2b(cursor)
            if key in keys:
                raise WireError(cursor.structure, place, "a key is listed twice")
            keys.append(key)
        cursor.end()
        return cls(tuple(keys))

    def encode(self) -> bytes:
        """The manifest bytes."""
        head = _KEY_LIST_VERSION.to_bytes(4, "big") + len(self.keys).to_bytes(4, "big")
        return head + b"".join(key.to_tpm2b() for key in self.keys)


Manifest = EkManifest | KeyListManifest | ServicesManifest | UefiMmManifest

KIND_NAMES: dict[type[Manifest], str] = {
    EkManifest: "vTPM manifest version 0",
    KeyListManifest: "vTPM manifest version 1",
    ServicesManifest: "services manifest",
    UefiMmManifest: "UEFI MM manifest",
}


def parse_manifest(raw: bytes) -> Manifest:
    """Read a manifest of any kind (at most 65536 bytes).

    Raises:
        UnsupportedVersionError: a known kind in an unknown version.
        WireError: no known kind, or a malformed one; the error is that of the kind it resembles.
    """
    if len(raw) > MAX_SIZE:
        raise WireError(STRUCTURE, MAX_SIZE, f"{len(raw)} bytes, at most {MAX_SIZE}")
    if raw.startswith(services_manifest.MAGIC):
        manifest = ServicesManifest.parse(raw)
        vtpm_manifest(manifest)
        uefi_mm_manifest(manifest)
        return manifest
    if len(raw) == uefi_mm.SIZE:
        return UefiMmManifest.parse(raw)
    return _parse_vtpm(raw)


def vtpm_manifest(manifest: Manifest) -> EkManifest | KeyListManifest | None:
    """The vTPM's part of a manifest, or None where it has none (or lists the vTPM without data).

    Raises:
        WireError: the vTPM's data inside a services manifest is malformed.
    """
    if isinstance(manifest, ServicesManifest):
        data = manifest.get(guid.SERVICE_VTPM)
        return _parse_vtpm(data) if data else None
    return None if isinstance(manifest, UefiMmManifest) else manifest


def manifest_ek(manifest: Manifest) -> TpmtPublic | None:
    """The EK: the one key of a version 0 manifest, the first template key of a version 1 list; or None.

    Raises:
        WireError: as `vtpm_manifest`.
    """
    vtpm = vtpm_manifest(manifest)
    if isinstance(vtpm, KeyListManifest):
        return next((key for key in vtpm.keys if key.template), None)
    return vtpm.ek if vtpm else None


def uefi_mm_manifest(manifest: Manifest) -> UefiMmManifest | None:
    """The UEFI MM part of a manifest, or None where it has none.

    Raises:
        WireError: the UEFI MM data inside a services manifest is malformed.
    """
    if isinstance(manifest, ServicesManifest):
        data = manifest.get(guid.SERVICE_UEFI_MM)
        return UefiMmManifest.parse(data) if data else None
    return manifest if isinstance(manifest, UefiMmManifest) else None


def _parse_vtpm(raw: bytes) -> EkManifest | KeyListManifest:
    # A TPMT_PUBLIC starts with a non-zero u16, a list of keys with the high half of a small u32.
    if raw[:2] == b"\0\0":
        return KeyListManifest.parse(raw)
    return EkManifest(TpmtPublic.parse(raw))
