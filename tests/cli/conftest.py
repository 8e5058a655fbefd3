"""The command line as a function, in surroundings of its own."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.cli.application import run
from tests.cli.command_line import COMMAND, NOWHERE, Cli, Ended, Program
from tests.cli.services import scripted, service

__all__ = ["scripted", "service"]


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """Whatever a test or a command exports is undone, after every other fixture has undone its own."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def surroundings(tmp_path: Path, simulator_state: Path) -> dict[str, str]:
    """Settings that touch neither this user's files nor the network."""
    for name in list(os.environ):
        if name.startswith("SVSM_ATTEST_") and name != "SVSM_ATTEST_VECTORS":
            del os.environ[name]
    chosen = {
        "SVSM_ATTEST_STORE": str(tmp_path / "store"),
        "SVSM_ATTEST_SIMULATOR_STATE_DIR": str(simulator_state),
        "SVSM_ATTEST_KDS_URL": NOWHERE,
        "SVSM_ATTEST_KDS_TIMEOUT_S": "1",
    }
    os.environ.update(chosen)
    return chosen


@pytest.fixture
def cli(
    surroundings: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Cli:
    """Run a command in this process."""
    del surroundings

    def call(*arguments: object, stdin: bytes = b"") -> Ended:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        status = run([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return Ended(int(status), shown.out, shown.err)

    return call


@pytest.fixture
def program(surroundings: dict[str, str]) -> Program:
    """Run a command as a user would: the installed program, in a process of its own."""
    del surroundings

    def call(*arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
        command = [COMMAND, *map(str, arguments)]
        return subprocess.run(command, check=False, timeout=120, **{"capture_output": True, **options})

    return call
