"""Handles that every TPM has, and what the first byte of the others says.

Source: TCG TPM 2.0 Library, Part 2, TPM_HT (7.2) and TPM_RH (7.4).
"""

OWNER = 0x40000001
NULL = 0x40000007
PASSWORD = 0x40000009  # TPM_RS_PW: stands for a session that is a password
LOCKOUT = 0x4000000A
ENDORSEMENT = 0x4000000B
PLATFORM = 0x4000000C

# First handle of each kind: what TPM2_GetCapability lists them from.
NV_INDEXES = 0x01000000
LOADED_SESSIONS = 0x02000000  # HMAC sessions; in a list of handles all that are loaded
POLICY_SESSIONS = 0x03000000  # in a list of handles all whose context is saved
TRANSIENT = 0x80000000
PERSISTENT = 0x81000000


def kind(handle: int) -> int:
    """The first handle of the kind that `handle` belongs to."""
    return handle & 0xFF000000
