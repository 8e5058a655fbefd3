"""Files that nobody but their owner may touch: a key that is read, a log that is appended to."""

import fcntl
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_FOREIGN = stat.S_IRWXG | stat.S_IRWXO
_MODE = 0o600


class UnsafeFileError(Exception):
    """A file that is missing, of another kind, somebody else's, or open to others; the message says which."""


def read_private(path: Path, limit: int) -> bytes:
    """The content of a regular file that only this user, or root, can have written, and few can read.

    Others may not read it; its group may where root owns it, which is how a file is handed to a
    service that does not run as root.

    Raises:
        UnsafeFileError: it is not so, it cannot be read, or has more than `limit` bytes.
    """
    with _opened(path, os.O_RDONLY) as (descriptor, status):
        handed_out = status.st_uid == 0 != os.geteuid()
        _demand_mode(path, status, _FOREIGN & ~stat.S_IRGRP if handed_out else _FOREIGN)
        if status.st_size > limit:
            raise UnsafeFileError(f"{path} has {status.st_size} bytes, at most {limit}")
        return os.read(descriptor, limit)


def write_new(path: Path, content: bytes, mode: int = _MODE) -> None:
    """Make a file, durably, that others may do nothing with unless `mode` says so.

    Raises:
        FileExistsError: the name is taken; what has it is left alone.
        OSError: it cannot be written; then there is none.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(path.parent)
    except BaseException:
        path.unlink()
        raise


class AppendLog:
    """JSON lines that are only ever added, each durable before `append` returns.

    Args:
        path: the file; made with mode 0600 where it is missing. It is opened anew for every line, so
            that it can be moved away at any time.

    Safe between processes: a lock is held while a line is written. Blocks for the disk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def demand_writable(self) -> None:
        """Find out now whether a line could be added.

        Raises:
            UnsafeFileError: it could not.
        """
        with self._opened():
            pass

    def append(self, document: Mapping[str, object]) -> None:
        """Add one line, whole or not at all.

        Raises:
            UnsafeFileError: it was not added.
        """
        line = json.dumps(document, separators=(",", ":")).encode() + b"\n"
        with self._opened() as descriptor:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                size = os.fstat(descriptor).st_size
                if size and os.pread(descriptor, 1, size - 1) != b"\n":
                    line = b"\n" + line  # a power cut left half a line: it stays, and this one is whole
                try:
                    _write_whole(descriptor, line)
                    os.fsync(descriptor)
                except OSError:
                    os.ftruncate(descriptor, size)
                    raise
                if size == 0:
                    _sync_folder(self.path.parent)
            except OSError as error:
                raise UnsafeFileError(f"{self.path} cannot be written: {error.strerror}") from error

    @contextmanager
    def _opened(self) -> "Iterator[int]":
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        with _opened(self.path, flags) as (descriptor, status):
            _demand_mode(self.path, status, _FOREIGN)
            yield descriptor


@contextmanager
def _opened(path: Path, flags: int) -> "Iterator[tuple[int, os.stat_result]]":
    """A regular file of this user or of root, open; a device or a pipe is not waited for."""
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, _MODE)
    except OSError as error:
        raise UnsafeFileError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnsafeFileError(f"{path} is not a file")
        if status.st_uid not in (0, os.geteuid()):
            raise UnsafeFileError(f"{path} belongs to another user")
        yield descriptor, status
    finally:
        os.close(descriptor)


def _demand_mode(path: Path, status: os.stat_result, forbidden: int) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if mode & forbidden:
        raise UnsafeFileError(f"{path} has mode {mode:04o}, which lets others in: chmod 600 {path}")


def _write_whole(descriptor: int, line: bytes) -> None:
    """One write, which O_APPEND puts at the end in one piece.

    Raises:
        OSError: not all of it went in.
    """
    written = os.write(descriptor, line)
    if written != len(line):
        raise OSError(0, f"{written} of {len(line)} bytes fit")


def _sync_folder(folder: Path) -> None:
    """Make a new name in the folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
