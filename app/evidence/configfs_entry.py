"""One entry below tsm/report: its attributes, read and written as the kernel wants it.

Everything goes through os.open, os.read and os.write. Python's file objects hide what matters
here: a provider's EAGAIN comes out of `read()` as None, sizes that stat reports mean nothing,
and a second read of one descriptor gives the old value.

Source: Linux drivers/virt/coco (TSM reports), fs/configfs/file.c; Documentation/ABI
configfs-tsm-report.
"""

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import structlog

PREFIX = "svsm-attest-"
MAX_BLOB_SIZE = 32 * 1024  # the kernel's own bound for each of the three blobs
_MAX_TEXT_SIZE = 4096  # a text attribute is one page

_log = structlog.get_logger(__name__)
_alive: set[Path] = set()  # entries of this process, whoever made them


class ReportEntry:
    """An entry of our own. It serves one request and is never used again.

    Reuse would be worse than untidy: an entry whose latest report has no certificates while an
    earlier one had them makes the kernel follow a null pointer with its global lock held.

    Every method raises OSError with the kernel's errno.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writes = 0  # accepted ones: by so many the kernel's generation must have moved

    @classmethod
    @contextlib.contextmanager
    def fresh(cls, directory: Path) -> Iterator[Self]:
        """Make an entry; remove it on the way out, come what may.

        A removal that fails is logged, and no failure of the request: the next process that starts
        finds the entry with `remove_stale`.
        """
        path = directory / f"{PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
        _alive.add(path)
        try:
            path.mkdir()
            try:
                with _leased(path):
                    yield cls(path)
            finally:
                _remove(path)
        finally:
            _alive.discard(path)

    def attributes(self) -> frozenset[str]:
        """Names of the attributes that this kernel offers for this VM."""
        return frozenset(attribute.name for attribute in self.path.iterdir())

    def text(self, attribute: str) -> str:
        """A text attribute as it is now, without the newline."""
        return self._read(attribute, _MAX_TEXT_SIZE).decode("ascii", "replace").strip()

    def number(self, attribute: str) -> int:
        """A decimal text attribute as it is now."""
        text = self.text(attribute)
        try:
            return int(text)
        except ValueError:
            raise OSError(errno.EPROTO, f"{attribute} is not a number: {text[:20]!r}") from None

    def blob(self, attribute: str) -> bytes:
        """A blob to its end. The first blob that is read makes the kernel ask for the report.

        Blocks in the kernel for as long as that takes, and cannot be interrupted there.
        EFBIG where the blob has more than 32768 bytes.
        """
        return self._read(attribute, MAX_BLOB_SIZE)

    def write(self, attribute: str, value: bytes) -> None:
        """Write `value`, which must not be empty, with one system call, and commit it by closing.

        EIO where the kernel took only a part. Some attributes are reset by a refused write: after
        any error the entry is of no more use.
        """
        descriptor = os.open(self.path / attribute, os.O_WRONLY | os.O_CLOEXEC)
        try:
            written = os.write(descriptor, value)
        finally:
            os.close(descriptor)
        if written != len(value):
            raise OSError(errno.EIO, f"{attribute} took {written} of {len(value)} bytes")
        self.writes += 1

    def _read(self, attribute: str, limit: int) -> bytes:
        content = bytearray()
        descriptor = os.open(self.path / attribute, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while part := os.read(descriptor, limit + 1 - len(content)):
                content += part
                if len(content) > limit:
                    raise OSError(errno.EFBIG, f"{attribute} has more than {limit} bytes")
        finally:
            os.close(descriptor)
        return bytes(content)


def remove_stale(directory: Path) -> list[str]:
    """Remove the entries that dead processes of this program left; return their names.

    An entry is kept while its process lives or, should that be a process of another PID
    namespace, while somebody holds its lock. What cannot be removed stays, silently.
    """
    removed: list[str] = []
    try:
        entries = list(directory.glob(f"{PREFIX}*"))
    except OSError:
        return removed
    for path in entries:
        if path in _alive or _process_lives(path.name) or _is_leased(path):
            continue
        with contextlib.suppress(OSError):
            path.rmdir()
            removed.append(path.name)
    return removed


def _remove(path: Path) -> None:
    try:
        path.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        _log.warning("report_entry_not_removed", entry=path.name, error=error.strerror)


@contextlib.contextmanager
def _leased(path: Path) -> Iterator[None]:
    """Hold a lock on the entry, which ends with the process even when nothing else is cleaned up."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield  # a lock is a courtesy to other containers; the request can do without
        return
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _is_leased(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _process_lives(name: str) -> bool:
    """Does the process live that `name` names? A name that names none is not ours to judge."""
    pid = name.removeprefix(PREFIX).partition("-")[0]
    if not (pid.isascii() and pid.isdigit()):
        return True
    if int(pid) == os.getpid():
        return False  # an entry of this process would be known: its owner had our number before us
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # EPERM: it lives, and is somebody else's
        return True
    return True
