"""Non-volatile indexes: defined, written, read, removed.

Source: TCG TPM 2.0 Library, Part 2, TPMA_NV (13.4) and TPMS_NV_PUBLIC (13.6); Part 3, TPM2_NV_*.
"""

import hashlib
from dataclasses import dataclass
from typing import Self

from app.tpm.causes import TpmCause, unavailable
from app.tpm.command import MAX_DIGEST, Answer, Command, CommandCode, bounded
from app.tpm.dispatch import Dispatcher
from app.tpm.handles import NV_INDEXES, OWNER, PASSWORD, kind
from app.wire.cursor import Cursor
from app.wire.tpm import algorithms as alg
from app.wire.tpm import fields

_AT_ONCE = 512  # every TPM for PCs takes so much in one command (TPM_PT_NV_BUFFER_MAX)
MAX_SIZE = 16384  # all that COCONUT-SVSM's TPM has
_MAX_PUBLIC = 128

# TPMA_NV
OWNER_WRITE = 1 << 1
AUTH_WRITE = 1 << 2
OWNER_READ = 1 << 17
AUTH_READ = 1 << 18
POLICY_READ = 1 << 19
NO_DA = 1 << 25
WRITTEN = 1 << 29
# The owner writes; whoever reaches the TPM reads.
OWNER_WRITES_ALL_READ = OWNER_WRITE | OWNER_READ | AUTH_READ | NO_DA


@dataclass(frozen=True, slots=True, kw_only=True)
class NvPublic:
    """TPMS_NV_PUBLIC."""

    index: int
    name_alg: int
    attributes: int
    auth_policy: bytes
    size: int  # of the data

    @property
    def written(self) -> bool:
        """Was it ever written? It cannot be read before."""
        return bool(self.attributes & WRITTEN)

    @property
    def name(self) -> bytes:
        """The Name: nameAlg and the digest of the area."""
        digest = hashlib.new(alg.HASH_NAMES[self.name_alg], self.encode()).digest()
        return fields.p16(self.name_alg) + digest

    @classmethod
    def read(cls, cursor: Cursor) -> Self:
        """Read 14 bytes and a policy.

        Raises:
            WireError: a handle that is no index, another hash, a policy larger than any digest.
        """
        index = fields.u32(cursor, "nvIndex")
        if kind(index) != NV_INDEXES:
            raise cursor.fail(f"0x{index:08x} is not an NV index", back=4)
        return cls(
            index=index,
            name_alg=fields.hash_algorithm(cursor, "nameAlg"),
            attributes=fields.u32(cursor, "attributes"),
            auth_policy=bounded(cursor, "authPolicy", MAX_DIGEST),
            size=fields.u16(cursor, "dataSize"),
        )

    def encode(self) -> bytes:
        """The inverse of `read`."""
        return b"".join(
            (
                self.index.to_bytes(4, "big"),
                fields.p16(self.name_alg),
                self.attributes.to_bytes(4, "big"),
                fields.to_tpm2b(self.auth_policy),
                fields.p16(self.size),
            )
        )


class NvCommands(Dispatcher):
    """Commands about NV indexes. `authority` is the index itself, or the hierarchy that acts on it."""

    def nv_define(self, index: int, size: int, *, attributes: int = OWNER_WRITES_ALL_READ) -> None:
        """Make an index of `size` bytes for the owner, with an empty password.

        Raises:
            TpmRefusedError: NV_DEFINED where there is one, NV_SPACE where there is no room.
        """
        public = NvPublic(index=index, name_alg=alg.SHA256, attributes=attributes, auth_policy=b"", size=size)
        parameters = fields.to_tpm2b(b"") + fields.to_tpm2b(public.encode())
        self.tell(Command(CommandCode.NV_DEFINE_SPACE, (OWNER,), (PASSWORD,), parameters))

    def nv_undefine(self, index: int) -> None:
        """Remove an index and what it holds."""
        self.tell(Command(CommandCode.NV_UNDEFINE_SPACE, (OWNER, index), (PASSWORD,)))

    def nv_read_public(self, index: int) -> NvPublic:
        """What an index is.

        Raises:
            TpmRefusedError: HANDLE where there is none.
        """

        def read(answer: Answer) -> NvPublic:
            area = bounded(answer.parameters, "nvPublic", _MAX_PUBLIC)
            inner = Cursor("TPMS_NV_PUBLIC", area)
            public = NvPublic.read(inner)
            inner.end()
            if public.index != index:
                raise answer.parameters.fail(
                    f"index 0x{public.index:08x}, asked for 0x{index:08x}", back=len(area)
                )
            name = fields.tpm2b(answer.parameters, "name")
            if name != public.name:
                raise answer.parameters.fail("the Name is not that of the index", back=len(name))
            return public

        return self.ask(Command(CommandCode.NV_READ_PUBLIC, (index,)), read)

    def nv_write(self, index: int, data: bytes, *, authority: int = OWNER) -> None:
        """Write from the start of an index, 512 bytes at a time; what is written stays if a part fails."""
        for offset in range(0, len(data), _AT_ONCE):
            part = fields.to_tpm2b(data[offset : offset + _AT_ONCE]) + fields.p16(offset)
            self.tell(Command(CommandCode.NV_WRITE, (authority, index), (PASSWORD,), part))

    def nv_read(self, index: int, *, authority: int | None = None) -> bytes:
        """All that an index holds, at most 16 KiB.

        Args:
            index: the index.
            authority: who reads; the index itself unless told.

        Raises:
            TpmRefusedError: HANDLE where there is none, NV_UNINITIALIZED where nothing was written.
            TpmUnavailableError: it says that it holds more.
        """
        size = self.nv_read_public(index).size
        if size > MAX_SIZE:
            raise unavailable(TpmCause.MALFORMED_ANSWER, f"index 0x{index:08x} says it has {size} bytes")
        data = b""
        while len(data) < size:
            want = min(_AT_ONCE, size - len(data))
            data += self._read_part(index, index if authority is None else authority, want, len(data))
        return data

    def _read_part(self, index: int, authority: int, size: int, offset: int) -> bytes:
        command = Command(CommandCode.NV_READ, (authority, index), (PASSWORD,), fields.p16(size, offset))
        return self.ask(command, lambda answer: bounded(answer.parameters, "data", size, size))
