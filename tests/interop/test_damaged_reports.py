"""Damaged real reports: we and the oracles must agree on which of them their keys signed."""

from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from omne_attest import vectors as omne

from app.errors import WireError
from app.trust.certificates import load_certificate
from app.trust.signature import verify_report_signature
from app.wire.report import REPORT_SIZE, SIGNED_SIZE, AttestationReport
from tests.acceptance.cases import available, real_cases
from tests.interop.oracles import ACCEPTS, ORACLES, OmneAttest, Oracle
from tests.interop.peers.verdict import Answer
from tests.wire.samples import REPORT_FIELDS, patched

# Order of the group of P-384 (FIPS 186-4, D.1.2.4)
ORDER = int(
    "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973", 16
)
R, S, NUMBER_SIZE, SCALAR_SIZE = 0x2A0, 0x2E8, 72, 48
FIELDS = (*((offset, size) for offset, size, _ in REPORT_FIELDS), (R, NUMBER_SIZE), (S, NUMBER_SIZE))
SAME_SIZE = [(a, b, size) for a, size in FIELDS for b, other in FIELDS if a < b and size == other]
EDGES = [0, 1, ORDER - 1, ORDER, ORDER + 1, 2**384 - 1, 2**384, 2**576 - 1]


@cache
def signed_reports() -> tuple[tuple[bytes, bytes], ...]:
    """Real reports, each with its leaf: that of omne-attest and, where they are, the published ones."""
    genuine = [case for case in real_cases() if case.expected.genuine] if available() else []
    published = [(case.report.read_bytes(), case.certificates[0].read_bytes()) for case in genuine]
    return ((omne.attestation(), omne.vcek()), *published)


def number(report: bytes, offset: int) -> int:
    return int.from_bytes(report[offset : offset + NUMBER_SIZE], "little")


def with_number(report: bytes, offset: int, value: int) -> bytes:
    return patched(report, (offset, value.to_bytes(NUMBER_SIZE, "little")))


def mirrored(report: bytes) -> bytes:
    """(R, n - S), the second valid signature."""
    return with_number(report, S, ORDER - number(report, S))


@st.composite
def replaced(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A few bytes with other values, or with those they have."""
    report, leaf = draw(st.sampled_from(signed_reports()))
    places = st.integers(0, REPORT_SIZE - 1) | st.sampled_from([offset for offset, _ in FIELDS])
    changes = draw(st.lists(st.tuples(places, st.binary(min_size=1, max_size=1)), min_size=1, max_size=3))
    return patched(report, *changes), leaf


@st.composite
def swapped(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Two fields of one size in each other's place."""
    report, leaf = draw(st.sampled_from(signed_reports()))
    one, other, size = draw(st.sampled_from(SAME_SIZE))
    first, second = report[one : one + size], report[other : other + size]
    return patched(report, (one, second), (other, first)), leaf


@st.composite
def spliced(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """The beginning of one report and the end of another, with the leaf of either."""
    (first, one), (second, other) = (draw(st.sampled_from(signed_reports())) for _ in range(2))
    at = draw(st.integers(0, REPORT_SIZE) | st.sampled_from([SIGNED_SIZE, *(at for at, _ in FIELDS)]))
    return first[:at] + second[at:], draw(st.sampled_from((one, other)))


@st.composite
def resigned(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Other numbers in the signature: the edges of the group, the mirror image, bits beyond the group."""
    report, leaf = draw(st.sampled_from(signed_reports()))
    if draw(st.booleans()):
        report = mirrored(report)
    for offset in draw(st.sampled_from([(), (R,), (S,), (R, S)])):
        own, beyond = number(report, offset), draw(st.integers(0, 2**192 - 1)) << 384
        report = with_number(report, offset, draw(st.sampled_from([*EDGES, own, own + ORDER, own | beyond])))
    return report, leaf


def we_say(report: bytes, leaf: bytes) -> bool | None:
    """Did this leaf's key sign it? None: it is no report."""
    try:
        parsed = AttestationReport.parse(report)
    except WireError:
        return None
    return verify_report_signature(parsed, load_certificate(leaf, "leaf"))


def tinfoil_reads(report: bytes) -> bool:
    """It knows no VLEK, and no FMC in a TCB."""
    parsed = AttestationReport.parse(report)
    tcbs = (parsed.current_tcb, parsed.reported_tcb, parsed.committed_tcb, parsed.launch_tcb)
    return parsed.key_info.signing_key == 0 and not any(any(tcb[2:6]) for tcb in tcbs)


def reads_no_more_than_384_bits(oracle: Oracle, report: bytes) -> bool:
    """omne-attest's known fault: of R and S it ignores what is beyond the size of the group."""
    return isinstance(oracle, OmneAttest) and max(number(report, R), number(report, S)) >> 8 * SCALAR_SIZE > 0


@pytest.mark.parametrize("change", [bytes, mirrored], ids=["as it is", "with the second signature"])
def test_what_real_hardware_signed_is_signed(change: Callable[[bytes], bytes]) -> None:
    for original, leaf in signed_reports():
        report = change(original)
        assert we_say(report, leaf)
        answers = {oracle.name: oracle.signed(report, leaf) for oracle in ORACLES}
        assert answers["omne-attest"] == ACCEPTS
        assert answers["tinfoil"] == ACCEPTS or not tinfoil_reads(report), answers


def test_numbers_beyond_the_group_are_refused_although_omne_attest_takes_them() -> None:
    report, leaf = signed_reports()[0]
    for offset in (R, S):
        damaged = with_number(report, offset, number(report, offset) | 1 << 575)
        assert we_say(damaged, leaf) is False
        assert {oracle.name for oracle in ORACLES if oracle.signed(damaged, leaf) == ACCEPTS} == {
            "omne-attest"
        }


@given(damaged=st.one_of(replaced(), swapped(), spliced(), resigned()))
@settings(max_examples=400, deadline=None)
def test_neither_accepts_a_signature_that_the_other_refuses(damaged: tuple[bytes, bytes]) -> None:
    report, leaf = damaged
    ours = we_say(report, leaf)
    event(f"we say {ours}")
    for oracle in ORACLES:
        theirs = oracle.signed(report, leaf)
        assert theirs.answer is not Answer.FAILS, theirs
        refuses_signature = theirs.answer is Answer.REFUSES and oracle.not_signed in theirs.detail
        assert not (ours is True and refuses_signature), (oracle.name, theirs)
        if ours is False and theirs.answer is Answer.ACCEPTS:
            assert reads_no_more_than_384_bits(oracle, report), oracle.name
