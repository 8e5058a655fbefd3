"""Fixtures of the TPM client's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tpm.live import LiveTpm, live_tpm


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[LiveTpm]:
    """A fresh software TPM; nothing may be left in it at the end of the test."""
    with live_tpm(tmp_path) as running:
        yield running
