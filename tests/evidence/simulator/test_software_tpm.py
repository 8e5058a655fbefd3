"""The simulated VM's TPM against tpm2-tools, which speak to the very same one, and through its accidents."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from structlog.testing import capture_logs

from app.errors import TpmRefusedError, TpmUnavailableError
from app.evidence.simulator import firmware
from app.evidence.simulator.ek import EkKind
from app.evidence.simulator.faults import Fault
from app.evidence.simulator.software_tpm import SimulatedVtpm
from app.evidence.simulator.svsm import ServiceRefusedError
from app.evidence.simulator.swtpm import Swtpm
from app.evidence.simulator.vault import Vault
from app.evidence.vtpm.ak_kind import AkKind
from app.tpm import handles
from app.tpm.causes import TpmCause
from app.tpm.client import Tpm
from app.wire.event_log import EventLog
from app.wire.tpm import algorithms as alg
from app.wire.tpm.pcr import PcrSelection
from tests.evidence.simulator.processes import freeze, has_ended, kill, pid_of, swtpm_of
from tests.interop.software_tpm import demand
from tests.interop.tool_bridge import tool_bridge

ALL = PcrSelection.of({"sha256": range(24), "sha384": range(24)})
LOCKOUT_COUNTER = 0x20E  # TPM_PT
MakeVtpm = Callable[..., SimulatedVtpm]
# COCONUT-SVSM kernel/src/vtpm/tcgtpm/tss.rs: its command up to the template
COCONUT_CREATE_PRIMARY = bytes.fromhex(
    "8002 00000163 00000131 4000000b 00000009 40000009 0000 01 0000 0004 00000000 013a"
)


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path / "state")


@pytest.fixture
def vtpm_of() -> Iterator[MakeVtpm]:
    """Makes vTPMs that are switched off with the test."""
    demand("swtpm")
    made: list[SimulatedVtpm] = []

    def make(vault: Vault, **options: object) -> SimulatedVtpm:
        made.append(SimulatedVtpm(vault, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def vtpm(vtpm_of: MakeVtpm, vault: Vault) -> SimulatedVtpm:
    return vtpm_of(vault)


def client(vtpm: SimulatedVtpm) -> Tpm:
    return Tpm(vtpm.open(), timeout_s=60)


def reset_count(vtpm: SimulatedVtpm) -> int:
    # TPM2_ReadClock: time, clock, resetCount
    answer = vtpm.open().exchange(bytes.fromhex("8001 0000000a 00000181"), timeout_s=60)
    return int.from_bytes(answer[26:30], "big")


@pytest.mark.parametrize(
    ("kind", "tool", "size"),
    [(EkKind.RSA_2048, "rsa", 314), (EkKind.P_256, "ecc", 122), (EkKind.P_384, "ecc384", 170)],
)
def test_the_manifest_is_the_ek_that_tpm2_createek_makes(
    vtpm_of: MakeVtpm, vault: Vault, tmp_path: Path, kind: EkKind, tool: str, size: int
) -> None:
    vtpm = vtpm_of(vault, ek=kind)
    manifest = vtpm.public()
    with tool_bridge(tmp_path, vtpm.open()) as tools:
        tools.run("tpm2_createek", "-Q", "-c", "ek.ctx", "-G", tool, "-u", "ek", "-f", "tpmt")
        assert tools.read("ek") == manifest
    assert len(manifest) == size


def test_the_ek_is_made_by_the_command_of_coconut_svsm(
    vtpm: SimulatedVtpm, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = vtpm.open()
    sent: list[bytes] = []
    transport = swtpm_of(vtpm).transport
    exchange = transport.exchange

    def overhear(command: bytes, *, timeout_s: float) -> bytes:
        sent.append(command)
        return exchange(command, timeout_s=timeout_s)

    monkeypatch.setattr(transport, "exchange", overhear)
    manifest = vtpm.public()
    assert vtpm.public() == manifest
    command, *others = sent  # asked once, and never flushed
    assert not others
    assert len(command) == 355
    assert command.startswith(COCONUT_CREATE_PRIMARY)
    assert command[len(COCONUT_CREATE_PRIMARY) :][:58] == manifest[:58]
    assert not any(command[len(COCONUT_CREATE_PRIMARY) + 58 :])
    assert Tpm(channel, timeout_s=60).handles(handles.TRANSIENT) == (handles.TRANSIENT,)


def test_the_registers_hold_what_the_log_says(vtpm: SimulatedVtpm, tmp_path: Path) -> None:
    log = vtpm.event_log()
    with tool_bridge(tmp_path, vtpm.open()) as tools:
        read = yaml.safe_load(tools.run("tpm2_pcrread"))
        replayed = yaml.safe_load(tools.run("tpm2_eventlog", tools.write("log", log)))
    assert {bank for bank, values in read.items() if values} == {
        "sha256",
        "sha384",
    }  # no bank is left that nobody measures into
    parsed = EventLog.parse(log)
    for bank, algorithm in (("sha256", alg.SHA256), ("sha384", alg.SHA384)):
        ours = [int.from_bytes(value, "big") for value in parsed.replay(algorithm)]
        assert [read[bank][pcr] for pcr in range(24)] == ours
        assert {pcr: ours[pcr] for pcr in replayed["pcrs"][bank]} == replayed["pcrs"][bank]
        assert set(replayed["pcrs"][bank]) == {*range(10), 14}


def test_what_is_measured_is_the_same_everywhere(vtpm_of: MakeVtpm) -> None:
    one, other = (vtpm_of(Vault()) for _ in range(2))
    assert client(one).pcr_read(ALL) == client(other).pcr_read(ALL)
    assert one.event_log() == other.event_log()
    assert one.public() != other.public()


def test_a_reboot(vtpm: SimulatedVtpm) -> None:
    tpm, ek, booted = client(vtpm), vtpm.public(), vtpm.boot_id
    measured, count = tpm.pcr_read(ALL), reset_count(vtpm)
    tpm.pcr_extend(16, {alg.SHA256: bytes(32)})
    vtpm.reboot()
    assert reset_count(vtpm) == count + 1
    assert tpm.pcr_read(ALL) == measured
    assert tpm.handles(handles.TRANSIENT) == ()
    assert vtpm.boot_id != booted
    assert vtpm.public() == ek
    assert tpm.handles(handles.TRANSIENT) == (handles.TRANSIENT,)


def test_the_ek_stays_and_the_reset_counter_goes_on(vtpm_of: MakeVtpm, vault: Vault, tmp_path: Path) -> None:
    first = vtpm_of(vault)
    ek, count = first.public(), reset_count(first)
    first.reboot()
    beside = vtpm_of(Vault(tmp_path / "state"))  # as another process would, while the first one runs
    assert (beside.public(), reset_count(beside)) == (ek, count + 2)
    first.close()
    beside.close()
    after = vtpm_of(Vault(tmp_path / "state"))
    assert (after.public(), reset_count(after)) == (ek, count + 3)


def test_processes_that_start_together_agree_on_one_seed(tmp_path: Path) -> None:
    demand("swtpm")
    script = (
        "import sys; from pathlib import Path; from app.evidence.simulator.ek import EkKind;"
        "from app.evidence.simulator.software_tpm import *; from app.evidence.simulator.vault import Vault;"
        "print(SimulatedVtpm(Vault(Path(sys.argv[1])), ek=EkKind.P_256).public().hex())"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "state")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    eks = {process.communicate(timeout=120)[0].splitlines()[-1] for process in running}
    assert len(eks) == 1
    assert len(bytes.fromhex(eks.pop())) == 122


def test_another_seed_is_another_ek(vtpm_of: MakeVtpm, vault: Vault) -> None:
    good, bad = vtpm_of(vault), vtpm_of(vault, effect=Fault.VTPM_EK_ENROLLED.effect)
    assert good.public() != bad.public()
    assert client(good).pcr_read(ALL) == client(bad).pcr_read(ALL)


def test_a_service_that_is_killed_over_and_over_keeps_a_tpm_that_signs(
    vtpm_of: MakeVtpm, vault: Vault
) -> None:
    # An end without TPM2_Shutdown counts as a wrong password, where a key was used; three lock the TPM.
    for _ in range(4):
        vtpm = vtpm_of(vault)
        tpm = client(vtpm)
        assert tpm.properties(LOCKOUT_COUNTER) == {LOCKOUT_COUNTER: 0}
        with tpm.transient(tpm.create_primary(handles.ENDORSEMENT, AkKind.P256.template).handle) as key:
            tpm.quote(key, bytes(32), ALL)
        kill(swtpm_of(vtpm))


def test_an_authorization_of_the_hierarchy_keeps_the_svsm_from_its_ek(vtpm: SimulatedVtpm) -> None:
    # TPM2_HierarchyChangeAuth(endorsement, "x"), as a guest may do before the first attestation
    change = bytes.fromhex("8002 0000001e 00000129 4000000b 00000009 40000009 0000 00 0000 0001 78")
    assert vtpm.open().exchange(change, timeout_s=60)[6:10] == bytes(4)
    with pytest.raises(ServiceRefusedError, match="TPM_RC_BAD_AUTH"):
        vtpm.public()


def test_what_the_svsm_remembers_outlives_the_seed_until_the_next_reset(vtpm: SimulatedVtpm) -> None:
    # TPM2_ChangeEPS, with the empty password of the platform
    change = bytes.fromhex("8002 0000001b 00000124 4000000c 00000009 40000009 0000 00 0000")
    ek = vtpm.public()
    assert vtpm.open().exchange(change, timeout_s=60)[6:10] == bytes(4)
    assert vtpm.public() == ek
    vtpm.reboot()
    assert vtpm.public() != ek


def test_a_tpm_that_was_killed_starts_again_as_after_a_reset(vtpm: SimulatedVtpm) -> None:
    tpm, ek, count, booted = client(vtpm), vtpm.public(), reset_count(vtpm), vtpm.boot_id
    kill(swtpm_of(vtpm))
    with capture_logs() as logs:
        assert client(vtpm).handles(handles.TRANSIENT) == ()
    assert [log["event"] for log in logs] == ["simulated_vtpm_lost", "simulated_vtpm_started"]
    assert vtpm.public() == ek
    assert reset_count(vtpm) == count + 1
    assert vtpm.boot_id != booted
    assert tpm.handles(handles.TRANSIENT) == (handles.TRANSIENT,)  # the old channel leads there, too


def test_a_tpm_that_hangs_is_given_up_and_started_again(vtpm: SimulatedVtpm) -> None:
    channel = vtpm.open()
    pid = freeze(swtpm_of(vtpm))
    with capture_logs() as logs, pytest.raises(TpmUnavailableError) as caught:
        Tpm(channel, timeout_s=0.2).pcr_banks()
    assert caught.value.cause == TpmCause.TIMEOUT
    assert [log["event"] for log in logs] == ["simulated_vtpm_lost"]
    assert has_ended(pid)
    assert set(client(vtpm).pcr_banks()) == {alg.SHA256, alg.SHA384}


def test_a_tpm_that_dies_in_mid_command(vtpm: SimulatedVtpm) -> None:
    channel = vtpm.open()
    pid = freeze(swtpm_of(vtpm))
    threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(TpmUnavailableError) as caught:
        Tpm(channel, timeout_s=60).pcr_banks()
    assert caught.value.cause == TpmCause.GONE
    assert set(client(vtpm).pcr_banks()) == {alg.SHA256, alg.SHA384}


def test_closing_one_channel_leaves_the_others_open(vtpm: SimulatedVtpm) -> None:
    one, other = vtpm.open(), vtpm.open()
    one.close()
    with pytest.raises(TpmUnavailableError) as caught:
        Tpm(one, timeout_s=60).pcr_banks()
    assert caught.value.cause == TpmCause.CLOSED
    assert Tpm(other, timeout_s=60).pcr_banks()


def test_switching_off_ends_a_command_and_everything_after_it(vtpm: SimulatedVtpm) -> None:
    channel = vtpm.open()
    pid = freeze(swtpm_of(vtpm))
    threading.Timer(0.2, vtpm.close).start()
    with capture_logs() as logs, pytest.raises(TpmUnavailableError):
        Tpm(channel, timeout_s=60).pcr_banks()
    assert not logs  # nothing was lost
    assert has_ended(pid)
    for use in (vtpm.open, vtpm.public, vtpm.event_log, vtpm.reboot):
        with pytest.raises(TpmUnavailableError) as caught:
            use()
        assert caught.value.cause == TpmCause.CLOSED
    vtpm.close()


def test_users_take_turns_and_none_waits_beyond_its_time(vtpm: SimulatedVtpm) -> None:
    channel = vtpm.open()
    pid = freeze(swtpm_of(vtpm))
    waiting = threading.Thread(target=Tpm(channel, timeout_s=60).pcr_banks, daemon=True)
    waiting.start()
    time.sleep(0.1)
    with pytest.raises(TpmUnavailableError, match="another user") as caught:
        channel.exchange(bytes.fromhex("8001 0000000a 00000181"), timeout_s=0.1)
    assert caught.value.cause == TpmCause.TIMEOUT
    os.kill(pid, signal.SIGCONT)
    waiting.join(60)
    assert not waiting.is_alive()
    assert pid_of(swtpm_of(vtpm)) == pid


def test_a_state_that_is_none_is_told_apart_from_a_missing_program(vtpm_of: MakeVtpm, tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    vault.replace_state("vTPM", b"nothing that a TPM wrote")
    with pytest.raises(TpmUnavailableError, match=r"cannot use its state \(0x101\).*magic") as caught:
        vtpm_of(vault).open()
    assert "SVSM_ATTEST_SIMULATOR_VTPM=none" in caught.value.remedy


def test_a_state_that_cannot_be_kept_leaves_no_tpm(vtpm_of: MakeVtpm, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TpmUnavailableError, match=r"state directory .* cannot be used"):
        vtpm_of(Vault(tmp_path / "file" / "state")).public()


def test_a_reboot_that_fails_is_made_up_for_by_a_start(
    vtpm: SimulatedVtpm, monkeypatch: pytest.MonkeyPatch
) -> None:
    ek = vtpm.public()
    pid = pid_of(swtpm_of(vtpm))

    def refuse(_log: object, _transport: object) -> None:
        raise TpmRefusedError("TPM2_PCR_Extend", 0x101, "TPM_RC_FAILURE")

    with monkeypatch.context() as patch:
        patch.setattr(firmware, "measure", refuse)
        with pytest.raises(TpmUnavailableError, match="firmware cannot start the vTPM: TPM2_PCR_Extend"):
            vtpm.reboot()
        assert has_ended(pid)
        with pytest.raises(TpmUnavailableError):
            vtpm.open()
    assert vtpm.public() == ek


def test_a_start_that_takes_all_the_time_loses_nothing(
    vtpm: SimulatedVtpm, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = vtpm.open()
    kill(swtpm_of(vtpm))
    start = Swtpm.start

    def slow_start(state: bytes | None = None) -> Swtpm:
        time.sleep(0.05)
        return start(state)

    monkeypatch.setattr(Swtpm, "start", slow_start)
    with pytest.raises(TpmUnavailableError, match="too long to start") as caught:
        channel.exchange(bytes.fromhex("8001 0000000a 00000181"), timeout_s=0.01)
    assert caught.value.cause == TpmCause.TIMEOUT
    assert swtpm_of(vtpm).alive
    assert Tpm(channel, timeout_s=60).pcr_banks()
