"""Event logs to start from: one written down field by field, and strategies for arbitrary ones."""

import struct
from typing import Any

from hypothesis import strategies as st

from app.wire import event_types as ev
from app.wire.event_log import DIGEST_SIZES, Event, EventLog, SpecId
from app.wire.tpm import algorithms as alg

BANKS = (alg.SHA256, alg.SHA384)


def first_record(
    *algorithms: tuple[int, int],
    signature: bytes = b"Spec ID Event03\0",
    pcr: int = 0,
    kind: int = 3,
    **body: Any,
) -> bytes:
    """The Spec ID event, by the fields of the specification."""
    spec = signature + struct.pack(
        "<IBBBBI",
        body.get("platform_class", 0),
        body.get("minor", 0),
        body.get("major", 2),
        body.get("errata", 0),
        body.get("uintn_size", 2),
        body.get("count", len(algorithms)),
    )
    spec += b"".join(struct.pack("<HH", *one) for one in algorithms)
    spec += bytes(body.get("vendor", b"\0")) + bytes(body.get("rest", b""))
    return struct.pack("<II20sI", pcr, kind, body.get("digest", b""), len(spec)) + spec


def record(pcr: int, kind: int, data: bytes, *digests: tuple[int, bytes], size: int | None = None) -> bytes:
    """TCG_PCR_EVENT2, by the fields of the specification."""
    listed = b"".join(struct.pack("<H", one) + digest for one, digest in digests)
    return (
        struct.pack("<III", pcr, kind, len(digests))
        + listed
        + struct.pack("<I", len(data) if size is None else size)
        + data
    )


def spec_id(*banks: int, **more: Any) -> SpecId:
    """A first record that names these banks."""
    return SpecId(digest_sizes={one: DIGEST_SIZES[one] for one in banks}, **more)


def log(*events: Event, banks: tuple[int, ...] = BANKS, padding: bytes = b"") -> EventLog:
    """A log of these events."""
    return EventLog(spec_id=spec_id(*banks), events=events, padding=padding)


@st.composite
def event_logs(draw: st.DrawFn) -> EventLog:
    """Any log that may be written."""
    banks = draw(st.lists(st.sampled_from(sorted(DIGEST_SIZES)), min_size=1, max_size=4, unique=True))
    return EventLog(
        spec_id=spec_id(
            *banks,
            platform_class=draw(st.integers(0, 2**32 - 1)),
            version_minor=draw(st.integers(0, 255)),
            errata=draw(st.integers(0, 255)),
            uintn_size=draw(st.sampled_from([1, 2])),
            vendor_info=draw(st.binary(max_size=8)),
        ),
        events=tuple(draw(st.lists(_events(banks), max_size=6))),
        padding=draw(st.sampled_from([b"\0", b"\xff"])) * draw(st.integers(0, 40)),
    )


@st.composite
def _events(draw: st.DrawFn, banks: list[int]) -> Event:
    kind = draw(st.sampled_from([*ev.NAMES, 0x7FFFFFFF]))
    chosen = draw(st.lists(st.sampled_from(banks), min_size=1, unique=True))
    return Event(
        pcr=draw(st.integers(0, 23) | st.just(0xFFFFFFFF) if kind == ev.EV_NO_ACTION else st.integers(0, 23)),
        type=kind,
        digests={
            one: draw(st.binary(min_size=DIGEST_SIZES[one], max_size=DIGEST_SIZES[one])) for one in chosen
        },
        data=draw(st.binary(max_size=24)),
    )
