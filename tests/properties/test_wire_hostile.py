"""Bytes from outside: only typed errors come out, soon, and without taking much memory."""

import contextlib
import struct
import time
import tracemalloc
from itertools import chain
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omne_attest import vectors as omne

from app.wire.services_manifest import MAGIC, ServiceEntry, ServicesManifest
from tests.fuzz.seeds import own, published
from tests.fuzz.targets import TARGETS
from tests.properties.strategies import damaged
from tests.wire.samples import patched
from tests.wire.tpm import statements

SEEDS: dict[str, tuple[bytes, ...]] = {
    name: tuple(raw for target, raw in own() if target == name) for name in TARGETS
}


@pytest.mark.parametrize("name", TARGETS)
def test_our_seeds_are_accepted(name: str) -> None:
    assert all(TARGETS[name].feed(raw) for raw in SEEDS[name])


def test_only_crls_have_no_seed_of_ours() -> None:
    assert {name for name, seeds in SEEDS.items() if not seeds} == {"crl"}


def test_published_inputs_are_accepted_or_refused_properly(vectors: Path) -> None:
    accepted = dict.fromkeys(TARGETS, 0)
    for name, raw in published(vectors):
        accepted[name] += TARGETS[name].feed(raw)
    assert accepted["report"] > 60
    assert accepted["crl"] == 8
    assert accepted["certificate-table"] == accepted["offered"] == 7


@pytest.mark.parametrize("name", TARGETS)
@given(raw=st.binary(max_size=2048))
@settings(deadline=None)
def test_arbitrary_bytes(name: str, raw: bytes) -> None:
    TARGETS[name].feed(raw)


@pytest.mark.parametrize("name", [name for name in TARGETS if SEEDS[name]])
@given(data=st.data())
@settings(deadline=None)
def test_bytes_that_were_valid_once(name: str, data: st.DataObject) -> None:
    TARGETS[name].feed(data.draw(damaged(SEEDS[name])))


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
@settings(deadline=None, max_examples=25)
def test_one_structure_read_as_another(name: str, data: st.DataObject) -> None:
    TARGETS[name].feed(data.draw(st.sampled_from(tuple(chain(*SEEDS.values())))))


def test_a_bit_string_inside_a_name_is_no_certificate() -> None:
    # Found by fuzzing: cryptography takes it for a caller's mistake and raises TypeError.
    ark = omne.ark()
    value = ark.index(bytes.fromhex("550403")) + 3  # the tag after the OID of a common name
    assert ark[value] == 0x0C
    assert not TARGETS["certificates"].feed(patched(ark, (value, "03")))


def test_a_tpm_that_lists_the_last_handle_of_all_and_says_that_there_are_more() -> None:
    # Found by fuzzing: the next question would have begun after it, which no handle can say.
    lists = "09 8001 00000017 00000000 01 00000001 00000001 ffffffff"
    assert not TARGETS["tpm-answers"].feed(bytes.fromhex(lists))


def most_services() -> bytes:
    count = (65536 - 24) // 24
    # GUIDs whose numbers are equal modulo 2^61 - 1 have one hash.
    names = [UUID(int=number * (2**61 - 1)) for number in range(count)]
    return ServicesManifest(tuple(ServiceEntry(name, b"") for name in names)).encode()


def most_certificates() -> bytes:
    head = b"".join(UUID(int=n).bytes + (0).to_bytes(8, "little") for n in range(1, 65))
    return head + bytes(65536 - len(head))


def most_events() -> bytes:
    head = next(raw for target, raw in own() if target == "event-log")[: 32 + 37]
    empty = struct.pack("<IIIH32sI", 4, 4, 1, 0x000B, b"", 0)
    return head + empty * ((2**20 - len(head)) // len(empty))


LARGEST = {
    "report": bytes(2**20),
    "certificate-table": most_certificates(),
    "services-manifest": most_services(),
    "manifest": most_services(),
    "tpmt-public": bytes(2**20),
    "tpm2b-public": b"\xff\xff" + bytes(65535),
    "uefi-mm": bytes(2**20),
    "base64": b"A" * 2**20,
    "attest": statements.QUOTE + bytes(2**20),
    "tpmt-signature": statements.HMAC + bytes(2**20),
    "credential-file": statements.TOOLS_HEAD + b"\xff\xff" + bytes(65535) + b"\xff\xff" + bytes(65535),
    "import-blob": 3 * (b"\xff\xff" + bytes(65535)),
    "event-log": most_events(),
}


def cost(name: str, raw: bytes) -> tuple[float, int]:
    """Processor seconds of the fastest of three readings, and the most memory that another one held."""
    target = TARGETS[name]

    def read() -> float:
        started = time.thread_time()
        with contextlib.suppress(*target.refusals):
            target.read(raw)
        return time.thread_time() - started

    seconds = min(read() for _ in range(3))  # a busy machine makes one slow, not the fastest
    tracemalloc.start()
    try:
        with contextlib.suppress(*target.refusals):
            target.read(raw)
        return seconds, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_inputs_cost_little(name: str) -> None:
    raw = LARGEST[name]
    seconds, peak = cost(name, raw)
    # A quadratic reader needs 0.4 s for 64 KiB of services, and longer for a mebibyte of events.
    assert seconds < 0.2 + len(raw) / 2**20
    assert peak < 8 * len(raw) + 2**21


def test_sizes_that_an_input_claims_allocate_nothing() -> None:
    claims = {
        "certificate-table": b"\1" * 16 + b"\0\0\0\0" + b"\xff\xff\xff\xff" + bytes(24),
        "services-manifest": MAGIC + b"\x18\0\0\0" + b"\xff\xff\xff\xff",
        "manifest": bytes.fromhex("00000001ffffffff"),
        "tpmt-public": bytes.fromhex("0001000b00000000ffff"),
        "tpm2b-public": b"\xff\xff",
        "attest": statements.QUOTE[:6] + b"\xff\xff",
        "tpmt-signature": bytes.fromhex("0014000bffff"),
        "pcr-selection": b"\xff\xff\xff\xff",
        "credential-file": statements.TOOLS_HEAD + b"\xff\xff",
        "import-blob": b"\xff\xff",
        "uefi-variable": bytes(16) + b"\xff" * 16,
        "uefi-image-load": b"\xff" * 32,
    }
    for name, raw in claims.items():
        assert not TARGETS[name].feed(raw)
        assert cost(name, raw)[1] < 2**16, name
