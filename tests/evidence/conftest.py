"""Where the tests of the configfs backend run: on a real kernel where there is one, else on the emulation."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.evidence.replay.bench import REPORT_VARIABLE, Bench
from tests.evidence.rig import SkippingKnobs, checked, emulated

HAS_KERNEL = REPORT_VARIABLE in os.environ
KINDS = ("kernel",) if HAS_KERNEL else ("fuse",)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With a kernel to ask, tests that ask it nothing are left out: they run anywhere."""
    idle = [item for item in items if HAS_KERNEL and not _asks_the_kernel(item)]
    config.hook.pytest_deselected(items=idle)
    items[:] = [item for item in items if item not in idle]


def _asks_the_kernel(item: pytest.Item) -> bool:
    elsewhere = Path(__file__).parent not in item.path.parents
    return elsewhere or "any_bench" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session")
def fuse_bench() -> Iterator[Bench]:
    yield from emulated()


@pytest.fixture(scope="session", params=KINDS)
def any_bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "fuse":
        bench: Bench = request.getfixturevalue("fuse_bench")
    else:
        bench = Bench.from_environment(SkippingKnobs)
    return bench


@pytest.fixture
def bench(any_bench: Bench) -> Iterator[Bench]:
    """A tsm/report directory, emulated or real; a test that turns a knob it lacks is skipped."""
    yield from checked(any_bench)
