"""The processes behind a simulated vTPM, seen from outside."""

import os
import signal
import time
from pathlib import Path

from app.evidence.simulator.software_tpm import SimulatedVtpm
from app.evidence.simulator.swtpm import Swtpm

WITHIN_S = 60.0


def swtpm_of(vtpm: SimulatedVtpm) -> Swtpm:
    """The TPM that a vTPM has now."""
    assert vtpm._life is not None
    return vtpm._life.swtpm


def pid_of(swtpm: Swtpm) -> int:
    """Of swtpm itself, the one child of its guard."""
    guard = swtpm._process.pid
    [child] = Path(f"/proc/{guard}/task/{guard}/children").read_text().split()
    return int(child)


def has_ended(pid: int) -> bool:
    """Within a while; a process that only waits to be taken note of has ended."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def kill(swtpm: Swtpm) -> None:
    """It is gone, in the middle of whatever it does."""
    pid = pid_of(swtpm)
    os.kill(pid, signal.SIGKILL)
    assert has_ended(pid)


def freeze(swtpm: Swtpm) -> int:
    """It takes bytes, and does nothing; gives its number."""
    pid = pid_of(swtpm)
    os.kill(pid, signal.SIGSTOP)
    return pid
