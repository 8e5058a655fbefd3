"""A peer that plays a TPM from a script, at the other end of a socket pair."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from app.tpm.client import Tpm
from app.tpm.transport import SocketTransport

NO_SESSIONS = 0x8001
SESSIONS = 0x8002
RETRY = 0x922
ACKNOWLEDGED = bytes.fromhex("0000 01 0000")  # what a TPM answers to the empty password

Reply = bytes | Callable[[bytes], bytes] | None


def answer(parameters: bytes = b"", *, code: int = 0, tag: int = NO_SESSIONS) -> bytes:
    """An answer as Part 1, 18.2 lays it out."""
    return struct.pack(">HII", tag, 10 + len(parameters), code) + parameters


def authorized(parameters: bytes = b"", *, handle: int | None = None, sessions: int = 1) -> bytes:
    """The same with an authorization area of passwords."""
    head = b"" if handle is None else handle.to_bytes(4, "big")
    body = head + struct.pack(">I", len(parameters)) + parameters + sessions * ACKNOWLEDGED
    return answer(body, tag=SESSIONS)


class Peer:
    """Gives one reply to each command, and keeps the commands; None is silence.

    After its last reply the peer waits for the other end to close, unless it `hangs_up`.
    """

    def __init__(self, channel: socket.socket, replies: Iterator[Reply], *, hangs_up: bool) -> None:
        self.commands: list[bytes] = []
        self._channel = channel
        self._replies = replies
        self._hangs_up = hangs_up
        self.thread = threading.Thread(target=self._play, daemon=True)

    def _play(self) -> None:
        with contextlib.suppress(OSError):
            for reply in self._replies:
                command = self._channel.recv(5000)
                if not command:
                    return
                self.commands.append(command)
                said = reply(command) if callable(reply) else reply
                if said is not None:
                    self._channel.sendall(said)
            if self._hangs_up:
                self._channel.shutdown(socket.SHUT_RDWR)
            else:
                self._channel.recv(1)


@contextlib.contextmanager
def scripted(*replies: Reply, hangs_up: bool = False) -> Iterator[tuple[SocketTransport, Peer]]:
    """A channel to a peer that has these replies."""
    with playing(iter(replies), hangs_up=hangs_up) as both:
        yield both


@contextlib.contextmanager
def playing(replies: Iterator[Reply], *, hangs_up: bool = False) -> Iterator[tuple[SocketTransport, Peer]]:
    """The same for replies that may have no end."""
    ours, theirs = socket.socketpair()
    peer = Peer(theirs, replies, hangs_up=hangs_up)
    channel = SocketTransport(ours, name="a peer")
    peer.thread.start()
    try:
        yield channel, peer
    finally:
        channel.close()
        peer.thread.join(10)
        theirs.close()


@contextlib.contextmanager
def scripted_tpm(*replies: Reply, timeout_s: float = 10.0) -> Iterator[Tpm]:
    """A client whose TPM has these replies."""
    with scripted(*replies) as (channel, _):
        yield Tpm(channel, timeout_s=timeout_s)


class Canned:
    """A transport whose answers are settled: the same again and again, or one after the other."""

    def __init__(self, *answers: bytes) -> None:
        self.commands: list[bytes] = []
        self._answers = answers

    def exchange(self, command: bytes, *, timeout_s: float) -> bytes:
        """See Transport."""
        assert timeout_s > 0
        said = self._answers[min(len(self.commands), len(self._answers) - 1)]
        self.commands.append(command)
        return said

    def close(self) -> None:
        """See Transport."""
