"""Fixtures that the whole suite shares."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of published reports and certificates, which is not part of the repository."""
    default = REPOSITORY.parent / "shared" / "vectors"
    folder = Path(os.environ.get("SVSM_ATTEST_VECTORS", default))
    if not (folder / "vectors.json").is_file():
        pytest.skip(f"no test vectors: set SVSM_ATTEST_VECTORS or provide {default.name}/vectors.json")
    return folder


@pytest.fixture(scope="session")
def simulator_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory for simulators: RSA keys that one test makes serve every later one."""
    return tmp_path_factory.mktemp("simulator")
