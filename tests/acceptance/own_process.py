"""The service as its users start it, in a process of its own."""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.cli.command_line import COMMAND
from tests.evidence.simulator.processes import WITHIN_S


@contextmanager
def serving(
    state: Path, log: Path, **settings: str
) -> Iterator[tuple["subprocess.Popen[bytes]", httpx.Client]]:
    """`svsm-attest serve`, which is killed with the block, and a client of it.

    Args:
        state: the simulator's state directory.
        log: where standard error goes.
        settings: more of them, as in the environment.
    """
    chosen = {
        "ALLOW_SIMULATOR": "true",
        "SIMULATOR_STATE_DIR": str(state),
        "STORE": str(log.parent / "store"),
        "LOG_FORMAT": "json",
        **settings,
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SVSM_ATTEST_")}
    environment = inherited | {f"SVSM_ATTEST_{name}": value for name, value in chosen.items()}
    with (
        log.open("wb") as stderr,
        subprocess.Popen([COMMAND, "serve", "--port", "0"], stderr=stderr, env=environment) as process,
    ):
        try:
            deadline = time.monotonic() + WITHIN_S
            while not (found := re.search(r'"url": "(http://127\.0\.0\.1:\d+)"', log.read_text())):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            with httpx.Client(base_url=found[1], timeout=WITHIN_S, trust_env=False) as client:
                yield process, client
        finally:
            process.kill()


def children(pid: int) -> list[int]:
    """Of all of its threads."""
    found = (path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return [int(child) for one in found for child in one]
