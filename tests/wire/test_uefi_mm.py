import pytest

from app.errors import UnsupportedVersionError, WireError
from app.wire.uefi_mm import UefiMmManifest


@pytest.mark.parametrize(
    ("raw", "persistent", "secure_boot", "updatable"),
    [
        ("0000000000000000", False, False, False),
        ("0000000001000000", True, False, False),
        ("0000000002000000", False, True, False),
        ("0000000004000000", False, False, True),
        ("00000000f8ffffff", False, False, False),  # bits without a name are kept
    ],
)
def test_flags(raw: str, *, persistent: bool, secure_boot: bool, updatable: bool) -> None:
    manifest = UefiMmManifest.parse(bytes.fromhex(raw))
    assert (manifest.persistent, manifest.secure_boot, manifest.updatable) == (
        persistent,
        secure_boot,
        updatable,
    )
    assert manifest.encode().hex() == raw


@pytest.mark.parametrize("size", [0, 4, 7, 9, 16])
def test_exactly_eight_bytes(size: int) -> None:
    with pytest.raises(WireError, match=f"{size} bytes, want 8") as caught:
        UefiMmManifest.parse(bytes(size))
    assert (caught.value.structure, caught.value.offset) == ("UEFI MM manifest", min(size, 8))


@pytest.mark.parametrize(("raw", "version"), [("0100000000000000", 1), ("0000000100000000", 1 << 24)])
def test_an_unknown_version_is_its_own_error(raw: str, version: int) -> None:
    with pytest.raises(UnsupportedVersionError) as caught:
        UefiMmManifest.parse(bytes.fromhex(raw))
    assert (caught.value.offset, caught.value.version, caught.value.supported) == (0, version, (0,))


@pytest.mark.parametrize("flags", [-1, 1 << 32])
def test_flags_have_32_bits(flags: int) -> None:
    with pytest.raises(WireError, match=r"^UEFI MM manifest at 0x4: flags do not fit 32 bits$"):
        UefiMmManifest(flags).encode()
