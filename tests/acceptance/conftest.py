"""Fixtures of the acceptance tests of quotes: the service over HTTP, and a VM made of tpm2-tools."""

import os
from collections.abc import Iterator

import pytest

from tests.acceptance.both_roles import BothRoles, both_roles
from tests.acceptance.good_session import Good
from tests.acceptance.tool_guest import ToolGuest
from tests.api.services import SettingsMaker, new_settings
from tests.interop.software_tpm import demand, software_tpm

__all__ = ["new_settings"]


@pytest.fixture(scope="module")
def roles(new_settings: SettingsMaker) -> Iterator[BothRoles]:
    """Both roles; the attester has no TPM of its own."""
    with both_roles(new_settings(allow_simulator=True, simulator_vtpm="none")) as running:
        yield running


@pytest.fixture(scope="module")
def guest(roles: BothRoles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToolGuest]:
    """A VM on the simulated processor with a swtpm and the tools."""
    demand("tpm2_quote", "tpm2_activatecredential", "tpm2_import")
    with software_tpm(tmp_path_factory.mktemp("guest")) as tools:
        yield ToolGuest(tools, roles.report)


@pytest.fixture(scope="module")
def good(roles: BothRoles, guest: ToolGuest) -> Good:
    """A session with P-256 keys."""
    ek, ak, nonce = guest.ek("ecc"), guest.ak(), os.urandom(64)
    made = Good(roles, guest, ek, ak, nonce, guest.evidence(nonce, ek.public, ak))
    assert made.objections() == {}
    return made
