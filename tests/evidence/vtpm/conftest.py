"""Fixtures of the vTPM's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.evidence.vtpm.bench import Bench, bench


@pytest.fixture
def vtpm(tmp_path: Path) -> Iterator[Bench]:
    """A Vtpm on a software TPM; nothing may be left in that at the end of the test."""
    with bench(tmp_path) as built:
        yield built
