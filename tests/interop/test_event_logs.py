"""Event logs beside a TPM that was told the same, and beside tpm2_eventlog."""

import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from app.appraisal.event_log_checks import check_event_log
from app.appraisal.findings import Outcome
from app.wire import event_types as ev
from app.wire.event_log import Event, EventLog
from app.wire.tpm import algorithms as alg
from app.wire.tpm.pcr import PcrValues
from tests.appraisal.measured import BANKS, event, log, secure_boot, separator
from tests.interop.software_tpm import BareTpm, SoftwareTpm, bare_tpm, software_tpm

FIRMWARE_PCRS = (*range(17), 23)  # a TPM lets locality 0 extend these
CMD_SET_LOCALITY = 5  # swtpm_ioctl(3)


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[SoftwareTpm]:
    with software_tpm(tmp_path) as running:
        yield running


def measure(tpm: SoftwareTpm, events: tuple[Event, ...]) -> None:
    """Tell the TPM what the events say was measured, one by one and in order."""
    told = [
        f"{one.pcr}:"
        + ",".join(f"{alg.HASH_NAMES[bank]}={value.hex()}" for bank, value in one.digests.items())
        for one in events
        if one.extends
    ]
    tpm.run("tpm2_pcrextend", *told)


def read(tpm: SoftwareTpm) -> PcrValues:
    """All registers of both banks, as tpm2_pcrread prints them."""
    printed = yaml.safe_load(tpm.run("tpm2_pcrread", "sha256:all+sha384:all"))
    sizes = {alg.HASH_NAMES[bank]: alg.HASH_SIZES[bank] for bank in BANKS}
    return PcrValues.of(
        {
            bank: {pcr: value.to_bytes(sizes[bank], "big") for pcr, value in registers.items()}
            for bank, registers in printed.items()
        }
    )


def held(values: PcrValues, bank: int) -> tuple[bytes, ...]:
    return values.values[BANKS.index(bank)]


def printed_by_tpm2_eventlog(tpm: SoftwareTpm, raw: bytes) -> dict[str, dict[int, bytes]]:
    """The registers that tpm2_eventlog replays a log to."""
    known = yaml.safe_load(tpm.run("tpm2_eventlog", tpm.write("log", raw)))["pcrs"]
    sizes = {alg.HASH_NAMES[bank]: alg.HASH_SIZES[bank] for bank in BANKS}
    return {
        bank: {pcr: value.to_bytes(sizes[bank], "big") for pcr, value in known[bank].items()}
        for bank in sizes
    }


def some_log(seed: int) -> EventLog:
    chosen = random.Random(seed)  # noqa: S311 -- arbitrary events, the same at every run
    return log(
        *(
            event(chosen.choice(FIRMWARE_PCRS), ev.EV_EVENT_TAG, chosen.randbytes(chosen.randrange(60)))
            for _ in range(60)
        )
    )


BOOT = log(
    *(separator(pcr) for pcr in range(7)),
    *secure_boot(),
    event(4, ev.EV_EFI_ACTION, b"Calling EFI Application from Boot Option"),
    event(5, ev.EV_EFI_ACTION, b"Exit Boot Services Invocation"),
    event(9, ev.EV_IPL, b"/vmlinuz\0", b"kernel"),
)


@pytest.mark.parametrize("measured", [BOOT, some_log(1), some_log(2)], ids=["boot", "some", "more"])
def test_a_tpm_that_was_told_a_log_holds_what_the_log_replays_to(
    measured: EventLog, tpm: SoftwareTpm
) -> None:
    parsed = EventLog.parse(measured.encode())
    measure(tpm, parsed.events)
    values = read(tpm)
    for bank in BANKS:
        assert held(values, bank) == parsed.replay(bank)
    assert check_event_log(parsed, values).outcome is Outcome.PASSED


def test_one_measurement_more_is_found_in_its_register(tpm: SoftwareTpm) -> None:
    measure(tpm, BOOT.events)
    measure(tpm, (event(7, ev.EV_EVENT_TAG, b"unlogged"), event(12, ev.EV_EVENT_TAG, b"the system's own")))
    finding = check_event_log(BOOT, read(tpm))
    assert (finding.outcome, finding.actual) == (Outcome.FAILED, "sha256 PCR 7; sha384 PCR 7 differ")


def test_systemds_separator_in_a_tpm(tpm: SoftwareTpm) -> None:
    measure(tpm, BOOT.events)
    measure(tpm, tuple(event(pcr, ev.EV_EVENT_TAG, b"os-separator") for pcr in (*range(8), 9, 12, 13, 14)))
    finding = check_event_log(BOOT, read(tpm))
    assert (finding.outcome, finding.actual) == (Outcome.PASSED, "sha256 PCR 0-23; sha384 PCR 0-23")


@pytest.mark.parametrize("measured", [BOOT, some_log(3)], ids=["boot", "some"])
def test_replay_beside_tpm2_eventlog(measured: EventLog, tpm: SoftwareTpm) -> None:
    theirs = printed_by_tpm2_eventlog(tpm, measured.encode())
    for bank in BANKS:
        ours = measured.replay(bank)
        assert theirs[alg.HASH_NAMES[bank]] == {pcr: ours[pcr] for pcr in sorted(measured.extended(bank))}


def unextended(data: bytes) -> Event:
    """An event that no register knows of; firmware logs zeros for its digests."""
    digests = {bank: bytes(alg.HASH_SIZES[bank]) for bank in BANKS}
    return Event(pcr=0, type=ev.EV_NO_ACTION, digests=digests, data=data)


REFERENCE = unextended(b"SP800-155 Event3" + bytes(range(32)))


def test_a_sp800_155_event_is_no_measurement(tpm: SoftwareTpm) -> None:
    """The TPM agrees with us; tpm2_eventlog 5.4 extends PCR 0 by the event's zeros."""
    measured = log(REFERENCE, *BOOT.events)
    measure(tpm, measured.events)
    values = read(tpm)
    theirs = printed_by_tpm2_eventlog(tpm, measured.encode())
    for bank in BANKS:
        ours, name = measured.replay(bank), alg.HASH_NAMES[bank]
        assert held(values, bank) == ours
        assert ours == BOOT.replay(bank)
        assert theirs[name][0] != ours[0]
        assert all(theirs[name][pcr] == ours[pcr] for pcr in theirs[name] if pcr)


def ask(bare: BareTpm, command: bytes) -> bytes:
    """A command's answer, without its header."""
    assert bare.data is not None
    bare.data.sendall(command)
    answer = bare.data.recv(4096)
    assert answer[6:10] == bytes(4), answer.hex()
    return answer[10:]


def set_locality(bare: BareTpm, locality: int) -> None:
    bare.control.sendall(struct.pack(">IB", CMD_SET_LOCALITY, locality))
    assert bare.control.recv(4) == bytes(4)


def startup(bare: BareTpm, locality: int) -> None:
    """TPM2_Startup(CLEAR) from a locality; what follows comes from locality 0."""
    set_locality(bare, locality)
    ask(bare, bytes.fromhex("80010000000c000001440000"))
    set_locality(bare, 0)


def extend_bare(bare: BareTpm, one: Event) -> None:
    """TPM2_PCR_Extend."""
    password = bytes.fromhex("00000009 40000009 0000 00 0000")
    digests = b"".join(bank.to_bytes(2, "big") + value for bank, value in one.digests.items())
    body = one.pcr.to_bytes(4, "big") + password + len(one.digests).to_bytes(4, "big") + digests
    ask(bare, bytes.fromhex("8002") + (10 + len(body)).to_bytes(4, "big") + bytes.fromhex("00000182") + body)


def read_bare(bare: BareTpm, bank: int, pcr: int) -> bytes:
    """TPM2_PCR_Read of one register: its digest ends the answer."""
    selection = struct.pack(">IHB", 1, bank, 3) + (1 << pcr).to_bytes(3, "little")
    command = bytes.fromhex("8001") + (10 + len(selection)).to_bytes(4, "big") + bytes.fromhex("0000017e")
    return ask(bare, command + selection)[-alg.HASH_SIZES[bank] :]


@pytest.mark.parametrize("locality", [0, 3])
def test_the_locality_of_the_start_up_is_in_register_0(locality: int, tmp_path: Path) -> None:
    said = unextended(b"StartupLocality\0" + bytes([locality]))
    measured = log(said, event(0, ev.EV_S_CRTM_VERSION, b"1"), event(1, ev.EV_EVENT_TAG, b"2"), separator(0))
    with bare_tpm(tmp_path, flags="not-need-init") as bare:
        startup(bare, locality)
        for one in measured.events:
            if one.extends:
                extend_bare(bare, one)
        for bank in BANKS:
            replayed = measured.replay(bank)
            assert [read_bare(bare, bank, pcr) for pcr in (0, 1, 2, 17)] == [
                replayed[pcr] for pcr in (0, 1, 2, 17)
            ]
    assert (measured.replay(alg.SHA256)[0] == log(*measured.events[1:]).replay(alg.SHA256)[0]) is (
        locality == 0
    )


def test_registers_of_a_dynamic_launch_start_from_ones(tmp_path: Path) -> None:
    """Locality 2 may extend them without a launch."""
    measured = log(*(event(pcr, ev.EV_EVENT_TAG, b"dynamic") for pcr in (20, 21, 22)))
    with bare_tpm(tmp_path, flags="not-need-init") as bare:
        startup(bare, 0)
        set_locality(bare, 2)
        for one in measured.events:
            extend_bare(bare, one)
        held_now = {bank: tuple(read_bare(bare, bank, pcr) for pcr in range(24)) for bank in BANKS}
    assert held_now == {bank: measured.replay(bank) for bank in BANKS}
