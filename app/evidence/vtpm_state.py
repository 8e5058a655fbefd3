"""Two facts about a TPM that explain why an SVSM cannot make its EK.

The SVSM creates the EK with TPM2_CreatePrimary and an empty endorsement authorization when it
is first asked for an attestation. It tells the guest nothing about why that failed, but the
TPM does, and anybody who may open the device can ask.

Source: TPM 2.0 Library, Part 2 (TPMA_PERMANENT, TPMA_STARTUP_CLEAR).
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from app.errors import TpmRefusedError, TpmUnavailableError
from app.tpm.client import Tpm
from app.tpm.codes import INITIALIZE
from app.tpm.transport import DeviceTransport

_TIMEOUT_S = 5.0
_PERMANENT = 0x200
_STARTUP_CLEAR = 0x201
_ENDORSEMENT_AUTH_SET = 1 << 1
_ENDORSEMENT_ENABLED = 1 << 2


@dataclass(frozen=True, slots=True, kw_only=True)
class VtpmState:
    """What stands in the way of an EK."""

    started: bool
    endorsement_enabled: bool = True
    endorsement_authorized: bool = False  # the endorsement hierarchy has a password


def read_vtpm_state(device: Path) -> VtpmState | None:
    """Ask the TPM behind a resource-manager device; None where it cannot be asked or makes no sense.

    Blocks for the time of one TPM command, at most 5 seconds.
    """
    try:
        return _ask(DeviceTransport(device))
    except TpmUnavailableError:
        return None


def ask_vtpm_state(descriptor: int) -> VtpmState | None:
    """The same over a descriptor that takes a command by one write and answers by one read; it stays open."""
    return _ask(DeviceTransport.over(os.dup(descriptor)))


def _ask(channel: DeviceTransport) -> VtpmState | None:
    with contextlib.closing(channel):
        try:
            properties = Tpm(channel, timeout_s=_TIMEOUT_S).properties(_PERMANENT, 2)
        except TpmRefusedError as error:
            return VtpmState(started=False) if error.code == INITIALIZE else None
        except TpmUnavailableError:
            return None
    if properties.keys() != {_PERMANENT, _STARTUP_CLEAR}:
        return None
    return VtpmState(
        started=True,
        endorsement_enabled=bool(properties[_STARTUP_CLEAR] & _ENDORSEMENT_ENABLED),
        endorsement_authorized=bool(properties[_PERMANENT] & _ENDORSEMENT_AUTH_SET),
    )
