"""`svsm-attest` in processes of its own."""

import multiprocessing
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import httpx

from app import cli
from app.config import PREFIX

COMMAND = str(Path(sys.executable).with_name("svsm-attest"))
PATIENCE_S = 180.0  # the guest is emulated, and its host may be busy
_URL = re.compile(r'"url": "(http://127\.0\.0\.1:\d+)"')


@contextmanager
def running(
    output: Path, *arguments: str, settings: dict[str, str] | None = None, execute: bool = False
) -> Iterator[BaseProcess]:
    """The command, with both of its outputs in one file; killed when the block ends before it.

    Args:
        output: the file.
        arguments: of the command.
        settings: by name; nothing else is set.
        execute: run the installed file. Otherwise the process is a fork that goes the same way from
            there, without half a minute of imports on an emulated processor.
    """
    # What the rig tells its tests would be unknown settings to the program.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    environment |= {PREFIX + name.upper(): value for name, value in (settings or {}).items()}
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=_become, args=(output, arguments, environment, execute))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join(PATIENCE_S)


def finished(output: Path, *arguments: str, execute: bool = False) -> int:
    """The exit status of a command that was run to its end."""
    with running(output, *arguments, execute=execute) as process:
        process.join(PATIENCE_S)
        assert process.exitcode is not None, output.read_text()
        return process.exitcode


@dataclass(frozen=True, slots=True)
class Service:
    """An attester on this machine's devices."""

    process: BaseProcess
    client: httpx.Client


@contextmanager
def serving(output: Path, *, execute: bool = False, **settings: str) -> Iterator[Service]:
    """`svsm-attest serve` on a port of its own."""
    chosen = {"device_interval_s": "0", "log_format": "json", "log_level": "info"} | settings
    arguments = ("serve", "--role", "attester", "--backend", "configfs", "--port", "0")
    with (
        running(output, *arguments, settings=chosen, execute=execute) as process,
        httpx.Client(base_url=_url(process, output), trust_env=False, timeout=PATIENCE_S) as client,
    ):
        yield Service(process, client)


def _become(
    output: Path,
    arguments: tuple[str, ...],
    environment: dict[str, str],
    execute: bool,  # noqa: FBT001
) -> None:
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    if execute:
        os.execve(COMMAND, [COMMAND, *arguments], environment)  # noqa: S606 (no shell is wanted)
    os.environ.clear()
    os.environ.update(environment)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    sys.argv = [COMMAND, *arguments]
    cli.main()


def _url(process: BaseProcess, output: Path) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while not (output.exists() and (found := _URL.search(output.read_text()))):
        assert process.exitcode is None, output.read_text()
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.1)
    return found[1]
