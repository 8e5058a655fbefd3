"""Two facts about a TPM that explain why an SVSM cannot make its EK.

The SVSM creates the EK with TPM2_CreatePrimary and an empty endorsement authorization when it
is first asked for an attestation. It tells the guest nothing about why that failed, but the
TPM does, and anybody who may open the device can ask.

Source: TPM 2.0 Library, Part 2 (TPMA_PERMANENT, TPMA_STARTUP_CLEAR), Part 3 (TPM2_GetCapability).
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path

RC_INITIALIZE = 0x100  # TPM2_Startup has not been run

_NO_SESSIONS = 0x8001
_GET_CAPABILITY = 0x17A
_TPM_PROPERTIES = 6
_PERMANENT = 0x200
_STARTUP_CLEAR = 0x201
_ENDORSEMENT_AUTH_SET = 1 << 1
_ENDORSEMENT_ENABLED = 1 << 2

_COMMAND = struct.pack(">HIIIII", _NO_SESSIONS, 22, _GET_CAPABILITY, _TPM_PROPERTIES, _PERMANENT, 2)
_HEADER = struct.Struct(">HII")
_ANSWER = struct.Struct(">HIIBIIIIII")
_MAX_RESPONSE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class VtpmState:
    """What stands in the way of an EK."""

    started: bool
    endorsement_enabled: bool = True
    endorsement_authorized: bool = False  # the endorsement hierarchy has a password


def read_vtpm_state(device: Path) -> VtpmState | None:
    """Ask the TPM behind a resource-manager device; None where it cannot be asked or makes no sense.

    Blocks for the time of one TPM command.
    """
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return ask_vtpm_state(descriptor)
    finally:
        os.close(descriptor)


def ask_vtpm_state(descriptor: int) -> VtpmState | None:
    """The same over an open channel that takes a command by one write and answers by one read."""
    try:
        os.write(descriptor, _COMMAND)
        return _parse(os.read(descriptor, _MAX_RESPONSE))
    except OSError:
        return None


def _parse(response: bytes) -> VtpmState | None:
    if len(response) < _HEADER.size:
        return None
    tag, size, code = _HEADER.unpack_from(response)
    if tag != _NO_SESSIONS or size != len(response):
        return None
    if code == RC_INITIALIZE:
        return VtpmState(started=False)
    if code or size != _ANSWER.size:
        return None
    *_, capability, count, first, permanent, second, startup_clear = _ANSWER.unpack(response)
    if (capability, count, first, second) != (_TPM_PROPERTIES, 2, _PERMANENT, _STARTUP_CLEAR):
        return None
    return VtpmState(
        started=True,
        endorsement_enabled=bool(startup_clear & _ENDORSEMENT_ENABLED),
        endorsement_authorized=bool(permanent & _ENDORSEMENT_AUTH_SET),
    )
