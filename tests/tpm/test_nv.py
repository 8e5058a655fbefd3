"""NV indexes of a software TPM, beside tpm2-tools, and of TPMs that answer oddly."""

import contextlib
import hashlib
import secrets
import struct
from pathlib import Path

import pytest

from app.errors import TpmUnavailableError
from app.tpm import handles, nv
from app.tpm.causes import TpmCause
from app.tpm.client import Tpm
from app.tpm.transport import SocketTransport
from app.wire.tpm import algorithms as alg
from tests.interop.software_tpm import software_tpm
from tests.tpm.live import LiveTpm, refuses
from tests.tpm.peer import Canned, answer, authorized

EK_CERTIFICATE = 0x01C00002  # TCG EK Credential Profile, 2.2.1.4
BLOB = secrets.token_bytes(700)


def test_a_blob_of_700_bytes(tpm: LiveTpm) -> None:
    with refuses(0x18B, "TPM2_NV_ReadPublic answered 0x18b TPM_RC_HANDLE (handle 1)"):
        tpm.nv_read(EK_CERTIFICATE)
    tpm.nv_define(EK_CERTIFICATE, len(BLOB))
    assert tpm.handles(handles.NV_INDEXES) == (EK_CERTIFICATE,)
    public = tpm.nv_read_public(EK_CERTIFICATE)
    assert (public.index, public.size, public.name_alg) == (EK_CERTIFICATE, 700, alg.SHA256)
    assert public.attributes == nv.OWNER_WRITES_ALL_READ
    assert not public.written
    with refuses(0x14A, "TPM2_NV_Read answered 0x14a TPM_RC_NV_UNINITIALIZED"):
        tpm.nv_read(EK_CERTIFICATE)
    tpm.nv_write(EK_CERTIFICATE, BLOB)
    assert tpm.nv_read_public(EK_CERTIFICATE).written
    assert tpm.nv_read(EK_CERTIFICATE) == BLOB
    assert tpm.nv_read(EK_CERTIFICATE, authority=handles.OWNER) == BLOB
    with refuses(0x14C, "TPM2_NV_DefineSpace answered 0x14c TPM_RC_NV_DEFINED"):
        tpm.nv_define(EK_CERTIFICATE, 1)
    with refuses(0x146, "TPM2_NV_Write answered 0x146 TPM_RC_NV_RANGE"):
        tpm.nv_write(EK_CERTIFICATE, BLOB + b"!")
    with refuses(0x12F, "TPM2_NV_Write answered 0x12f TPM_RC_AUTH_UNAVAILABLE"):
        tpm.nv_write(EK_CERTIFICATE, BLOB, authority=EK_CERTIFICATE)
    tpm.nv_undefine(EK_CERTIFICATE)
    with refuses(0x28B, "TPM2_NV_UndefineSpace answered 0x28b TPM_RC_HANDLE (handle 2)"):
        tpm.nv_undefine(EK_CERTIFICATE)
    assert tpm.handles(handles.NV_INDEXES) == ()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1024])
def test_sizes_around_what_one_command_takes(tpm: LiveTpm, size: int) -> None:
    tpm.nv_define(EK_CERTIFICATE, size)
    data = secrets.token_bytes(size)
    tpm.nv_write(EK_CERTIFICATE, data)
    assert tpm.nv_read(EK_CERTIFICATE) == data


def test_an_index_that_its_users_write(tpm: LiveTpm) -> None:
    attributes = nv.AUTH_WRITE | nv.AUTH_READ | nv.NO_DA
    tpm.nv_define(0x01800001, 4, attributes=attributes)
    tpm.nv_write(0x01800001, b"data", authority=0x01800001)
    assert tpm.nv_read(0x01800001) == b"data"
    with refuses(0x149, "TPM2_NV_Read answered 0x149 TPM_RC_NV_AUTHORIZATION"):
        tpm.nv_read(0x01800001, authority=handles.OWNER)


def test_more_than_there_is_room_for(tpm: LiveTpm) -> None:
    with refuses(0x2D5, "TPM2_NV_DefineSpace answered 0x2d5 TPM_RC_SIZE (parameter 2)"):
        tpm.nv_define(EK_CERTIFICATE, 0xFFFF)


def test_beside_tpm2_nvread(tmp_path: Path) -> None:
    with software_tpm(tmp_path) as tools:
        with contextlib.closing(SocketTransport.tcp("127.0.0.1", tools.port)) as channel:
            tpm = Tpm(channel, timeout_s=30)
            tpm.nv_define(EK_CERTIFICATE, len(BLOB))
            tpm.nv_write(EK_CERTIFICATE, BLOB)
        tools.run("tpm2_nvread", "-C", "0x1c00002", "-o", "read", "0x1c00002")
        assert tools.read("read") == BLOB
        tools.run("tpm2_nvwrite", "-C", "o", "-i", tools.write("new", BLOB[::-1]), "0x1c00002")
        with contextlib.closing(SocketTransport.tcp("127.0.0.1", tools.port)) as channel:
            assert Tpm(channel, timeout_s=30).nv_read(EK_CERTIFICATE) == BLOB[::-1]


# Answers that a TPM may give, and others


def public(
    index: int = EK_CERTIFICATE, size: int = 4, name_alg: int = alg.SHA256, policy: bytes = b""
) -> bytes:
    area = struct.pack(">IHIH", index, name_alg, nv.AUTH_READ | nv.WRITTEN, len(policy)) + policy
    return area + struct.pack(">H", size)


def named(area: bytes, name: bytes | None = None) -> bytes:
    name = b"\0\x0b" + hashlib.sha256(area).digest() if name is None else name
    return answer(struct.pack(">H", len(area)) + area + struct.pack(">H", len(name)) + name)


def data(part: bytes) -> bytes:
    return authorized(struct.pack(">H", len(part)) + part)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([named(public(index=0x01C00003))], "index 0x01c00003, asked for 0x01c00002"),
        ([named(public(index=0x81000001))], "0x81000001 is not an NV index"),
        ([named(public(name_alg=alg.SHA1))], "nameAlg is SHA-1, which is not accepted"),
        ([named(public(policy=bytes(65)))], "authPolicy has 65 bytes, want 0 to 64"),
        ([named(public() + b"\0")], "1 bytes follow the end of the structure"),
        ([named(public()[:-1])], "dataSize needs 2 bytes, 1 left"),
        ([named(bytes(129))], "nvPublic has 129 bytes, want 0 to 128"),
        ([named(public(), b"\0\x0b" + bytes(32))], "the Name is not that of the index"),
        ([named(public(), b"")], "the Name is not that of the index"),
        ([named(public(size=16385))], "index 0x01c00002 says it has 16385 bytes"),
        ([named(public()), data(b"dat")], "data has 3 bytes, want 4 to 4"),
        ([named(public()), data(b"data!")], "data has 5 bytes, want 4 to 4"),
        ([named(public()), data(b"")], "data has 0 bytes, want 4 to 4"),
        ([named(public()), authorized(b"\0\x04data!")], "1 bytes follow the end of the structure"),
    ],
)
def test_answers_that_are_none(answers: list[bytes], reason: str) -> None:
    with pytest.raises(TpmUnavailableError) as caught:
        Tpm(Canned(*answers), timeout_s=10).nv_read(EK_CERTIFICATE)
    assert caught.value.cause == TpmCause.MALFORMED_ANSWER
    assert caught.value.reason.endswith(reason)


def test_an_answer_by_the_book() -> None:
    tpm = Tpm(Canned(named(public()), data(b"data")), timeout_s=10)
    assert tpm.nv_read(EK_CERTIFICATE) == b"data"
