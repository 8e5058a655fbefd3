"""The process behind the simulated vTPM: it starts where it can, and never stays behind."""

import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import TpmUnavailableError
from app.evidence.simulator import swtpm as swtpm_module
from app.evidence.simulator.ephemeral_folder import PREFIX
from app.evidence.simulator.swtpm import Swtpm
from app.tpm.causes import TpmCause
from app.tpm.client import Tpm
from tests.evidence.simulator.processes import freeze, has_ended, kill, pid_of
from tests.interop.software_tpm import demand

GET_RANDOM = bytes.fromhex("8001 0000000c 0000017b 0008")
SERVICE = """
import sys, tempfile, time
from app.evidence.simulator.swtpm import Swtpm
tempfile.tempdir = sys.argv[1]
kept = Swtpm.start()
guard = kept._process.pid
print(guard, open(f"/proc/{guard}/task/{guard}/children").read(), flush=True)
eval(sys.argv[2])
"""


@pytest.fixture(autouse=True)
def _installed() -> None:
    demand("swtpm")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def running() -> Iterator[Swtpm]:
    swtpm = Swtpm.start()
    yield swtpm
    swtpm.end()


def folders(temporary: Path) -> list[str]:
    return [path.name for path in temporary.iterdir() if path.name.startswith(PREFIX)]


def open_descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def answer(swtpm: Swtpm, command: bytes) -> bytes:
    return swtpm.transport.exchange(command, timeout_s=60)


def test_from_start_to_end(temporary: Path) -> None:
    swtpm = Swtpm.start()
    assert swtpm.alive
    assert answer(swtpm, GET_RANDOM)[6:10].hex() == "00000100"  # TPM2_Startup is the firmware's
    Tpm(swtpm.transport, timeout_s=60).startup()
    assert answer(swtpm, GET_RANDOM)[6:10] == bytes(4)
    [folder] = folders(temporary)
    assert (temporary / folder / "tpm2-00.permall").stat().st_mode & 0o777 == 0o600
    swtpm.power_cycle()
    assert answer(swtpm, GET_RANDOM)[6:10].hex() == "00000100"
    swtpm.end()
    assert not swtpm.alive
    assert folders(temporary) == []
    with pytest.raises(TpmUnavailableError) as caught:
        answer(swtpm, GET_RANDOM)
    assert caught.value.cause == TpmCause.CLOSED
    swtpm.end()


def test_its_state_makes_the_same_tpm_again(running: Swtpm) -> None:
    again = Swtpm.start(running.state())
    assert again.state() == running.state()
    again.end()
    fresh = Swtpm.start()
    assert fresh.state() != running.state()
    fresh.end()


@pytest.mark.parametrize(
    "end", ["os.kill(os.getpid(), signal.SIGKILL)", "sys.exit(3)", "os._exit(3)", "os.abort()"]
)
def test_it_ends_with_the_process_that_started_it(temporary: Path, end: str) -> None:
    script = f"import os, signal\n{SERVICE}"
    command = [sys.executable, "-c", script, str(temporary), end]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert all(has_ended(int(pid)) for pid in done.stdout.split())  # both: the guard holds the folder, too
    Swtpm.start().end()  # finds what was left, and removes it
    assert folders(temporary) == []


def test_it_ends_in_mid_command_with_the_process_that_started_it(temporary: Path) -> None:
    # An RSA key is being made, which takes a while, when the process is killed.
    make = "8002 00000041 00000131 4000000b 00000009 40000009 0000 00 0000 0004 0000 0000 001a 0001 000b"
    make += "00050072 0000 0010 0014 000b 0800 00000000 0000 0000 00000000"
    act = f"""[
        __import__('app.tpm.client').tpm.client.Tpm(kept.transport, timeout_s=60).startup(),
        kept.transport._socket.send(bytes.fromhex('{make}')),
        os.kill(os.getpid(), signal.SIGKILL),
    ]"""
    command = [sys.executable, "-c", f"import os, signal\n{SERVICE}", str(temporary), act]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert all(has_ended(int(pid)) for pid in done.stdout.split())  # both: the guard holds the folder, too
    Swtpm.start().end()
    assert folders(temporary) == []


def test_one_that_was_killed_is_not_alive(running: Swtpm) -> None:
    kill(running)
    assert not running.alive


def test_one_that_hangs_is_ended_all_the_same(temporary: Path) -> None:
    swtpm = Swtpm.start()
    pid = freeze(swtpm)
    swtpm.end()
    assert has_ended(pid)
    assert folders(temporary) == []


def test_a_guard_that_hangs_is_ended_with_what_it_guards(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swtpm_module, "_GONE_WITHIN_S", 0.1)
    swtpm = Swtpm.start()
    pid = pid_of(swtpm)
    swtpm._process.send_signal(signal.SIGSTOP)
    swtpm.end()
    assert has_ended(pid)
    assert folders(temporary) == []


def test_it_ends_with_the_last_who_knows_of_it(temporary: Path) -> None:
    swtpm = Swtpm.start()
    pid = pid_of(swtpm)
    del swtpm
    gc.collect()
    assert has_ended(pid)
    assert folders(temporary) == []


def test_a_fork_of_the_service_leaves_it_alone(running: Swtpm) -> None:
    Tpm(running.transport, timeout_s=60).startup()
    child = os.fork()
    if child == 0:
        running._end()  # as when the interpreter of the fork ends
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert answer(running, GET_RANDOM)[6:10] == bytes(4)


def test_a_ctrl_c_is_not_for_it(running: Swtpm) -> None:
    assert os.getpgid(pid_of(running)) not in {0, os.getpgid(0)}
    assert os.getsid(pid_of(running)) != os.getsid(0)


def test_nothing_leaks_over_many_starts(temporary: Path) -> None:
    Swtpm.start().end()
    before = open_descriptors()
    for _ in range(20):
        swtpm = Swtpm.start()
        Tpm(swtpm.transport, timeout_s=60).startup()
        swtpm.end()
    assert open_descriptors() == before
    assert folders(temporary) == []


def test_where_unix_sockets_are_forbidden_it_gets_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What an AppArmor profile does to an inherited socket: /dev/null is in its place.
    confined = tmp_path / "swtpm"
    confined.write_text(f'#!/bin/sh\nexec {sys.executable} -c "$CONFINE" {shutil.which("swtpm")} "$@"\n')
    confined.chmod(0o755)
    confine = """
import os, socket, sys
for number in os.listdir("/proc/self/fd"):
    try:
        family = socket.socket(fileno=os.dup(int(number))).family
    except OSError:
        continue
    if family == socket.AF_UNIX:
        os.dup2(os.open("/dev/null", os.O_RDWR), int(number))
        os.set_inheritable(int(number), True)
os.execv(sys.argv[1], sys.argv[1:])
"""
    monkeypatch.setenv("CONFINE", confine)
    swtpm = Swtpm.start(program=str(confined))
    assert swtpm.transport._socket.family == socket.AF_INET
    Tpm(swtpm.transport, timeout_s=60).startup()
    assert answer(swtpm, GET_RANDOM)[6:10] == bytes(4)
    swtpm.end()


def test_a_stranger_who_connects_first_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    strangers: list[socket.socket] = []
    create_connection = socket.create_connection

    def be_late(address: tuple[str, int], timeout: float) -> socket.socket:
        strangers.append(create_connection(address, timeout))
        return create_connection(address, timeout)

    monkeypatch.setattr(socket, "create_connection", be_late)
    ours, theirs = swtpm_module._loopback_pair()
    with ours, theirs, strangers[0] as stranger:
        assert theirs.getpeername() == ours.getsockname()
        assert stranger.recv(1) == b""
        ours.sendall(b"command")
        assert theirs.recv(16) == b"command"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 1", "it ended"),
        ("echo no such option >&2; exit 1", "no such option"),
        ("kill -9 $$", "it ended"),
    ],
)
def test_a_program_that_does_not_start(temporary: Path, script: str, reason: str) -> None:
    program = temporary / "swtpm"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    with pytest.raises(TpmUnavailableError, match=reason) as caught:
        Swtpm.start(program=str(program))
    assert "SVSM_ATTEST_SIMULATOR_VTPM=none" in caught.value.remedy
    assert folders(temporary) == []


def test_a_program_that_does_not_answer(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swtpm_module, "ANSWERS_WITHIN_S", 0.2)
    program = temporary / "swtpm"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    with pytest.raises(TpmUnavailableError, match="no answer within"):
        Swtpm.start(program=str(program))
    assert folders(temporary) == []


def test_no_program(temporary: Path) -> None:
    before = open_descriptors()
    with pytest.raises(TpmUnavailableError, match="not found"):
        Swtpm.start(program=str(temporary / "swtpm"))
    assert folders(temporary) == []
    assert open_descriptors() == before


def test_no_shell(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_descriptors()

    def no_shell(*_arguments: object, **_options: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "/bin/sh")

    monkeypatch.setattr(subprocess, "Popen", no_shell)
    with pytest.raises(TpmUnavailableError, match="No such file") as caught:
        Swtpm.start()
    assert caught.value.cause == TpmCause.MISSING
    assert folders(temporary) == []
    assert open_descriptors() == before


def test_a_state_that_went_missing(running: Swtpm) -> None:
    (running._folder.path / "tpm2-00.permall").unlink()
    with pytest.raises(TpmUnavailableError, match="state cannot be read"):
        running.state()


def test_why_it_failed_may_be_lost_with_its_folder(running: Swtpm) -> None:
    kill(running)
    (running._folder.path / "messages").unlink()
    with pytest.raises(TpmUnavailableError, match=r"it ended\. Run"):
        running.power_cycle()
