"""What this guest's firmware logged, beside the registers as the kernel reads them itself."""

import hashlib
import subprocess
from pathlib import Path

import pytest
import yaml

from app.appraisal.event_log_checks import check_event_log, proven_registers
from app.appraisal.findings import Outcome
from app.errors import BackendError
from app.evidence.vtpm.event_log import EVENT_LOG, read_event_log
from app.wire.event_log import EventLog
from app.wire.tpm import algorithms as alg
from app.wire.tpm.pcr import PcrSelection
from tests.kernel.loadable import SECURITYFS
from tests.kernel.tpm_devices import MANAGED, TIMEOUT_S, tpm

pytestmark = pytest.mark.usefixtures("tpm_hardware")
REGISTERS = Path("/sys/class/tpm/tpm0")
BANKS = {"sha256": alg.SHA256, "sha384": alg.SHA384, "sha512": alg.SHA512}
FIRMWARE = range(8)
IMA = 10


def by_kernel(bank: str, pcrs: range = range(24)) -> list[bytes]:
    return [bytes.fromhex((REGISTERS / f"pcr-{bank}" / str(pcr)).read_text()) for pcr in pcrs]


@pytest.fixture
def log() -> EventLog:
    return EventLog.parse(read_event_log(EVENT_LOG))


@pytest.mark.parametrize("bank", BANKS)
def test_registers_are_what_the_kernel_reads(bank: str) -> None:
    with tpm(MANAGED) as client:
        values = client.pcr_read(PcrSelection.of({bank: range(24)}))
    assert [values.get(BANKS[bank], pcr) for pcr in range(24)] == by_kernel(bank)


@pytest.mark.parametrize("bank", BANKS)
def test_the_log_replays_to_what_the_kernel_reads(bank: str, log: EventLog) -> None:
    firmware = by_kernel(bank, FIRMWARE)
    assert list(log.replay(BANKS[bank])[: len(FIRMWARE)]) == firmware
    assert all(map(any, firmware))  # this firmware measured into each


def test_the_log_is_that_of_tpm2_eventlog(log: EventLog) -> None:
    done = subprocess.run(
        ["tpm2_eventlog", EVENT_LOG], check=True, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    read = yaml.safe_load(done.stdout)
    assert [one["PCRIndex"] for one in read["events"][1:]] == [event.pcr for event in log.events]
    for bank, number in BANKS.items():
        ours = log.replay(number)
        replayed = {pcr: int.from_bytes(ours[pcr], "big") for pcr in FIRMWARE}
        assert read["pcrs"][bank] == replayed


def test_what_the_kernel_measured_itself_is_no_fault_of_the_log(log: EventLog) -> None:
    """IMA extends a register that no firmware logs, by a digest over those that it does."""
    with tpm(MANAGED) as client:
        values = client.pcr_read(PcrSelection.of({"sha256": range(24)}))
    measured = (SECURITYFS / "ima/ascii_runtime_measurements").read_text().splitlines()
    pcr, _, _, digest, name = measured[0].split()
    aggregate = hashlib.sha256(b"".join(by_kernel("sha256", range(10)))).hexdigest()
    assert (pcr, digest, name) == (str(IMA), f"sha256:{aggregate}", "boot_aggregate")
    assert any(values.get(alg.SHA256, IMA) or b"")
    assert check_event_log(log, values).outcome is Outcome.PASSED
    assert IMA not in proven_registers(log, values)[alg.SHA256]


@pytest.mark.usefixtures("no_event_log")
def test_a_kernel_that_shows_no_log() -> None:
    with pytest.raises(BackendError) as caught:
        read_event_log(EVENT_LOG)
    assert caught.value.cause == "event-log-unavailable"
    assert "securityfs" in caught.value.remedy
