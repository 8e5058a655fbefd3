"""Services that many tests speak to; they hold no state that one test could spoil for another."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.config import Settings
from app.main import create_app
from tests.api.service import Service

SettingsMaker = Callable[..., Settings]


@pytest.fixture(scope="session")
def new_settings(simulator_state: Path, tmp_path_factory: pytest.TempPathFactory) -> SettingsMaker:
    """Settings that touch nothing outside temporary folders."""
    store = tmp_path_factory.mktemp("store")

    def make(**chosen: Any) -> Settings:
        fixed = {"simulator_state_dir": simulator_state, "store": store, "log_level": "error"}
        return Settings(**{**fixed, **chosen})

    return make


@pytest.fixture(scope="session")
def trusting(new_settings: SettingsMaker) -> Iterator[Service]:
    """Both roles on the simulator, whose root the verifier trusts."""
    with Service(create_app(new_settings(allow_simulator=True))) as service:
        yield service


@pytest.fixture(scope="session")
def cautious(new_settings: SettingsMaker) -> Iterator[Service]:
    """Both roles on the simulator with nothing else set."""
    with Service(create_app(new_settings())) as service:
        yield service
