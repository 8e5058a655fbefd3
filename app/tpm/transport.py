"""Channels to a TPM: a device of the kernel, a socket. One command out, one answer in.

Every exchange has a deadline. After a failed one a channel is spent: a late answer would be taken
for the answer to the next command. The device frees what was loaded through it when it is closed; a
TPM behind a socket keeps it.
Sources: Linux, drivers/char/tpm/tpm-dev-common.c (O_NONBLOCK, poll); swtpm(8) for the data channel,
which carries commands and answers bare.
"""

import contextlib
import errno
import os
import select
import socket
import stat
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Protocol, Self

from app.errors import TpmUnavailableError, WireError
from app.tpm.causes import TpmCause, unavailable
from app.tpm.command import HEADER_SIZE, MAX_SIZE, answer_size

_OPENING_CAUSES = {
    errno.ENOENT: TpmCause.MISSING,
    errno.ENODEV: TpmCause.MISSING,
    errno.ENXIO: TpmCause.MISSING,
    errno.ECONNREFUSED: TpmCause.MISSING,
    errno.EBADF: TpmCause.MISSING,
    errno.ENOTSOCK: TpmCause.MISSING,
    errno.EBUSY: TpmCause.IN_USE,
    errno.EAGAIN: TpmCause.IN_USE,  # a unix socket where others wait already
    errno.EACCES: TpmCause.PERMISSION_DENIED,
    errno.EPERM: TpmCause.PERMISSION_DENIED,
}


class Transport(Protocol):
    """A channel to one TPM, open from the start. Users of one channel take turns, command by command."""

    def exchange(self, command: bytes, *, timeout_s: float) -> bytes:
        """Send one command (10 to 4096 bytes) and return its answer, 10 to 4096 bytes, unread.

        Blocks for at most `timeout_s`, waiting for other users of the channel included; on a device
        for longer where the kernel does not come back (see DeviceTransport).

        Raises:
            TpmUnavailableError: no answer in time, a channel that is gone or spent, or bytes that
                are not one answer. The channel is spent afterwards: open another one.
        """
        ...

    def close(self) -> None:
        """Give the channel back; more than once does no harm."""
        ...


class _Channel(ABC):
    """An open descriptor, what may go wrong on it, and whose turn it is."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self._turn = threading.Lock()
        self._spent: str | None = None
        self._closed = False

    @property
    def spent(self) -> bool:
        """Is the channel of no more use?"""
        return self._closed or self._spent is not None

    def exchange(self, command: bytes, *, timeout_s: float) -> bytes:
        """See Transport."""
        deadline = time.monotonic() + timeout_s
        if not self._turn.acquire(timeout=max(0.0, timeout_s)):
            raise unavailable(TpmCause.TIMEOUT, f"another user kept {self._name} for {timeout_s:g} s")
        try:
            self._demand_usable()
            try:
                return self._exchange(command, deadline)
            except OSError as error:
                gone = unavailable(
                    TpmCause.GONE, f"{self._name} broke off: {error.strerror or error}", errno=error.errno
                )
                raise self._spend(gone) from error
            except TpmUnavailableError as error:
                self._spend(error)
                raise
            except BaseException:  # an interrupt: who knows what was sent
                self._spent = "was interrupted"
                raise
        finally:
            self._turn.release()

    def close(self) -> None:
        """See Transport."""
        self._closed = True
        self._interrupt()
        with self._turn:
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                self._close(descriptor)

    @abstractmethod
    def _exchange(self, command: bytes, deadline: float) -> bytes:
        """Send and receive by `deadline`, a time of the monotonic clock."""

    @abstractmethod
    def _interrupt(self) -> None:
        """Wake up whoever waits for an answer, where that is possible."""

    @abstractmethod
    def _close(self, descriptor: int) -> None:
        """Close the descriptor."""

    def _demand_usable(self) -> None:
        if self._closed:
            raise unavailable(TpmCause.CLOSED, f"{self._name} is closed")
        if self._spent is not None:
            raise unavailable(TpmCause.GONE, f"{self._name} {self._spent}")

    def _spend(self, error: TpmUnavailableError) -> TpmUnavailableError:
        self._spent = f"is spent since an earlier failure ({error.reason})"
        return error

    def _wait(self, events: int, deadline: float) -> None:
        """Return when the descriptor is ready for `events`, or broken; raise at the deadline."""
        poll = select.poll()
        poll.register(self._descriptor, events)
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise unavailable(TpmCause.TIMEOUT, f"{self._name} did not answer in time")

    def _malformed(self, reason: str) -> TpmUnavailableError:
        return unavailable(TpmCause.MALFORMED_ANSWER, f"{self._name}: {reason}")


class DeviceTransport(_Channel):
    """A TPM device: /dev/tpmrm0, where the kernel keeps users apart, or /dev/tpm0, which takes one.

    While the TPM works, the driver holds the lock that poll(2) takes: a deadline that passes then is
    noticed when the driver gives the TPM up, which it does after minutes. What must not wait so long
    talks to a device through a TpmWorker.

    Raises:
        TpmUnavailableError: no such device (tpm-missing), another user has it (tpm-in-use), no
            permission (tpm-permission-denied), or not a character device.
    """

    _owes_answer = False

    def __init__(self, path: Path) -> None:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError as error:
            raise _not_opened(str(path), error) from error
        if not stat.S_ISCHR(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise unavailable(TpmCause.MISSING, f"{path} is not a character device")
        super().__init__(descriptor, str(path))

    @classmethod
    def over(cls, descriptor: int) -> Self:
        """A channel that behaves like the device: one write is a command, one read its answer.

        The channel owns the descriptor from now on.
        """
        channel = cls.__new__(cls)
        _Channel.__init__(channel, descriptor, f"descriptor {descriptor}")
        return channel

    def _exchange(self, command: bytes, deadline: float) -> bytes:
        if os.write(self._descriptor, command) != len(command):
            raise unavailable(TpmCause.GONE, f"{self._name} took a part of a command")
        self._owes_answer = True
        self._wait(select.POLLIN, deadline)
        answer = os.read(self._descriptor, MAX_SIZE)
        self._owes_answer = False
        if not answer:
            raise unavailable(TpmCause.GONE, f"{self._name} answered nothing")
        return answer

    def _interrupt(self) -> None:
        """The kernel has no way to take a command back."""

    def _close(self, descriptor: int) -> None:
        if self._owes_answer:  # close() would wait in the kernel until the TPM is done
            threading.Thread(target=os.close, args=(descriptor,), name="tpm-close", daemon=True).start()
        else:
            os.close(descriptor)


class SocketTransport(_Channel):
    """A TPM behind a connected stream socket, which the channel owns from now on."""

    def __init__(self, channel: socket.socket, *, name: str = "the TPM's socket") -> None:
        channel.setblocking(False)
        super().__init__(channel.fileno(), name)
        self._socket = channel

    @classmethod
    def unix(cls, path: Path, *, timeout_s: float = 5.0) -> Self:
        """Connect to a unix socket.

        Raises:
            TpmUnavailableError: nobody listens there (tpm-missing), no permission, or no answer in time.
        """
        return cls._connected(socket.AF_UNIX, str(path), str(path), timeout_s)

    @classmethod
    def tcp(cls, host: str, port: int, *, timeout_s: float = 5.0) -> Self:
        """Connect to a port; the data channel of swtpm, not the protocol of Microsoft's simulator.

        Raises:
            TpmUnavailableError: as `unix`, or the host is not known.
        """
        name = f"{host}:{port}"
        try:
            channel = socket.create_connection((host, port), timeout_s)
            channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            raise _not_opened(name, error) from error
        return cls(channel, name=name)

    @classmethod
    def descriptor(cls, descriptor: int) -> Self:
        """A socket that is open already, such as one end of a pair.

        Raises:
            TpmUnavailableError: the descriptor is not open, or not a socket.
        """
        try:
            channel = socket.socket(fileno=descriptor)
        except OSError as error:
            raise _not_opened(f"descriptor {descriptor}", error) from error
        return cls(channel, name=f"descriptor {descriptor}")

    @classmethod
    def _connected(cls, family: int, address: str, name: str, timeout_s: float) -> Self:
        channel = socket.socket(family, socket.SOCK_STREAM)
        try:
            channel.settimeout(timeout_s)
            channel.connect(address)
        except OSError as error:
            channel.close()
            raise _not_opened(name, error) from error
        return cls(channel, name=name)

    def _exchange(self, command: bytes, deadline: float) -> bytes:
        self._demand_silence()
        left = memoryview(command)
        while left:
            self._wait(select.POLLOUT, deadline)
            with contextlib.suppress(BlockingIOError):
                left = left[self._socket.send(left) :]
        answer = b""
        size = HEADER_SIZE
        while len(answer) < size:
            self._wait(select.POLLIN, deadline)
            part = self._socket.recv(MAX_SIZE + 1 - len(answer))
            if not part:
                raise unavailable(
                    TpmCause.GONE, f"{self._name} closed after {len(answer)} bytes of an answer"
                )
            answer += part
            if len(answer) >= HEADER_SIZE:
                size = self._size(answer)
        if len(answer) > size:
            raise self._malformed(f"{len(answer) - size} bytes follow the {size} that the answer announces")
        return answer

    def _size(self, answer: bytes) -> int:
        try:
            return answer_size(answer)
        except WireError as error:
            raise self._malformed(str(error)) from error

    def _demand_silence(self) -> None:
        """Bytes that nobody asked for would be taken for an answer."""
        try:
            early = self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        if not early:
            raise unavailable(TpmCause.GONE, f"{self._name} was closed at the other end")
        raise self._malformed("bytes came before a command was sent")

    def _interrupt(self) -> None:
        with contextlib.suppress(OSError):  # already gone
            self._socket.shutdown(socket.SHUT_RDWR)

    def _close(self, descriptor: int) -> None:
        del descriptor  # it is the socket's own
        self._socket.close()


def _not_opened(name: str, error: OSError) -> TpmUnavailableError:
    if isinstance(error, TimeoutError):
        return unavailable(TpmCause.TIMEOUT, f"{name} took no connection in time")
    if isinstance(error, socket.gaierror):
        return unavailable(TpmCause.MISSING, f"{name} is not known: {error.strerror}")
    cause = _OPENING_CAUSES.get(error.errno or 0, TpmCause.GONE)
    return unavailable(cause, f"{name} cannot be opened: {error.strerror or error}", errno=error.errno)
