"""Fixtures of the tests that own a kernel."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.loadable import Kernel, Provider


@pytest.fixture(scope="session")
def kernel() -> Kernel:
    """The guest's kernel. It is nobody else's, so a test may do to it what it likes."""
    if "SVSM_ATTEST_KERNEL_MODULES" not in os.environ:
        pytest.skip("needs a kernel of its own: run `make kernel-test`")
    busybox, modules = (os.environ[f"SVSM_ATTEST_KERNEL_{name}"] for name in ("BUSYBOX", "MODULES"))
    return Kernel(Path(busybox), Path(modules))


@pytest.fixture
def provider(kernel: Kernel) -> Iterator[Provider]:
    """The provider, freshly loaded before and after."""
    provider = Provider(kernel)
    provider.unload()
    provider.load()
    yield provider
    provider.unload()
    provider.load()
