"""Event logs of real machines, and go-eventlog as a second reader of logs."""

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from app.appraisal.boot_claims import boot_claims
from app.appraisal.event_log_checks import check_event_log, proven_registers
from app.appraisal.findings import Outcome
from app.errors import WireError
from app.wire import event_types as ev
from app.wire.event_log import Event, EventLog
from app.wire.tpm import algorithms as alg
from app.wire.tpm.pcr import PcrValues
from tests.interop.peers.builds import Build, PeerAbsentError
from tests.interop.published_logs import DRIVER, PublishedLog, published_logs
from tests.interop.software_tpm import demand
from tests.wire.event_logs import event_logs, log

LOGS = (
    "ArchLinuxWorkstation",
    "COS101AmdSev",
    "COS85AmdSev",
    "COS93AmdSev",
    "GlinuxNoSecureBootLaptop",
    "Rhel8GCE",
    "Ubuntu2104NoDbxGCE",
    "Ubuntu2104NoSecureBootGCE",
    "Ubuntu2404AmdSevSnp",
    "UbuntuAmdSevGCE",
)
SHA1_ONLY = "Debian10GCE"
# What go-eventlog refuses to read in a workstation's log: a SecureBoot variable that does not exist,
# and an application that the firmware itself starts.
STRICTER = "ArchLinuxWorkstation"
BANKS = {"sha256": alg.SHA256, "sha384": alg.SHA384}
Logs = dict[str, PublishedLog]
FIRMWARE_PCRS = {*range(17), 23}


@pytest.fixture(scope="session")
def logs() -> Logs:
    try:
        return published_logs()
    except PeerAbsentError as absent:
        pytest.skip(str(absent))


def quoted(case: PublishedLog) -> PcrValues:
    """What the machine's TPM would quote, in the banks that are accepted here."""
    return PcrValues.of({bank: case.banks[bank] for bank in BANKS if bank in case.banks})


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """go-eventlog behind a small program of ours, built from the module proxy."""
    build = Build(
        name="event-log-driver",
        version="0.0.2",
        toolchain="go",
        command=("go", "-C", str(DRIVER), "install", "."),
        folder_variable="GOBIN",
        program="event-log-driver",
    )
    try:
        return build.binary(tmp_path_factory.mktemp("peers"))
    except PeerAbsentError as absent:
        pytest.skip(str(absent))


def ask(driver: Path, raw: bytes, banks: dict[str, dict[int, bytes]], *, state: bool = False) -> Any:
    """What go-eventlog makes of a log and registers, by bank.

    The state of the boot is asked of known logs alone: over an event of a type that it does not know
    go-eventlog 0.0.2 recurses until its stack is full.
    """
    known = {bank: {pcr: value.hex() for pcr, value in values.items()} for bank, values in banks.items()}
    asked = json.dumps({"log": base64.b64encode(raw).decode(), "banks": known, "state": state})
    done = subprocess.run([driver], input=asked, check=True, capture_output=True, text=True, timeout=60)
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", LOGS)
def test_a_real_log_replays_to_what_the_tpm_held(name: str, logs: Logs) -> None:
    case = logs[name]
    parsed = EventLog.parse(case.raw)
    assert parsed.encode() == case.raw
    for bank in quoted(case).names():
        replayed = parsed.replay(BANKS[bank])
        assert case.banks[bank] == {pcr: replayed[pcr] for pcr in sorted(case.banks[bank])}
        assert case.banks[bank].keys() == parsed.extended(BANKS[bank])
    assert check_event_log(parsed, quoted(case)).outcome is Outcome.PASSED


def test_every_published_log_is_read_or_named(logs: Logs) -> None:
    assert set(logs) == {*LOGS, SHA1_ONLY}


def test_a_real_log_of_sha1_alone_is_refused(logs: Logs) -> None:
    with pytest.raises(WireError, match="SHA-1 alone"):
        EventLog.parse(logs[SHA1_ONLY].raw)


@pytest.mark.parametrize("name", LOGS)
def test_claims_from_a_real_log_beside_go_eventlog(name: str, logs: Logs, driver: Path) -> None:
    case = logs[name]
    parsed = EventLog.parse(case.raw)
    ours = boot_claims(parsed, proven_registers(parsed, quoted(case)))
    theirs = ask(driver, case.raw, {"sha256": case.banks["sha256"]}, state=True)["sha256"]
    assert theirs["replays"]
    assert ours["bank"] == "sha256"
    assert ours["secure_boot"]["pk"] is True
    if name == STRICTER:
        assert (theirs["secure_boot"], theirs["applications"]) == (None, None)
        assert ours["secure_boot"]["enabled"] is False
        assert len(ours["boot_applications"]) == 2
        return
    assert ours["secure_boot"]["enabled"] is theirs["secure_boot"]
    # go-eventlog names applications only where the log shows the end of the boot, and GRUB's files alone.
    assert theirs["applications"] in (None, ours["boot_applications"])
    in_order = iter(ours["boot_files"] or [])  # None where PCR 9 is not among the values
    assert all(file in in_order for file in theirs["files"] or [])
    assert (ours["kernel_command_line"] or "") == (theirs["command_line"] or "").rstrip("\0")


def test_a_changed_real_log_no_longer_replays(logs: Logs, driver: Path) -> None:
    case = logs["Ubuntu2404AmdSevSnp"]
    parsed = EventLog.parse(case.raw)
    fewer = EventLog(spec_id=parsed.spec_id, events=(*parsed.events[:40], *parsed.events[41:]))
    assert check_event_log(fewer, quoted(case)).outcome is Outcome.FAILED
    assert not ask(driver, fewer.encode(), {"sha256": case.banks["sha256"]})["sha256"]["replays"]


@pytest.mark.parametrize("name", LOGS)
def test_real_logs_beside_tpm2_eventlog(name: str, logs: Logs, tmp_path: Path) -> None:
    demand("tpm2_eventlog")
    case = logs[name]
    path = tmp_path / "log"
    path.write_bytes(case.raw)
    done = subprocess.run(["tpm2_eventlog", path], check=True, capture_output=True, text=True, timeout=60)
    theirs = yaml.safe_load(done.stdout)["pcrs"]["sha256"]
    parsed = EventLog.parse(case.raw)
    ours = {pcr: int.from_bytes(parsed.replay(alg.SHA256)[pcr], "big") for pcr in parsed.extended(alg.SHA256)}
    if parsed.startup_locality:  # which tpm2_eventlog 5.4 does not know: it extends the event's zeros
        assert theirs.pop(0) != ours.pop(0)
    assert theirs == ours


@given(event_logs(), st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_arbitrary_logs_replay_alike(driver: Path, made: EventLog, data: st.DataObject) -> None:
    """Logs whose every event has a digest for each of the banks that both know.

    Without the registers of a dynamic launch, which go-eventlog starts from zeros: a TPM does not.
    """
    banks = (alg.SHA256, alg.SHA384)
    events = tuple(
        Event.measuring(one.pcr, one.type, one.data, banks) for one in made.events if one.pcr in FIRMWARE_PCRS
    )
    assume(not any(one.type == ev.EV_NO_ACTION and one.data.startswith(b"StartupLocality") for one in events))
    ours = log(*events, padding=b"\xff" * data.draw(st.sampled_from([0, 64])))
    extended = sorted(ours.extended(alg.SHA256))
    known = {name: {pcr: ours.replay(bank)[pcr] for pcr in extended} for name, bank in BANKS.items()}
    assert all(answer["replays"] for answer in ask(driver, ours.encode(), known).values())
    if extended:
        wrong = data.draw(st.sampled_from(extended))
        known["sha384"][wrong] = bytes(48)
        given = ask(driver, ours.encode(), known)
        assert (given["sha256"]["replays"], given["sha384"]["replays"]) == (True, False)


@pytest.mark.parametrize("locality", [0, 3, 4])
def test_start_up_localities_replay_alike(locality: int, driver: Path) -> None:
    banks = (alg.SHA256,)
    said = Event.measuring(0, ev.EV_NO_ACTION, b"StartupLocality\0" + bytes([locality]), banks)
    ours = log(said, Event.measuring(0, ev.EV_S_CRTM_VERSION, b"1", banks), banks=banks)
    known = {"sha256": {0: ours.replay(alg.SHA256)[0]}}
    assert ask(driver, ours.encode(), known)["sha256"]["replays"]
