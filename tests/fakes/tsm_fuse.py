"""The emulated TSM core as a file system: run this file as a process of its own.

    python -m tests.fakes.tsm_fuse MOUNTPOINT [--dialect development] [--provider MODULE:CLASS]

The mount point looks like /sys/kernel/config/tsm: `report/` is the kernel's interface.
Beside it, `control/` holds one file for each knob, as a kernel module's parameters directory
does; `present` takes the provider away (0) and brings it back (1), `reset` (1) turns all knobs back.

Rules that were learnt the hard way: without direct_io an attribute of size 0 reads as empty;
inblob is committed in `flush`, which close() waits for, and never in `release`, which it does
not; no attribute of the operations class may bear the name of a FUSE operation; nothing may
be written to a stderr that nobody reads. The process ends itself after --lifetime seconds:
whatever hangs on the mount is then let go.
"""

# ruff: noqa: ARG002  # FUSE tells more than is needed here

import argparse
import contextlib
import errno
import importlib
import itertools
import os
import signal
import stat
import threading
from typing import Any

import mfusepy

from tests.fakes.tsm_core import BLOBS, SERVICE, Entry, OopsError, OpenFile, Tsm, fail
from tests.fakes.tsm_standin import Standin, describe, turn

_MAX_NAME = 255
_ACCESS_MODES = {os.O_RDONLY: 0o444, os.O_WRONLY: 0o222, os.O_RDWR: 0o666}


class ControlFile:
    """One open knob."""

    def __init__(self, tree: "TsmFiles", name: str) -> None:
        self._tree = tree
        self._name = name

    def read(self, size: int, offset: int) -> bytes:
        value = self._tree.knobs()[self._name]
        if isinstance(value, bool):
            value = "Y" if value else "N"
        text = f"{value.hex() if isinstance(value, bytes) else value}\n".encode()
        return text[offset : offset + size]

    def write(self, data: bytes, offset: int) -> int:
        if offset:
            raise fail(errno.EINVAL)  # the whole value, in one write
        self._tree.turn_knob(self._name, data)
        return len(data)

    def close(self) -> None:
        pass


class TsmFiles(mfusepy.Operations):  # type: ignore[misc]  # mfusepy has no types
    """FUSE's view of a Tsm and of the knobs behind it."""

    use_ns = True
    # Calls on an open file come without its path, so that they survive the removal of an entry.
    flag_nopath = True
    flag_nullpath_ok = True

    def __init__(self, tsm: Tsm, provider: Standin) -> None:
        self._tsm = tsm
        self._provider = provider
        self._files: dict[int, OpenFile | ControlFile] = {}
        self._listings: dict[int, list[str]] = {}
        self._handles = itertools.count(1)
        self._owners: dict[str, tuple[int, int]] = {}
        self._tree_lock = threading.Lock()
        self._oopses = 0
        self._oops_kills = False

    # Knobs

    def knobs(self) -> dict[str, bytes | int | bool | str]:
        return describe(self._provider) | {
            "present": int(self._tsm.provider is not None),
            "disturb": self._tsm.disturb,
            "text_limit": self._tsm.text_limit,
            "oopses": self._oopses,
            "oops_kills": self._oops_kills,
            "reset": 0,
        }

    def turn_knob(self, name: str, text: bytes) -> None:
        if name == "present":
            if int(text):
                self._tsm.register(self._provider)
            else:
                self._tsm.unregister()
        elif name in {"disturb", "text_limit"}:
            setattr(self._tsm, name, int(text))
        elif name == "oops_kills":
            self._oops_kills = bool(int(text))
        elif name == "reset":
            self._provider.reset()
            self._tsm.provider = self._provider
            self._tsm.disturb, self._tsm.text_limit = 0, 4095
        else:
            turn(self._provider, name, text)

    # The tree

    def getattr(self, path: str | None, fh: int | None = None) -> dict[str, Any]:
        if path is None:
            opened = self._files[fh or 0]
            if isinstance(opened, ControlFile):
                return self._status(stat.S_IFREG | 0o644, 0, None)
            return self._attribute_status(opened.entry, opened.attribute, None)
        match _split(path):
            case [] | ["report"] | ["control"]:
                return self._status(stat.S_IFDIR | 0o755, 0, path)
            case ["report", name] if name in self._tsm.entries:
                return self._status(stat.S_IFDIR | 0o755, 0, path)
            case ["report", name, attribute] if attribute in self._attributes(name):
                return self._attribute_status(self._tsm.entries[name], attribute, path)
            case ["control", name] if name in self.knobs():
                return self._status(stat.S_IFREG | 0o644, 0, path)
        raise fail(errno.ENOENT)

    def opendir(self, path: str) -> int:
        match _split(path):
            case []:
                names = ["report", "control"]
            case ["report"]:
                names = list(self._tsm.entries)
            case ["report", name]:
                names = list(self._attributes(name))
            case _:
                names = list(self.knobs())
        handle = next(self._handles)
        self._listings[handle] = names
        return handle

    def readdir(self, path: str | None, fh: int) -> list[str]:
        return [".", "..", *self._listings[fh]]

    def releasedir(self, path: str | None, fh: int) -> int:
        del self._listings[fh]
        return 0

    def mkdir(self, path: str, mode: int) -> None:
        match _split(path):
            case ["report", name]:
                if len(os.fsencode(name)) > _MAX_NAME:
                    raise fail(errno.ENAMETOOLONG)
                with self._tree_lock:
                    self._tsm.make(name)
            case _:
                raise fail(errno.EPERM)

    def rmdir(self, path: str) -> None:
        match _split(path):
            case ["report", name]:
                with self._tree_lock:
                    self._tsm.remove(name)
                    for owned in [owned for owned in self._owners if owned.startswith(path)]:
                        del self._owners[owned]
            case _:
                raise fail(errno.EPERM)

    def unlink(self, path: str) -> None:
        raise fail(errno.EPERM)

    def rename(self, old: str, new: str) -> None:
        raise fail(errno.EPERM)

    def create(self, path: str, mode: int, flags: int) -> int:
        raise fail(errno.EACCES)

    def chown(self, path: str, uid: int, gid: int) -> None:
        old_uid, old_gid = self._owners.get(path, (0, 0))
        self._owners[path] = (old_uid if uid == -1 else uid, old_gid if gid == -1 else gid)

    # Open files

    def open(self, path: str, flags: int) -> int:
        wanted = _ACCESS_MODES[flags & os.O_ACCMODE]
        opened: OpenFile | ControlFile
        match _split(path):
            case ["report", name, attribute]:
                entry = self._tsm.entries[name]
                if wanted & ~_everybodys(entry.attributes[attribute]):
                    raise fail(errno.EACCES)  # for root as well: it is the attribute that cannot do it
                opened = OpenFile(self._tsm, entry, attribute)
            case ["control", name]:
                opened = ControlFile(self, name)
            case _:
                raise fail(errno.EISDIR)
        handle = next(self._handles)
        self._files[handle] = opened
        return handle

    def read(self, path: str | None, size: int, offset: int, fh: int) -> bytes:
        try:
            return self._files[fh].read(size, offset)
        except OopsError:
            self._oopses += 1
            if self._oops_kills:
                os.kill(mfusepy.fuse_get_context()[2], signal.SIGKILL)
            raise fail(errno.EFAULT) from None

    def write(self, path: str | None, data: bytes, offset: int, fh: int) -> int:
        return self._files[fh].write(data, offset)

    def flush(self, path: str | None, fh: int) -> int:
        self._files[fh].close()
        return 0  # the kernel ignores what a commit says

    def release(self, path: str | None, fh: int) -> int:
        del self._files[fh]
        return 0

    def truncate(self, path: str | None, length: int, fh: int | None = None) -> int:
        return 0  # shells open with O_TRUNC; configfs does not mind

    def _attributes(self, name: str) -> dict[str, int]:
        entry = self._tsm.entries.get(name)
        return {} if entry is None else dict(entry.attributes)

    def _attribute_status(self, entry: Entry, attribute: str, path: str | None) -> dict[str, Any]:
        size = 0 if attribute in BLOBS else 4096
        return self._status(stat.S_IFREG | entry.attributes[attribute], size, path)

    def _status(self, mode: int, size: int, path: str | None) -> dict[str, Any]:
        uid, gid = self._owners.get(path or "", (0, 0))
        return {"st_mode": mode, "st_nlink": 1, "st_size": size, "st_uid": uid, "st_gid": gid}


def _split(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _everybodys(mode: int) -> int:
    """The access modes that a file knows at all, whoever asks."""
    return (0o444 if mode & 0o444 else 0) | (0o222 if mode & 0o222 else 0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("mountpoint")
    parser.add_argument("--dialect", choices=sorted(SERVICE), default="mainline")
    parser.add_argument("--provider", default="tests.fakes.tsm_standin:Standin")
    parser.add_argument("--lifetime", type=int, default=900, metavar="SECONDS")
    arguments = parser.parse_args()
    signal.alarm(arguments.lifetime)
    module, _, factory = arguments.provider.partition(":")
    provider = getattr(importlib.import_module(module), factory)()
    with contextlib.suppress(KeyboardInterrupt):
        mfusepy.FUSE(
            TsmFiles(Tsm(provider, arguments.dialect), provider),
            arguments.mountpoint,
            foreground=True,
            direct_io=True,
            allow_other=True,
            default_permissions=True,
            attr_timeout=0,
            entry_timeout=0,
            negative_timeout=0,
            fsname="tsm",
        )


if __name__ == "__main__":
    main()
