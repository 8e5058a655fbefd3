"""The firmware event log: what the firmware says it measured into the PCRs, and a replay of it.

A log is a list of claims. Only a quote shows whether the registers hold what the log replays to.
Sources: TCG PC Client Platform Firmware Profile, Event Logging (crypto-agile log, TCG_PCR_EVENT2,
TCG_EfiSpecIDEvent, Startup Locality Event); TCG PC Client Platform TPM Profile, PCR initial values;
TCG Algorithm Registry. All integers are little-endian.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from app.errors import WireError
from app.wire.cursor import Cursor
from app.wire.event_types import EV_NO_ACTION
from app.wire.tpm import algorithms as alg
from app.wire.tpm.pcr import PCR_COUNT

STRUCTURE = "event log"
MAX_SIZE = 1 << 20  # bytes; firmware reserves 64 KiB to 256 KiB
MAX_EVENTS = 8192  # a boot loader that logs each of its commands comes to several hundred

# Every digest that a log may carry. What is no bank of ours is stepped over by its size.
DIGEST_SIZES = {
    **alg.HASH_SIZES,
    alg.SHA1: 20,
    0x0012: 32,  # SM3-256
    0x0027: 32,  # SHA3-256
    0x0028: 48,  # SHA3-384
    0x0029: 64,  # SHA3-512
}

SIGNATURE = b"Spec ID Event03\0"
_OLDER_SIGNATURES = (b"Spec ID Event00\0", b"Spec ID Event02\0")  # of TCG 1.2 logs: SHA-1 alone
_SHA1_SIZE = 20
_SPEC_MAJOR = 2
_UINTN_SIZES = (1, 2)  # 32 and 64 bits, in units of 4 bytes
_NO_PCR = 0xFFFFFFFF  # of an event that belongs to no register
_STARTUP_LOCALITY = b"StartupLocality\0"
_LOCALITIES = (0, 3, 4)  # TPM2_Startup takes 0 and 3; 4 is a hardware root of trust
_DRTM_PCRS = range(17, 23)  # all ones until a dynamic launch resets them
_PADDING = (b"\0", b"\xff")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecId:
    """The first record: which digests the events carry, and by which edition of the profile."""

    digest_sizes: Mapping[int, int]  # TPM_ALG_ID: bytes, in the log's order
    platform_class: int = 0  # 0 client, 1 server
    version_minor: int = 0
    version_major: int = _SPEC_MAJOR
    errata: int = 0
    uintn_size: int = 2
    vendor_info: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One record. `digests` were extended into `pcr`, unless the type is EV_NO_ACTION.

    Nothing binds `type` and `data`: only where the hash of `data` equals a digest is `data` what
    was measured, and what that means depends on the type.
    """

    pcr: int
    type: int
    digests: Mapping[int, bytes]  # TPM_ALG_ID: digest
    data: bytes
    offset: int = field(default=0, compare=False)  # in the log that it was read from

    @classmethod
    def measuring(
        cls, pcr: int, type_: int, data: bytes, hash_algs: Iterable[int], measured: bytes | None = None
    ) -> Self:
        """An event whose digests are those of `measured`, or of `data` where that is all there is."""
        text = data if measured is None else measured
        digests = {one: hashlib.new(alg.HASH_NAMES[one], text).digest() for one in hash_algs}
        return cls(pcr=pcr, type=type_, digests=digests, data=data)

    @property
    def extends(self) -> bool:
        """Did the event change its register? EV_NO_ACTION, of whatever content, never does."""
        return self.type != EV_NO_ACTION


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLog:
    """A crypto-agile log, complete: `encode` gives back the bytes that were read."""

    spec_id: SpecId
    events: tuple[Event, ...]  # without the first record
    padding: bytes = b""

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read a log of at most 1 MiB.

        Raises:
            WireError: more than MAX_SIZE bytes or MAX_EVENTS events; a log of SHA-1 digests alone;
                a first record that is not the Spec ID event; an algorithm that is unknown, named
                twice or of a wrong digest size; an event without digests, with one of an algorithm
                that the first record does not name or with two of one; an extended register above
                23; a start-up locality that contradicts itself; bytes left over, padding apart.
        """
        if len(raw) > MAX_SIZE:
            raise WireError(STRUCTURE, MAX_SIZE, f"{len(raw)} bytes, accepted are {MAX_SIZE}")
        cursor = Cursor(STRUCTURE, raw)
        spec_id = _read_first_record(cursor)
        events: list[Event] = []
        localities = 0
        end = min(len(raw.rstrip(pad)) for pad in _PADDING)
        while cursor.offset < end:
            if len(events) == MAX_EVENTS:
                raise cursor.fail(f"more than {MAX_EVENTS} events")
            event = _read_event(cursor, spec_id)
            if _locality(event) is not None:
                localities += 1
            if localities > 1:
                raise WireError(STRUCTURE, event.offset, "a second start-up locality")
            events.append(event)
        return cls(spec_id=spec_id, events=tuple(events), padding=raw[cursor.offset :])

    def encode(self) -> bytes:
        """The inverse of `parse`.

        Raises:
            WireError: the log is one that `parse` would not read.
        """
        raw = b"".join((_first_record(self.spec_id), *map(_record, self.events), self.padding))
        if type(self).parse(raw) != self:
            raise WireError(STRUCTURE, 0, "the log does not survive encoding")
        return raw

    @property
    def hash_algs(self) -> tuple[int, ...]:
        """The banks that the log speaks of and that are accepted here, in the log's order."""
        return tuple(one for one in self.spec_id.digest_sizes if one in alg.HASH_NAMES)

    @property
    def startup_locality(self) -> int:
        """The locality of TPM2_Startup, 0 unless the log says otherwise."""
        found = (_locality(event) for event in self.events)
        return next((locality for locality in found if locality is not None), 0)

    def extended(self, hash_alg: int) -> frozenset[int]:
        """The registers that the log extends in a bank."""
        return frozenset(event.pcr for event in self.events if event.extends and hash_alg in event.digests)

    def replay(self, hash_alg: int) -> tuple[bytes, ...]:
        """The 24 registers of a bank as the log leaves them, in order.

        They start from zeros, but PCR 0 ends in the start-up locality, and PCRs 17 to 22 are all
        ones (PC Client Platform TPM Profile, PCR initial values).

        Raises:
            WireError: the log carries no digests for this bank, or the bank is not accepted.
        """
        if hash_alg not in self.hash_algs:
            name = alg.HASH_NAMES.get(hash_alg, f"0x{hash_alg:04x}")
            raise WireError(STRUCTURE, 0, f"the log has no digests of bank {name}")
        size = alg.HASH_SIZES[hash_alg]
        pcrs = [(b"\xff" if pcr in _DRTM_PCRS else b"\0") * size for pcr in range(PCR_COUNT)]
        pcrs[0] = self.startup_locality.to_bytes(size, "big")
        for event in self.events:
            if event.extends and hash_alg in event.digests:
                pcrs[event.pcr] = extend(hash_alg, pcrs[event.pcr], event.digests[hash_alg])
        return tuple(pcrs)


def extend(hash_alg: int, value: bytes, digest: bytes) -> bytes:
    """TPM2_PCR_Extend: the register's value after a digest."""
    return hashlib.new(alg.HASH_NAMES[hash_alg], value + digest).digest()


def _read_first_record(cursor: Cursor) -> SpecId:
    pcr = cursor.integer(4, "PCR of the first record")
    kind = cursor.integer(4, "type of the first record")
    digest = cursor.take(_SHA1_SIZE, "digest of the first record")
    size = cursor.integer(4, "size of the first record")
    start = cursor.offset
    body = cursor.take(size, "first record")
    if body.startswith(_OLDER_SIGNATURES):
        raise WireError(STRUCTURE, start, "a log of SHA-1 digests alone (TCG 1.2) is not accepted")
    if kind != EV_NO_ACTION:
        reason = f"the first record has type 0x{kind:x}; without a Spec ID event a log is of SHA-1 alone"
        raise WireError(STRUCTURE, 4, reason)
    if pcr or any(digest):
        raise WireError(STRUCTURE, 0, "the first record belongs to PCR 0 and has a digest of zeros")
    inner = Cursor(STRUCTURE, body, base=start)
    if inner.take(len(SIGNATURE), "signature of the first record") != SIGNATURE:
        raise inner.fail("the first record is not Spec ID Event03", back=len(SIGNATURE))
    platform_class = inner.integer(4, "platform class")
    minor, major, errata = (inner.integer(1, what) for what in ("minor version", "major version", "errata"))
    if major != _SPEC_MAJOR:
        raise inner.fail(f"major version {major}, want {_SPEC_MAJOR}", back=2)
    uintn_size = inner.integer(1, "size of UINTN")
    if uintn_size not in _UINTN_SIZES:
        raise inner.fail(f"size of UINTN is {uintn_size}, want 1 or 2", back=1)
    sizes = _read_digest_sizes(inner)
    vendor_info = inner.take(inner.integer(1, "size of vendor information"), "vendor information")
    inner.end()
    return SpecId(
        digest_sizes=sizes,
        platform_class=platform_class,
        version_minor=minor,
        version_major=major,
        errata=errata,
        uintn_size=uintn_size,
        vendor_info=vendor_info,
    )


def _read_digest_sizes(cursor: Cursor) -> dict[int, int]:
    count = cursor.integer(4, "number of algorithms")
    if not 1 <= count <= len(DIGEST_SIZES):
        raise cursor.fail(f"{count} algorithms, want 1 to {len(DIGEST_SIZES)}", back=4)
    sizes: dict[int, int] = {}
    for _ in range(count):
        one = cursor.integer(2, "algorithm")
        size = cursor.integer(2, "digest size")
        if one not in DIGEST_SIZES:
            raise cursor.fail(f"algorithm 0x{one:04x} is no hash that is known", back=4)
        if one in sizes:
            raise cursor.fail(f"algorithm 0x{one:04x} is named twice", back=4)
        if size != DIGEST_SIZES[one]:
            want = DIGEST_SIZES[one]
            raise cursor.fail(f"a digest of algorithm 0x{one:04x} has {want} bytes, not {size}", back=2)
        sizes[one] = size
    return sizes


def _read_event(cursor: Cursor, spec_id: SpecId) -> Event:
    offset = cursor.offset
    pcr = cursor.integer(4, "PCR of an event")
    kind = cursor.integer(4, "type of an event")
    if pcr >= PCR_COUNT and not (kind == EV_NO_ACTION and pcr == _NO_PCR):
        raise WireError(STRUCTURE, offset, f"there is no PCR {pcr}")
    count = cursor.integer(4, "number of digests")
    # No digest at all would make an event of zeros, which could not be told from padding.
    if not 1 <= count <= len(spec_id.digest_sizes):
        want = len(spec_id.digest_sizes)
        raise cursor.fail(f"{count} digests, want 1 to {want}", back=4)
    digests: dict[int, bytes] = {}
    for _ in range(count):
        one = cursor.integer(2, "algorithm of a digest")
        if one not in spec_id.digest_sizes:
            raise cursor.fail(f"algorithm 0x{one:04x} is not one that the first record names", back=2)
        if one in digests:
            raise cursor.fail(f"a second digest of algorithm 0x{one:04x}", back=2)
        digests[one] = cursor.take(spec_id.digest_sizes[one], "digest")
    size = cursor.integer(4, "size of an event")
    data = cursor.take(size, "data of an event")
    event = Event(pcr=pcr, type=kind, digests=digests, data=data, offset=offset)
    _check_locality(event, cursor)
    return event


def _locality(event: Event) -> int | None:
    """The locality that a start-up locality event states."""
    if event.type == EV_NO_ACTION and event.data.startswith(_STARTUP_LOCALITY):
        return event.data[-1]
    return None


def _check_locality(event: Event, cursor: Cursor) -> None:
    locality = _locality(event)
    if locality is None:
        return
    if event.pcr or len(event.data) != len(_STARTUP_LOCALITY) + 1:
        raise WireError(STRUCTURE, event.offset, "a start-up locality is one byte, of PCR 0")
    if locality not in _LOCALITIES:
        raise cursor.fail(f"start-up locality {locality}, want one of {_LOCALITIES}", back=1)


def _first_record(spec_id: SpecId) -> bytes:
    sizes = spec_id.digest_sizes.items()
    body = (
        SIGNATURE
        + _little(spec_id.platform_class, 4)
        + _little(spec_id.version_minor, 1)
        + _little(spec_id.version_major, 1)
        + _little(spec_id.errata, 1)
        + _little(spec_id.uintn_size, 1)
        + _little(len(sizes), 4)
        + b"".join(_little(one, 2) + _little(size, 2) for one, size in sizes)
        + _little(len(spec_id.vendor_info), 1)
        + spec_id.vendor_info
    )
    return _little(0, 4) + _little(EV_NO_ACTION, 4) + bytes(_SHA1_SIZE) + _little(len(body), 4) + body


def _record(event: Event) -> bytes:
    digests = (_little(one, 2) + digest for one, digest in event.digests.items())
    return (
        _little(event.pcr, 4)
        + _little(event.type, 4)
        + _little(len(event.digests), 4)
        + b"".join(digests)
        + _little(len(event.data), 4)
        + event.data
    )


def _little(value: int, size: int) -> bytes:
    if not 0 <= value < 1 << 8 * size:
        raise WireError(STRUCTURE, 0, f"{value} does not fit {size} bytes")
    return value.to_bytes(size, "little")
