"""A TPM for the guest: swtpm on the host, behind the TIS device that the guest's kernel has a driver for."""

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STARTS_WITHIN_S = 30.0


@contextmanager
def tpm_devices() -> Iterator[list[str]]:
    """QEMU arguments for a fresh TPM 2.0 that ends with the block.

    QEMU opens the data channel through the control channel; the firmware and the kernel start the TPM.

    Raises:
        RuntimeError: swtpm does not listen in time.
    """
    # Not below the repository: the path of a unix socket has room for 107 bytes.
    with tempfile.TemporaryDirectory(prefix="kernel-test-tpm-") as name:
        control = Path(name, "control")
        command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={name}"]
        with subprocess.Popen([*command, "--ctrl", f"type=unixio,path={control}"]) as swtpm:
            try:
                _wait_for(control, swtpm)
                yield [
                    *("-chardev", f"socket,id=tpm-control,path={control}"),
                    *("-tpmdev", "emulator,id=tpm,chardev=tpm-control"),
                    *("-device", "tpm-tis,tpmdev=tpm"),
                ]
            finally:
                swtpm.terminate()


def _wait_for(control: Path, swtpm: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while not control.is_socket():
        if swtpm.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("swtpm does not listen")
        time.sleep(0.01)
