"""Damaged reports: we and two other parsers must agree on which are reports, but for known leniency."""

from hypothesis import given, settings
from hypothesis import strategies as st
from omne_attest import snp as omne
from omne_attest import vectors

from app.errors import WireError
from app.wire.report import AttestationReport
from tests.properties.strategies import damaged
from tests.wire.other_parsers import tinfoil_reports
from tests.wire.samples import patched, report

ZERO_TCBS = [(offset, bytes(8)) for offset in (0x38, 0x180, 0x1E0, 0x1F0)]
# Bases that all three read: tinfoil knows no VLEK, and only the TCB layout before Turin.
BASES = (
    vectors.attestation(),
    patched(report(3), (0x48, "00"), *ZERO_TCBS),
    patched(report(5), (0x48, "00"), *ZERO_TCBS),
)


def ours(raw: bytes) -> AttestationReport | None:
    try:
        return AttestationReport.parse(raw)
    except WireError:
        return None


def tinfoil_reads(raw: bytes) -> bool:
    try:
        tinfoil_reports().Report(raw)
    except ValueError:
        return False
    return True


def omne_reads(raw: bytes) -> bool:
    try:
        omne.Report.parse(raw)
    except omne.Fail:
        return False
    return True


@st.composite
def same_size(draw: st.DrawFn) -> bytes:
    """A report with a few bits of a few bytes changed."""
    raw = bytearray(draw(st.sampled_from(BASES)))
    for _ in range(draw(st.integers(1, 3))):
        raw[draw(st.integers(0, len(raw) - 1))] ^= draw(st.sampled_from((1, 2, 4, 0x10, 0x80)))
    return bytes(raw)


@given(raw=st.one_of(same_size(), damaged(BASES)))
@settings(max_examples=200, deadline=None)
def test_tinfoil_and_we_agree(raw: bytes) -> None:
    mine, theirs = ours(raw), tinfoil_reads(raw)
    if mine is None and theirs:
        # It reads on past the end, takes any version from 2 up and any signature algorithm.
        version, algorithm = (int.from_bytes(raw[at : at + 4], "little") for at in (0x00, 0x34))
        assert len(raw) > 1184 or version > 5 or algorithm != 1
    if mine is not None and not theirs:
        # It knows no VLEK, and no FMC in a TCB.
        tcbs = (mine.current_tcb, mine.reported_tcb, mine.committed_tcb, mine.launch_tcb)
        assert mine.key_info.signing_key != 0 or any(any(tcb[2:6]) for tcb in tcbs)


@given(raw=st.one_of(same_size(), damaged(BASES)))
@settings(max_examples=100, deadline=None)
def test_omne_reads_whatever_we_read(raw: bytes) -> None:
    # It checks no reserved byte, so the reverse does not hold.
    assert ours(raw) is None or omne_reads(raw)


def test_the_bases_are_read_by_all_three() -> None:
    assert all(ours(raw) and tinfoil_reads(raw) and omne_reads(raw) for raw in BASES)
