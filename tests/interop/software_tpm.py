"""A software TPM of its own for a test: for tpm2-tools on a port, for our client on descriptors or a path."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

STARTS_WITHIN_S = 10.0
ANSWERS_WITHIN_S = 60.0  # making an RSA-3072 key takes its time
_ATTEMPTS = 5
# Control channel, swtpm_ioctl(3)
CMD_GET_CAPABILITY = bytes.fromhex("00000001")
CMD_INIT = bytes.fromhex("0000000200000000")


@dataclass(frozen=True, slots=True)
class SoftwareTpm:
    """A running TPM; files are relative to `folder`."""

    folder: Path
    port: int

    def run(self, *command: str) -> str:
        """Run one of tpm2-tools and free what it left in the TPM.

        Raises:
            subprocess.CalledProcessError: the tool, or the TPM behind it, refused.
        """
        environment = {**os.environ, "TPM2TOOLS_TCTI": f"swtpm:host=127.0.0.1,port={self.port}"}

        def call(*words: str) -> str:
            done = subprocess.run(
                words,
                cwd=self.folder,
                env=environment,
                check=True,
                capture_output=True,
                text=True,
                timeout=ANSWERS_WITHIN_S,
            )
            return done.stdout

        try:
            return call(*command)
        finally:
            call("tpm2_flushcontext", "-t")

    def read(self, name: str) -> bytes:
        """A file that a tool wrote."""
        return (self.folder / name).read_bytes()

    def write(self, name: str, data: bytes) -> str:
        """A file for a tool to read; returns its name."""
        (self.folder / name).write_bytes(data)
        return name


@dataclass(frozen=True, slots=True)
class BareTpm:
    """A running TPM without anybody else to talk to it.

    `data` is our end of the data channel, where it was inherited; the TPM listens at `path` otherwise.
    """

    process: "subprocess.Popen[bytes]"
    control: socket.socket
    data: socket.socket | None
    path: Path

    def reboot(self) -> None:
        """What was not written to its state is gone; TPM2_Startup is due."""
        self.control.sendall(CMD_INIT)
        assert self.control.recv(4, socket.MSG_WAITALL) == bytes(4)

    def freeze(self) -> None:
        """It takes bytes, and does nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on where it was."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """It is gone, in the middle of whatever it does."""
        self.process.kill()
        self.process.wait(ANSWERS_WITHIN_S)


def demand(*programs: str) -> None:
    """Skip the test, naming the first program that is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: swtpm, tpm2-tools)")


@contextlib.contextmanager
def software_tpm(folder: Path) -> Iterator[SoftwareTpm]:
    """A fresh TPM 2.0 on loopback, started up; it ends with the block."""
    demand("swtpm", "tpm2_createek")
    state = folder / "state"
    state.mkdir()
    for _ in range(_ATTEMPTS):
        port = _free_pair()
        process = subprocess.Popen(
            [
                "swtpm",
                "socket",
                "--tpm2",
                "--tpmstate",
                f"dir={state}",
                "--server",
                f"type=tcp,port={port},bindaddr=127.0.0.1",
                "--ctrl",
                f"type=tcp,port={port + 1},bindaddr=127.0.0.1",
                "--flags",
                "not-need-init,startup-clear",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            if _answers(process, port + 1):
                yield SoftwareTpm(folder, port)
                return
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(ANSWERS_WITHIN_S)
    pytest.fail("swtpm did not start")


@contextlib.contextmanager
def bare_tpm(
    folder: Path, *, listening: bool = False, flags: str = "not-need-init,startup-clear"
) -> Iterator[BareTpm]:
    """A TPM on descriptors that it inherits, or listening on a unix socket; it ends with the block.

    The state is in `folder`: the same folder gives the same TPM.
    """
    demand("swtpm")
    path = folder / "data"
    ours, theirs = socket.socketpair()
    control, its_control = socket.socketpair()
    with ours, control:
        with theirs, its_control:
            data = ("--server", f"type=unixio,path={path}") if listening else ("--fd", str(theirs.fileno()))
            process = subprocess.Popen(
                [
                    *("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder}", *data),
                    *("--ctrl", f"type=unixio,clientfd={its_control.fileno()}", "--flags", flags),
                ],
                pass_fds=(theirs.fileno(), its_control.fileno()),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        control.settimeout(ANSWERS_WITHIN_S)
        try:
            control.sendall(CMD_GET_CAPABILITY)
            assert control.recv(100), "swtpm did not start"
            yield BareTpm(process, control, None if listening else ours, path)
        finally:
            process.kill()  # also one that is frozen
            process.wait(ANSWERS_WITHIN_S)


def _free_pair() -> int:
    # tpm2-tools expect the control channel on the port after the data channel.
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port


def _answers(process: "subprocess.Popen[bytes]", control_port: int) -> bool:
    # The data channel serves one connection only: the control channel tells.
    deadline = time.monotonic() + STARTS_WITHIN_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", control_port), 1):
            return True
        time.sleep(0.01)
    return False
