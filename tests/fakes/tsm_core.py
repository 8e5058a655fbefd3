"""The kernel's TSM report core and its configfs files, as a model in plain Python.

What the core does with reads and writes: generations, the report that is made by the first
read and kept until the next accepted write, the GUID that a refused write nulls, the one lock
around everything. Who makes the reports is a Provider's business; how the files reach other
processes, tsm_fuse.py's.

Source: Linux 6.12 drivers/virt/coco/tsm.c and fs/configfs/file.c, as their behaviour was
recorded on a running kernel.
"""

import errno
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

MAX_INBLOB = 64
MAX_BLOB = 32 * 1024
MAX_PRIVLEVEL = 3
_PAGE = 4096
_U32 = (1 << 32) - 1
_GUID = re.compile(rb"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_NULL = UUID(int=0)


def fail(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@dataclass
class Request:
    """What an entry asks of the provider."""

    inblob: bytes = b""
    privlevel: int = 0
    service_provider: str | None = None
    service_guid: UUID = _NULL
    manifest_version: int = 0


@dataclass(frozen=True)
class Answer:
    outblob: bytes
    manifestblob: bytes = b""
    auxblob: bytes = b""


class Provider(Protocol):
    """The driver behind the core, sev-guest in a real VM."""

    name: str

    @property
    def privlevel_floor(self) -> int: ...

    @property
    def offers_svsm(self) -> bool:
        """Are the service attributes visible?"""

    def report_new(self, request: Request) -> Answer:
        """Make a report, or raise OSError with the driver's errno. Called with the core's lock held."""


class OopsError(Exception):
    """The kernel would follow a null pointer here, with its lock held."""


@dataclass
class Entry:
    request: Request = field(default_factory=Request)
    attributes: Mapping[str, int] = field(default_factory=dict)  # name: mode
    written: int = 0  # what `generation` shows
    read: int = 0
    outblob: bytes | None = None
    # An absent blob leaves the length of the one before in place, as the driver does.
    manifestblob: bytes = b""
    auxblob: bytes | None = None
    auxblob_size: int = 0
    removed: bool = False


TEXT_READ = {"generation": 0o444, "provider": 0o444, "privlevel_floor": 0o444}
TEXT_WRITE = {"privlevel": 0o200}
BINARY = {"inblob": 0o200, "outblob": 0o444, "auxblob": 0o444}
SERVICE = {
    "mainline": {
        "service_provider": 0o200,
        "service_guid": 0o200,
        "service_manifest_version": 0o200,
        "manifestblob": 0o444,
    },
    "development": {"svsm": 0o200, "service_guid": 0o200, "service_version": 0o200, "manifestblob": 0o444},
}
BLOBS = ("inblob", "outblob", "auxblob", "manifestblob")  # stat says 0 bytes; the others say one page


class Tsm:
    """Every entry below tsm/report, and the lock that all of them share."""

    def __init__(self, provider: Provider, dialect: str = "mainline") -> None:
        self.provider: Provider | None = provider
        self.dialect = dialect
        self.entries: dict[str, Entry] = {}
        self.text_limit = _PAGE - 1  # bytes that a text attribute takes of one write
        self.disturb = 0  # so many reports are followed by a write of somebody else's
        self.lock = threading.Lock()

    def register(self, provider: Provider) -> None:
        with self.lock:
            if self.provider is not None or self.entries:
                raise fail(errno.EBUSY)
            self.provider = provider

    def unregister(self) -> None:
        with self.lock:
            self.provider = None

    def make(self, name: str) -> None:
        with self.lock:
            if self.provider is None:
                raise fail(errno.ENXIO)
            shown = TEXT_READ | TEXT_WRITE | BINARY
            if self.provider.offers_svsm:
                shown |= SERVICE[self.dialect]
            self.entries[name] = Entry(attributes=shown)

    def remove(self, name: str) -> None:
        self.entries.pop(name).removed = True

    # Text attributes

    def show(self, entry: Entry, attribute: str) -> bytes:
        with self.lock:
            if attribute == "generation":
                return b"%d\n" % entry.written
            if self.provider is None:
                raise fail(errno.ENXIO)
            if attribute == "provider":
                return self.provider.name.encode() + b"\n"
            return b"%d\n" % self.provider.privlevel_floor

    def store(self, entry: Entry, attribute: str, value: bytes) -> int:
        """One write() to a text attribute; what configfs would make of it at once."""
        value = value[: self.text_limit]
        stores: dict[str, Callable[[Entry, bytes], None]] = {
            "privlevel": self._store_privlevel,
            "service_provider": self._store_provider,
            "svsm": self._store_svsm,
            "service_guid": self._store_guid,
            "service_manifest_version": self._store_version,
            "service_version": self._store_version,
        }
        stores[attribute](entry, value)
        return len(value)

    def _store_privlevel(self, entry: Entry, value: bytes) -> None:
        level = parse_u32(value)
        with self.lock:
            if self.provider is None:
                raise fail(errno.ENXIO)
            if not self.provider.privlevel_floor <= level <= MAX_PRIVLEVEL:
                raise fail(errno.EINVAL)
            self._advance(entry)
            entry.request.privlevel = level

    def _store_provider(self, entry: Entry, value: bytes) -> None:
        with self.lock:
            self._advance(entry)
            entry.request.service_provider = value.removesuffix(b"\n").decode("latin-1")

    def _store_svsm(self, entry: Entry, value: bytes) -> None:
        chosen = parse_u32(value)
        with self.lock:
            self._advance(entry)
            entry.request.service_provider = "svsm" if chosen else None

    def _store_guid(self, entry: Entry, value: bytes) -> None:
        with self.lock:
            self._advance(entry)
            entry.request.service_guid = _NULL  # and so it stays if the text is none
            if (match := _GUID.match(value)) is None:
                raise fail(errno.EINVAL)
            entry.request.service_guid = UUID(match[0].decode("ascii"))

    def _store_version(self, entry: Entry, value: bytes) -> None:
        version = parse_u32(value)
        with self.lock:
            self._advance(entry)
            entry.request.manifest_version = version

    # Blobs

    def commit_inblob(self, entry: Entry, value: bytes) -> None:
        with self.lock:
            self._advance(entry)
            entry.request.inblob = value

    def blob(self, entry: Entry, attribute: str) -> bytes:
        with self.lock:
            if entry.removed:
                raise fail(errno.ENOENT)
            if not entry.request.inblob:
                raise fail(errno.EINVAL)
            if entry.outblob is None or entry.read != entry.written:
                self._generate(entry)
            content = self._content(entry, attribute)
            if len(content) > MAX_BLOB:
                raise fail(errno.EFBIG)
            return content

    def _generate(self, entry: Entry) -> None:
        if self.provider is None:
            raise fail(errno.ENXIO)
        entry.outblob = entry.auxblob = None
        answer = self.provider.report_new(entry.request)
        entry.outblob = answer.outblob
        entry.manifestblob = answer.manifestblob or entry.manifestblob
        if answer.auxblob:
            entry.auxblob, entry.auxblob_size = answer.auxblob, len(answer.auxblob)
        entry.read = entry.written
        if self.disturb:
            self.disturb -= 1
            self._advance(entry)

    @staticmethod
    def _content(entry: Entry, attribute: str) -> bytes:
        if attribute == "outblob":
            assert entry.outblob is not None
            return entry.outblob
        if attribute == "manifestblob":
            return entry.manifestblob
        if entry.auxblob is None and entry.auxblob_size:
            raise OopsError
        return entry.auxblob or b""

    @staticmethod
    def _advance(entry: Entry) -> None:
        entry.written += 1


@dataclass
class OpenFile:
    """One open attribute. What was read through it once stays what it says."""

    tsm: Tsm
    entry: Entry
    attribute: str
    snapshot: bytes | None = None
    inblob: bytearray | None = None

    def read(self, size: int, offset: int) -> bytes:
        if self.snapshot is None:
            fill = self.tsm.blob if self.attribute in BLOBS else self.tsm.show
            self.snapshot = fill(self.entry, self.attribute)
        return self.snapshot[offset : offset + size]

    def write(self, data: bytes, offset: int) -> int:
        if self.attribute != "inblob":
            return self.tsm.store(self.entry, self.attribute, data)
        if self.inblob is None:
            self.inblob = bytearray()
        end = offset + len(data)
        if end > MAX_INBLOB:
            raise fail(errno.EFBIG)
        self.inblob.extend(bytes(max(0, end - len(self.inblob))))
        self.inblob[offset:end] = data
        return len(data)

    def close(self) -> None:
        """Commit what was written to inblob, be it nothing because all of it was refused."""
        if self.inblob is not None:
            content, self.inblob = bytes(self.inblob), None
            self.tsm.commit_inblob(self.entry, content)


def parse_u32(text: bytes) -> int:
    """As kstrtouint with base 0: one newline may follow, nothing may precede."""
    match = re.fullmatch(rb"\+?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)\n?", text)
    if match is None:
        raise fail(errno.EINVAL)
    digits = match[1]
    base = 16 if digits[:2].lower() == b"0x" else 8 if digits[:1] == b"0" else 10
    value = int(digits, base)
    if value > _U32:
        raise fail(errno.ERANGE)
    return value
