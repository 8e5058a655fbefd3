"""Fixtures of the tests that own a kernel."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.loadable import Kernel, Provider
from tests.kernel.tpm_devices import MANAGED, TIMEOUT_S

# What the rig tells its guest.
BUSYBOX, MODULES = "SVSM_ATTEST_KERNEL_BUSYBOX", "SVSM_ATTEST_KERNEL_MODULES"
NO_TPM = "SVSM_ATTEST_KERNEL_NO_TPM"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Outside the guest there is no kernel that a test may do to what it likes."""
    if MODULES not in os.environ:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs a kernel of its own: run `make kernel-test`"))


@pytest.fixture(scope="session")
def kernel() -> Kernel:
    """The guest's kernel."""
    return Kernel(busybox=Path(os.environ[BUSYBOX]), modules=Path(os.environ[MODULES]))


@pytest.fixture
def provider(kernel: Kernel) -> Iterator[Provider]:
    """The provider, freshly loaded before and after."""
    provider = Provider(kernel)
    provider.unload()
    provider.load()
    yield provider
    provider.unload()
    provider.load()


@pytest.fixture(scope="session")
def tpm_hardware() -> None:
    """There is a TPM in this guest."""
    if lack := os.environ.get(NO_TPM):
        pytest.skip(f"no TPM in this guest: {lack}")


@pytest.fixture(scope="session")
def ek(tpm_hardware: None, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The EK as tpm2_createek makes it, by template L-1 as an SVSM does: a bare TPMT_PUBLIC."""
    del tpm_hardware
    return made_by_tools(tmp_path_factory.mktemp("ek"), "rsa")


@pytest.fixture
def svsm(provider: Provider, ek: bytes) -> Provider:
    """A provider that vouches for this TPM's EK."""
    provider.set(ek=ek.hex())
    return provider


@pytest.fixture
def no_event_log(kernel: Kernel) -> Iterator[None]:
    """Nobody has mounted what the kernel shows the firmware's log in."""
    kernel.unmount_securityfs()
    yield
    kernel.mount_securityfs()


def made_by_tools(folder: Path, algorithm: str) -> bytes:
    """An EK of this TPM."""
    command = ["tpm2_createek", "-c", "ek.ctx", "-G", algorithm, "-u", "ek.pub", "-f", "tpmt"]
    environment = {**os.environ, "TPM2TOOLS_TCTI": f"device:{MANAGED}"}
    subprocess.run(command, cwd=folder, env=environment, check=True, timeout=TIMEOUT_S)
    return (folder / "ek.pub").read_bytes()
