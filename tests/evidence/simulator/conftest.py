"""Simulators that share one state directory, so that no RSA key is made twice."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pytest
from cryptography import x509

from app.evidence.simulator.authority import CertificateAuthority
from app.evidence.simulator.backend import SimulatorBackend
from app.evidence.simulator.software_tpm import VtpmChoice
from app.evidence.simulator.vault import Vault
from app.wire.product import ProductLine


@pytest.fixture(scope="session")
def vault(simulator_state: Path) -> Vault:
    return Vault(simulator_state)


@pytest.fixture(scope="session")
def authority_of(vault: Vault) -> Callable[[ProductLine], CertificateAuthority]:
    return cache(lambda line: CertificateAuthority(line, vault))


@pytest.fixture(scope="session")
def milan(authority_of: Callable[[ProductLine], CertificateAuthority]) -> CertificateAuthority:
    return authority_of(ProductLine.MILAN)


@pytest.fixture(scope="session")
def milan_ark(milan: CertificateAuthority) -> x509.Certificate:
    return milan.ark


@pytest.fixture(scope="session")
def simulator(simulator_state: Path) -> "partial[SimulatorBackend]":
    """SimulatorBackend, short of what a test wants to choose; without a TPM unless it chooses one."""
    return partial(SimulatorBackend, state_dir=simulator_state, vtpm=VtpmChoice.NONE)
