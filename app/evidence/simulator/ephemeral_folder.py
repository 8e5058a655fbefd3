"""Folders that do not outlive the processes that use them, whatever ends these.

A folder is locked by whoever made it, and by the children that inherit the lock's descriptor; the
kernel lets go of the lock when the last of them is gone. An unlocked folder is nobody's any more.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Self

PREFIX = "svsm-attest-vtpm-"
_ATTEMPTS = 8
_LEAST_DESCRIPTOR = 10  # a shell may use those below for what it is told to


class EphemeralFolder:
    """A private, empty folder below the system's one for temporary files.

    Args:
        path: where it is, absolute.
        descriptor: of the folder, with the lock on it; for children to inherit.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    @classmethod
    def make(cls) -> Self:
        """A new one, after those of processes that are gone were removed. Blocks for file I/O.

        Raises:
            OSError: no folder can be made there, or none can be locked.
        """
        _remove_abandoned()
        for _ in range(_ATTEMPTS):
            path = Path(tempfile.mkdtemp(prefix=PREFIX)).absolute()
            # Until it is locked, another process may take it for abandoned: then there is a next one.
            descriptor = _lock(path)
            if descriptor is not None:
                return cls(path, descriptor)
        raise OSError(errno.EAGAIN, "every new folder was taken away", tempfile.gettempdir())

    def remove(self) -> None:
        """Remove it with everything in it, and let go of the lock. Never raises OSError."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.descriptor)


def _remove_abandoned() -> None:
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and _is_ours(entry):
                path = Path(entry.path)
                descriptor = _lock(path)
                if descriptor is not None:
                    EphemeralFolder(path, descriptor).remove()


def _is_ours(entry: "os.DirEntry[str]") -> bool:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _lock(path: Path) -> int | None:
    """A descriptor that holds the folder's lock; None where it is gone, or somebody else's.

    Raises:
        OSError: the file system has no such locks.
    """
    try:
        low = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        descriptor = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, _LEAST_DESCRIPTOR)
    finally:
        os.close(low)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
