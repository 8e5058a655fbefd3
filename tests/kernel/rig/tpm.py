"""A TPM for the guest: swtpm on the host, behind the TIS device that the guest's kernel has a driver for.

The guest has a line to the host, on which it asks for what only a host can do to a TPM: `freeze`, `thaw`
and `end`, each a word with a line feed, given back once it is done.
"""

import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .guest import Hardware

LINE = "tpm-line"  # what the guest's kernel calls the port
# A driver that gives a command up has QEMU ask swtpm to drop it, and the whole machine waits for the answer.
_FROZEN_AT_MOST_S = 60.0
_ENDS_WITHIN_S = 10.0


class _Swtpm:
    """The process, and what the guest may have done to it."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._limit = threading.Timer(0, self.thaw)

    def freeze(self) -> None:
        """It takes commands, and does nothing."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)
        self._limit = threading.Timer(_FROZEN_AT_MOST_S, self.thaw)
        self._limit.start()

    def thaw(self) -> None:
        """It goes on where it was."""
        self._limit.cancel()
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """It is gone, in the middle of whatever it does, and does not come back."""
        self._limit.cancel()
        self._process.kill()
        self._process.wait(_ENDS_WITHIN_S)

    def serve(self, line: socket.socket) -> None:
        """Do what is asked for on the line, until its other end is closed."""
        actions = {"freeze": self.freeze, "thaw": self.thaw, "end": self.end}
        with line.makefile("rw") as words:
            for word in words:
                actions[word.rstrip("\n")]()
                words.write(word)
                words.flush()


@contextmanager
def software_tpm() -> Iterator[Hardware]:
    """A fresh TPM 2.0, and the line to it; both end with the block.

    QEMU opens the data channel through the control channel; the firmware and the kernel start the TPM.
    """
    # Descriptors and no paths: that of a unix socket has room for 107 bytes.
    control, its_control = socket.socketpair()
    line, its_line = socket.socketpair()
    with (
        tempfile.TemporaryDirectory(prefix="kernel-test-tpm-") as state,
        control,
        line,
        its_line,
    ):
        with its_control:
            process = subprocess.Popen(
                [
                    *("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}"),
                    *("--ctrl", f"type=unixio,clientfd={its_control.fileno()}"),
                ],
                pass_fds=(its_control.fileno(),),
            )
        swtpm = _Swtpm(process)
        server = threading.Thread(target=swtpm.serve, args=(line,), name="tpm-line")
        server.start()
        try:
            yield _hardware(control.fileno(), its_line.fileno())
        finally:
            line.shutdown(socket.SHUT_RDWR)
            server.join()
            swtpm.end()


def _hardware(control: int, line: int) -> Hardware:
    return Hardware(
        arguments=(
            *("-chardev", f"socket,id=tpm-control,fd={control}"),
            *("-tpmdev", "emulator,id=tpm,chardev=tpm-control"),
            *("-device", "tpm-tis,tpmdev=tpm"),
            *("-chardev", f"socket,id={LINE},fd={line}"),
            *("-device", "virtio-serial-pci", "-device", f"virtserialport,chardev={LINE},name={LINE}"),
        ),
        descriptors=(control, line),
    )
