"""Fixtures of the tests of app.trust."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from app.trust.roots import TrustRoots
from tests.trust import pki


@pytest.fixture(scope="session")
def index(vectors: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((vectors / "vectors.json").read_text())
    return loaded


@pytest.fixture(scope="session")
def ark() -> x509.Certificate:
    return pki.ark().issue()


@pytest.fixture(scope="session")
def ask() -> x509.Certificate:
    return pki.ask().issue()


@pytest.fixture(scope="session")
def vcek() -> x509.Certificate:
    return pki.vcek().issue()


@pytest.fixture(scope="session")
def own_roots(ark: x509.Certificate) -> TrustRoots:
    """AMD's roots and the tests' own."""
    return TrustRoots.amd().with_root(ark, "extra")
