import contextlib
import hashlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.errors import WireError
from app.wire import event_log
from app.wire import event_types as ev
from app.wire.event_log import MAX_EVENTS, MAX_SIZE, Event, EventLog
from app.wire.tpm import algorithms as alg
from tests.wire.event_logs import BANKS, event_logs, first_record, log, record, spec_id

SHA1, SHA256, SHA384 = (0x0004, 20), (0x000B, 32), (0x000C, 48)
ONES, TWOS = b"\x11" * 32, b"\x22" * 32
HEAD = first_record(SHA256)
LOCALITY = b"StartupLocality\0"


def refused(raw: bytes) -> WireError:
    with pytest.raises(WireError) as caught:
        EventLog.parse(raw)
    assert caught.value.structure == "event log"
    assert 0 <= caught.value.offset <= len(raw)
    return caught.value


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def test_a_log_written_by_the_fields_of_the_specification() -> None:
    raw = (
        first_record(SHA1, SHA256, platform_class=1, minor=3, errata=105, uintn_size=1, vendor=b"\2hi")
        + record(4, 0x80000003, b"where", (0x0004, b"\7" * 20), (0x000B, ONES))
        + record(0xFFFFFFFF, 3, b"SP800-155 Event", (0x000B, bytes(32)))
        + bytes(16)
    )
    parsed = EventLog.parse(raw)
    assert parsed.spec_id == spec_id(
        0x0004,
        0x000B,
        platform_class=1,
        version_minor=3,
        errata=105,
        uintn_size=1,
        vendor_info=b"hi",
    )
    image, reference = parsed.events
    assert (image.pcr, image.type, image.data) == (4, ev.EV_EFI_BOOT_SERVICES_APPLICATION, b"where")
    assert image.digests == {0x0004: b"\7" * 20, 0x000B: ONES}
    assert raw[image.offset :].startswith(b"\4\0\0\0\3\0\0\x80")
    assert (reference.pcr, reference.extends) == (0xFFFFFFFF, False)
    assert parsed.padding == bytes(16)
    assert parsed.hash_algs == (alg.SHA256,)
    assert parsed.encode() == raw


def test_a_replay_by_hand() -> None:
    events = (
        record(4, 4, b"", (0x000B, ONES))
        + record(4, 4, b"", (0x000B, TWOS))
        + record(7, 4, b"", (0x000B, TWOS))
    )
    replayed = EventLog.parse(HEAD + events).replay(alg.SHA256)
    assert len(replayed) == 24
    assert replayed[4] == sha256(sha256(bytes(32), ONES), TWOS)
    assert replayed[7] == sha256(bytes(32), TWOS)
    assert {replayed[pcr] for pcr in (*range(4), 5, 6, *range(8, 17), 23)} == {bytes(32)}
    assert {replayed[pcr] for pcr in range(17, 23)} == {b"\xff" * 32}


def test_a_bank_without_a_digest_of_an_event_does_not_move() -> None:
    raw = first_record(SHA256, SHA384) + record(1, 4, b"", (0x000C, b"\3" * 48))
    parsed = EventLog.parse(raw)
    assert parsed.replay(alg.SHA256)[1] == bytes(32)
    assert parsed.replay(alg.SHA384)[1] == hashlib.sha384(bytes(48) + b"\3" * 48).digest()
    assert (parsed.extended(alg.SHA256), parsed.extended(alg.SHA384)) == (frozenset(), frozenset({1}))


@pytest.mark.parametrize("data", [b"SP800-155 Event\0", b"SP800-155 Event3", b"", b"anything"])
def test_an_event_without_action_extends_nothing(data: bytes) -> None:
    parsed = EventLog.parse(HEAD + record(0, 3, data, (0x000B, ONES)))
    assert parsed.replay(alg.SHA256)[0] == bytes(32)
    assert parsed.extended(alg.SHA256) == frozenset()
    assert parsed.startup_locality == 0


@pytest.mark.parametrize("locality", [0, 3, 4])
def test_the_startup_locality_is_where_pcr_0_starts(locality: int) -> None:
    events = record(0, 3, LOCALITY + bytes([locality]), (0x000B, bytes(32))) + record(
        0, 4, b"", (0x000B, ONES)
    )
    parsed = EventLog.parse(HEAD + events)
    assert parsed.startup_locality == locality
    replayed = parsed.replay(alg.SHA256)
    assert replayed[0] == sha256(bytes(31), bytes([locality]), ONES)
    assert replayed[1] == bytes(32)
    # The same bytes in an event of another type are a measurement like any other.
    other = EventLog.parse(HEAD + record(0, 1, LOCALITY + b"\3", (0x000B, ONES)))
    assert other.startup_locality == 0


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (record(0, 3, LOCALITY, (0x000B, ONES)), "one byte"),
        (record(0, 3, LOCALITY + b"\3\0", (0x000B, ONES)), "one byte"),
        (record(1, 3, LOCALITY + b"\3", (0x000B, ONES)), "of PCR 0"),
        (record(0, 3, LOCALITY + b"\1", (0x000B, ONES)), "locality 1"),
        (record(0, 3, LOCALITY + b"\3", (0x000B, ONES)) * 2, "a second start-up locality"),
    ],
)
def test_a_startup_locality_that_cannot_be(event: bytes, reason: str) -> None:
    assert reason in refused(HEAD + event).reason


@pytest.mark.parametrize(
    ("raw", "offset", "reason"),
    [
        (b"", 0, "PCR of the first record"),
        (HEAD[:31], 28, "size of the first record"),
        (HEAD[:40], 32, "first record needs"),
        (first_record(SHA256, kind=8), 4, "SHA-1 alone"),
        (first_record(signature=b"Spec ID Event00\0"), 32, "SHA-1 digests alone"),
        (first_record(signature=b"Spec ID Event02\0"), 32, "SHA-1 digests alone"),
        (first_record(SHA256, signature=b"Spec ID Event04\0"), 32, "not Spec ID Event03"),
        (first_record(SHA256, pcr=1), 0, "PCR 0"),
        (first_record(SHA256, digest=b"\1"), 0, "zeros"),
        (first_record(SHA256, major=1), 53, "major version 1"),
        (first_record(SHA256, uintn_size=3), 55, "size of UINTN is 3"),
        (first_record(), 56, "0 algorithms"),
        (first_record(*[SHA256] * 9), 56, "9 algorithms"),
        (first_record(SHA256, SHA256), 64, "named twice"),
        (first_record(SHA256, (0x0010, 32)), 64, "0x0010 is no hash"),
        (first_record((0x000B, 20)), 62, "32 bytes, not 20"),
        (first_record((0x0027, 20)), 62, "32 bytes, not 20"),
        (first_record(SHA256, count=2), 64, "algorithm needs"),
        (first_record(SHA256, vendor=b"\5abc"), 65, "vendor information needs 5"),
        (first_record(SHA256, rest=b"\0"), 65, "1 bytes follow"),
        (HEAD + b"\1", 65, "PCR of an event"),
        (HEAD + record(24, 4, b"", (0x000B, ONES)), 65, "no PCR 24"),
        (HEAD + record(24, 3, b"", (0x000B, ONES)), 65, "no PCR 24"),
        (HEAD + record(0xFFFFFFFF, 4, b"", (0x000B, ONES)), 65, "no PCR 4294967295"),
        (HEAD + record(1, 4, b""), 73, "0 digests"),
        (HEAD + record(1, 4, b"", (0x000B, ONES), (0x000B, ONES)), 73, "2 digests, want 1 to 1"),
        (
            first_record(SHA256, SHA1) + record(1, 4, b"", (0x000B, ONES), (0x000B, ONES)),
            115,
            "a second digest",
        ),
        (HEAD + record(1, 4, b"", (0x000C, bytes(48))), 77, "0x000c is not one that the first record names"),
        (HEAD + record(1, 4, b"", (0x000B, ONES[:31])), 111, "size of an event"),
        (HEAD + record(1, 4, b"abc", (0x000B, ONES), size=4), 115, "data of an event needs 4 bytes, 3 left"),
        (HEAD + record(1, 4, b"abc", (0x000B, ONES), size=2**32 - 1), 115, "data of an event needs"),
        (HEAD + bytes(15) + b"\1", 73, "0 digests"),
        (HEAD + b"\xff" * 15 + b"\0", 65, "no PCR"),
        (HEAD + b"\0" * 8 + b"\xff" * 8, 73, "4294967295 digests"),
        (bytes(MAX_SIZE + 1), MAX_SIZE, "1048577 bytes"),
    ],
)
def test_what_is_refused_and_where(raw: bytes, offset: int, reason: str) -> None:
    error = refused(raw)
    assert reason in error.reason
    assert error.offset == offset


@pytest.mark.parametrize("size", [1, 3, 16, 45, 1000])
@pytest.mark.parametrize("pad", [b"\0", b"\xff"])
def test_padding_ends_a_log_and_nothing_else(pad: bytes, size: int) -> None:
    event = record(1, 4, b"ends in zeros\0\0\0\0", (0x000B, ONES))
    raw = HEAD + event + pad * size
    parsed = EventLog.parse(raw)
    assert (len(parsed.events), parsed.padding) == (1, pad * size)
    assert parsed.encode() == raw
    refused(raw + event)
    refused(raw[:-1] + b"\5") if size > 3 else refused(raw + b"\5")


def test_a_log_of_all_zeros_or_ones_is_no_log() -> None:
    refused(bytes(1000))
    refused(b"\xff" * 1000)


def test_as_many_events_as_allowed() -> None:
    event = record(1, 4, b"", (0x000B, ONES))
    assert len(EventLog.parse(HEAD + event * MAX_EVENTS).events) == MAX_EVENTS
    assert "more than 8192" in refused(HEAD + event * (MAX_EVENTS + 1)).reason


def test_padding_is_looked_for_once() -> None:
    """Zeros at the start of many events must not make each look through the rest of the log."""
    event = record(0, 4, b"", (0x000B, bytes(32)))
    raw = HEAD + event * MAX_EVENTS + bytes(MAX_SIZE - len(HEAD) - len(event) * MAX_EVENTS)
    assert len(EventLog.parse(raw).events) == MAX_EVENTS


@pytest.mark.parametrize("bank", [alg.SHA384, alg.SHA1, 0x9999])
def test_a_bank_that_cannot_be_replayed(bank: int) -> None:
    parsed = EventLog.parse(first_record(SHA256, SHA1))
    with pytest.raises(WireError, match="no digests of bank"):
        parsed.replay(bank)


def test_measuring_hashes_the_data_or_what_was_measured_instead() -> None:
    plain = Event.measuring(8, ev.EV_IPL, b"text", BANKS)
    assert plain.digests == {
        alg.SHA256: hashlib.sha256(b"text").digest(),
        alg.SHA384: hashlib.sha384(b"text").digest(),
    }
    other = Event.measuring(8, ev.EV_IPL, b"text", BANKS, b"")
    assert other.digests[alg.SHA256] == sha256()
    assert (other.data, other.extends) == (b"text", True)


@pytest.mark.parametrize(
    "unwritable",
    [
        log(Event(pcr=24, type=4, digests={alg.SHA256: ONES}, data=b"")),
        log(Event(pcr=-1, type=4, digests={alg.SHA256: ONES}, data=b"")),
        log(Event(pcr=0, type=2**32, digests={alg.SHA256: ONES}, data=b"")),
        log(Event(pcr=0, type=4, digests={alg.SHA256: ONES[1:]}, data=b"")),
        log(Event(pcr=0, type=4, digests={}, data=b"")),
        log(padding=b"\0\xff"),
        log(padding=record(1, 4, b"", (0x000B, ONES))),
        log(banks=()),
        EventLog(spec_id=spec_id(alg.SHA256, uintn_size=256), events=()),
        EventLog(spec_id=spec_id(alg.SHA256, vendor_info=bytes(256)), events=()),
    ],
)
def test_what_could_not_be_read_is_not_written(unwritable: EventLog) -> None:
    with pytest.raises(WireError):
        unwritable.encode()


@given(event_logs())
def test_encode_then_parse_is_identity(made: EventLog) -> None:
    with contextlib.suppress(WireError):  # data may happen to be an impossible start-up locality
        raw = made.encode()
        parsed = EventLog.parse(raw)
        assert parsed == made
        assert parsed.encode() == raw
        assert [raw[event.offset] for event in parsed.events] == [event.pcr & 0xFF for event in parsed.events]


@given(event_logs(), st.data())
def test_a_truncated_log_is_refused_or_a_beginning_of_it(made: EventLog, data: st.DataObject) -> None:
    raw = made.encode()
    cut = data.draw(st.integers(0, len(raw) - 1))
    try:
        shorter = EventLog.parse(raw[:cut])
    except WireError:
        return
    # What is left of a record that begins in zeros may look like padding; an event it never is.
    assert shorter.spec_id == made.spec_id
    assert shorter.events == made.events[: len(shorter.events)]
    assert shorter.encode() == raw[:cut]


@given(st.binary(max_size=300))
@example(HEAD[:-1])
def test_arbitrary_bytes_raise_only_wire_error(raw: bytes) -> None:
    for attempt in (raw, HEAD + raw):
        with contextlib.suppress(WireError):
            parsed = EventLog.parse(attempt)
            assert parsed.encode() == attempt
            parsed.replay(alg.SHA256)


@given(event_logs(), st.data())
def test_a_damaged_log_is_refused_or_another_log(made: EventLog, data: st.DataObject) -> None:
    raw = bytearray(made.encode())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(WireError):
        parsed = EventLog.parse(bytes(raw))
        assert parsed != made
        assert parsed.encode() == bytes(raw)


def test_every_type_has_a_name() -> None:
    assert ev.NAMES[ev.EV_IPL] == "EV_IPL"
    assert ev.NAMES[0x80000001] == "EV_EFI_VARIABLE_DRIVER_CONFIG"
    assert event_log.STRUCTURE == "event log"
