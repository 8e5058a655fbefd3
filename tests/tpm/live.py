"""A client of a software TPM, and what tests need around it."""

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import TpmRefusedError
from app.tpm import handles
from app.tpm.client import Tpm
from app.tpm.transport import SocketTransport
from tests.interop.software_tpm import BareTpm, bare_tpm

TIMEOUT_S = 30.0

# TPMT_PUBLIC of restricted signing keys: fixedTPM fixedParent sensitiveDataOrigin userWithAuth
# restricted sign; no policy, no symmetric algorithm; the scheme with SHA-256.
AK_P256 = bytes.fromhex("0023 000b 00050072 0000 0010 0018 000b 0003 0010" + 2 * f" 0020 {bytes(32).hex()}")
AK_RSA = bytes.fromhex("0001 000b 00050072 0000 0010 0014 000b 0800 00000000 0100") + bytes(256)
AKS = {"p256": AK_P256, "rsa2048": AK_RSA}

HIERARCHY_CONTROL = 0x121
CHANGE_EPS = 0x124
HIERARCHY_CHANGE_AUTH = 0x129
PCR_ALLOCATE = 0x12B


def tell(channel: SocketTransport, code: int, handle: int, parameters: bytes = b"") -> None:
    """A command of one handle, authorized with the empty password, that our client has no use for."""
    body = struct.pack(">IIIHBH", handle, 9, handles.PASSWORD, 0, 1, 0) + parameters
    answer = channel.exchange(struct.pack(">HII", 0x8002, 10 + len(body), code) + body, timeout_s=TIMEOUT_S)
    assert answer[6:10] == bytes(4)


class LiveTpm(Tpm):
    """A client that knows its TPM."""

    def __init__(self, channel: SocketTransport, peer: BareTpm) -> None:
        super().__init__(channel, timeout_s=TIMEOUT_S)
        self.channel = channel
        self.peer = peer

    def loaded(self) -> tuple[int, ...]:
        """Everything that should not be there after a test."""
        return sum((self.handles(first) for first in KINDS), ())


KINDS = (handles.TRANSIENT, handles.LOADED_SESSIONS, handles.POLICY_SESSIONS)


@contextlib.contextmanager
def live_tpm(folder: Path) -> Iterator[LiveTpm]:
    """A fresh TPM, in which nothing may be left when the block ends."""
    with bare_tpm(folder) as peer:
        assert peer.data is not None
        with contextlib.closing(SocketTransport(peer.data, name="swtpm")) as channel:
            tpm = LiveTpm(channel, peer)
            yield tpm
            assert tpm.loaded() == ()


@contextlib.contextmanager
def refuses(code: int, said: str) -> Iterator[None]:
    """The TPM answers with this code, and we with these words."""
    with pytest.raises(TpmRefusedError) as caught:
        yield
    assert (caught.value.code, str(caught.value)) == (code, said)
