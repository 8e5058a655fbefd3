import contextlib
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import WireError
from app.wire.uefi_variable import GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE, UefiVariable

# As a firmware log has it: GUID in mixed order, lengths in characters and in bytes.
SECURE_BOOT = (
    bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c" + "0a00000000000000" + "0100000000000000")
    + "SecureBoot".encode("utf-16-le")
    + b"\1"
)


def test_the_variable_of_secure_boot() -> None:
    variable = UefiVariable.parse(SECURE_BOOT)
    assert variable == UefiVariable(GLOBAL_VARIABLE, "SecureBoot", b"\1")
    assert variable.key == (GLOBAL_VARIABLE, "SecureBoot")
    assert variable.encode() == SECURE_BOOT


def test_the_vendor_of_the_databases() -> None:
    raw = bytes.fromhex("cbb219d73a3d9645a3bcdad00e67656f" + "02" + "00" * 15) + b"d\0b\0"
    assert UefiVariable.parse(raw) == UefiVariable(IMAGE_SECURITY_DATABASE, "db", b"")


@pytest.mark.parametrize(
    ("raw", "offset", "reason"),
    [
        (b"", 0, "vendor GUID"),
        (SECURE_BOOT[:20], 16, "length of the name"),
        (SECURE_BOOT[:50], 32, "name needs 20 bytes"),
        (SECURE_BOOT[:-1], 52, "data needs 1"),
        (SECURE_BOOT + b"\0", 53, "1 bytes follow"),
        (SECURE_BOOT[:16] + b"\xff" * 8 + SECURE_BOOT[24:], 32, "name needs"),
        (SECURE_BOOT[:32] + b"\0\xd8" + SECURE_BOOT[34:], 32, "not UTF-16"),
    ],
)
def test_what_is_refused_and_where(raw: bytes, offset: int, reason: str) -> None:
    with pytest.raises(WireError, match=reason) as caught:
        UefiVariable.parse(raw)
    assert (caught.value.structure, caught.value.offset) == ("UEFI_VARIABLE_DATA", offset)


def test_a_name_that_cannot_be_written() -> None:
    with pytest.raises(WireError, match="not UTF-16"):
        UefiVariable(GLOBAL_VARIABLE, "\ud800", b"").encode()


@given(st.uuids(), st.text(max_size=20), st.binary(max_size=40))
def test_encode_then_parse_is_identity(vendor: UUID, name: str, data: bytes) -> None:
    variable = UefiVariable(vendor, name, data)
    assert UefiVariable.parse(variable.encode()) == variable


@given(st.binary(max_size=80))
def test_arbitrary_bytes_raise_only_wire_error(raw: bytes) -> None:
    with contextlib.suppress(WireError):
        assert UefiVariable.parse(raw).encode() == raw
