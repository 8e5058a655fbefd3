"""A Vtpm on a software TPM that a test can also get at from behind."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from app.evidence.vtpm.ak_kind import AkKind
from app.evidence.vtpm.vtpm import Vtpm
from app.tpm import handles
from app.tpm.client import Tpm
from app.tpm.command import CommandCode
from app.tpm.transport import SocketTransport, Transport
from app.wire.tpm.attest import Attest
from app.wire.tpm.pcr import PcrSelection
from app.wire.tpm.public import TpmtPublic
from tests.interop.software_tpm import BareTpm, bare_tpm

T = TypeVar("T")

TIMEOUT_S = 30.0
AK = AkKind.P256
LOG = b"what the firmware measured"
QUALIFYING = bytes(range(32))
SOME = PcrSelection.of({"sha256": [0, 7, 16]})
CREATE_PRIMARY = CommandCode.CREATE_PRIMARY.to_bytes(4, "big")


def qualify(_: TpmtPublic) -> bytes:
    return QUALIFYING


class Tap:
    """A channel that all share, which shows every command to a test, and what it answers in its place."""

    def __init__(self, channel: Transport) -> None:
        self.commands: list[bytes] = []
        self.before: Callable[[bytes], bytes | None] = lambda _: None
        self._channel = channel

    def exchange(self, command: bytes, *, timeout_s: float) -> bytes:
        """See Transport."""
        self.commands.append(command)
        answer = self.before(command)
        return self._channel.exchange(command, timeout_s=timeout_s) if answer is None else answer

    def close(self) -> None:
        """The channel stays open for the others."""

    def count(self, code: CommandCode) -> int:
        """How many commands of this kind there were."""
        return sum(command[6:10] == code.to_bytes(4, "big") for command in self.commands)


class Bench:
    """The Vtpm, its loop, and the TPM's other users."""

    def __init__(self, peer: BareTpm) -> None:
        assert peer.data is not None
        self.peer = peer
        self.channel = SocketTransport(peer.data, name="swtpm")
        self.tpm = Tpm(self.channel, timeout_s=TIMEOUT_S)
        self.tap = Tap(self.channel)
        self._runner = asyncio.Runner()
        self.vtpm = self.new_vtpm()

    def new_vtpm(self, **options: Any) -> Vtpm:
        """Another service on the same TPM."""
        return Vtpm(lambda: self.tap, name="swtpm", event_log=lambda: LOG, **options)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(coroutine)

    def close(self) -> None:
        self.run(self.vtpm.aclose())
        self._runner.close()
        self.channel.close()

    def loaded(self) -> tuple[int, ...]:
        """Objects and sessions in the TPM."""
        return self.tpm.handles(handles.TRANSIENT) + self.tpm.handles(handles.LOADED_SESSIONS)

    def reset_count(self) -> int:
        """How often the TPM was reset, by its own word."""
        quoted = self.run(self.vtpm.quote(AK, qualify, SOME, with_event_log=False))
        return Attest.parse(quoted.attest).clock.reset_count


@contextlib.contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    """A fresh TPM, in which nothing may be left when the block ends."""
    with bare_tpm(folder) as peer:
        built = Bench(peer)
        try:
            yield built
            assert built.loaded() == ()
        finally:
            built.close()
