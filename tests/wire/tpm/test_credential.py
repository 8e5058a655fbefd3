import pytest

from app.errors import WireError
from app.wire.tpm.credential import CredentialBlob, IdObject
from tests.wire.samples import sized
from tests.wire.tpm.statements import ID_OBJECT, POINT, TOOLS_HEAD

RSA_SECRET = bytes(range(256))
BLOB = CredentialBlob(IdObject(ID_OBJECT[2:34], ID_OBJECT[34:]), RSA_SECRET)


def refusal(id_object: bytes, secret: bytes) -> tuple[str, int, str]:
    with pytest.raises(WireError) as caught:
        CredentialBlob.parse(id_object, secret)
    return caught.value.structure, caught.value.offset, caught.value.reason


@pytest.mark.parametrize("secret", [RSA_SECRET, bytes(384), POINT, sized(b"\1") + sized(bytes(48))])
def test_both_forms(secret: bytes) -> None:
    blob = CredentialBlob.parse(sized(ID_OBJECT), sized(secret))
    assert blob == CredentialBlob(BLOB.id_object, secret)
    assert blob.to_tpm2bs() == (sized(ID_OBJECT), sized(secret))
    file = TOOLS_HEAD + sized(ID_OBJECT) + sized(secret)
    assert blob.to_tools_file() == file
    assert CredentialBlob.from_tools_file(file) == blob


def test_the_size_of_a_tools_file() -> None:
    assert len(BLOB.to_tools_file()) == 336


@pytest.mark.parametrize("size", [32, 48, 64])
def test_a_secret_has_at_most_the_size_of_the_hash(size: int) -> None:
    def id_object(held: int) -> bytes:
        return sized(sized(bytes(size)) + bytes(held))

    for held in (3, size + 2):
        assert CredentialBlob.parse(id_object(held), sized(POINT)).to_tpm2bs()[0] == id_object(held)
    for held in (0, 1, 2, size + 3):
        reason = f"encIdentity has {held} bytes, want 3 to {size + 2}"
        assert refusal(id_object(held), sized(POINT)) == ("TPM2B_ID_OBJECT", 4 + size, reason)


ID_FAULTS = [
    (b"", 0, "TPMS_ID_OBJECT size needs 2 bytes, 0 left"),
    (b"\xff\xff", 2, "TPMS_ID_OBJECT needs 65535 bytes, 0 left"),
    (sized(b""), 2, "integrityHMAC size needs 2 bytes, 0 left"),
    (sized(sized(bytes(20)) + bytes(22)), 4, "integrityHMAC has 20 bytes, want 32, 48 or 64"),
    (sized(b"\xff\xff"), 4, "integrityHMAC needs 65535 bytes, 0 left"),
    (sized(ID_OBJECT) + b"\0", 70, "1 bytes follow the end of the structure"),
    (ID_OBJECT, 4, "integrityHMAC needs 64067 bytes, 30 left"),  # bare: its first field read as its size
]


@pytest.mark.parametrize(("raw", "offset", "reason"), ID_FAULTS)
def test_id_object_rules(raw: bytes, offset: int, reason: str) -> None:
    assert refusal(raw, sized(RSA_SECRET)) == ("TPM2B_ID_OBJECT", offset, reason)


SECRET_FAULTS = [
    (b"", 0, "secret size needs 2 bytes, 0 left"),
    (sized(b""), 2, "x size needs 2 bytes, 0 left"),
    (sized(bytes(255)), 2, "secret has 255 bytes, want 256, 384 or a point"),
    (sized(bytes(65535)), 2, "secret has 65535 bytes, want 256, 384 or a point"),
    (sized(RSA_SECRET)[:-1], 2, "secret needs 256 bytes, 255 left"),
    (sized(RSA_SECRET) + b"\0", 258, "1 bytes follow the end of the structure"),
    (sized(sized(b"") + sized(b"\1")), 4, "x has 0 bytes, want 1 to 48"),
    (sized(sized(b"\1") + sized(b"")), 7, "y has 0 bytes, want 1 to 48"),
    (sized(sized(bytes(49)) + sized(b"\1")), 4, "x has 49 bytes, want 1 to 48"),
    (sized(sized(b"\1")), 5, "y size needs 2 bytes, 0 left"),
    (sized(POINT + b"\0"), 70, "1 bytes follow the end of the structure"),
]


@pytest.mark.parametrize(("raw", "offset", "reason"), SECRET_FAULTS, ids=lambda value: str(value)[:24])
def test_secret_rules(raw: bytes, offset: int, reason: str) -> None:
    assert refusal(sized(ID_OBJECT), raw) == ("TPM2B_ENCRYPTED_SECRET", offset, reason)


FILE = BLOB.to_tools_file()


@pytest.mark.parametrize(
    ("raw", "offset", "reason"),
    [
        (b"\0\0\0\0" + FILE[4:], 0, "magic 0x00000000 is not 0xbadcc0de"),
        (FILE[:4] + b"\0\0\0\2" + FILE[8:], 4, "version 2 is not 1"),
        (FILE + b"\0", 336, "1 bytes follow the end of the structure"),
        (FILE[8:], 0, "magic 0x00440020 is not 0xbadcc0de"),
        (TOOLS_HEAD + sized(ID_OBJECT) + sized(bytes(100)), 82, "x has 0 bytes, want 1 to 48"),
    ],
)
def test_file_rules(raw: bytes, offset: int, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        CredentialBlob.from_tools_file(raw)
    assert (caught.value.structure, caught.value.offset, caught.value.reason) == (
        "credential file",
        offset,
        reason,
    )


@pytest.mark.parametrize("secret", [RSA_SECRET, POINT])
def test_every_truncation_is_refused(secret: bytes) -> None:
    id_object, encrypted = sized(ID_OBJECT), sized(secret)
    for size in range(len(id_object)):
        assert refusal(id_object[:size], encrypted)[1] <= size
    for size in range(len(encrypted)):
        assert refusal(id_object, encrypted[:size])[1] <= size
    file = TOOLS_HEAD + id_object + encrypted
    for size in range(len(file)):
        with pytest.raises(WireError) as caught:
            CredentialBlob.from_tools_file(file[:size])
        assert caught.value.offset <= size
