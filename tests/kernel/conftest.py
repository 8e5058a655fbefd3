"""Fixtures of the tests that own a kernel."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.loadable import Kernel, Provider

BUSYBOX, MODULES = "SVSM_ATTEST_KERNEL_BUSYBOX", "SVSM_ATTEST_KERNEL_MODULES"  # what the rig tells its guest


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
