"""Return codes: their names, and which of them ask for the same command again.

A code of format 1 (bit 7) also says what it is about: a parameter, a handle or a session, and which.
Source: TCG TPM 2.0 Library, Part 1, 39 (response codes); Part 2, TPM_RC (6.6.3).
"""

SUCCESS = 0x000
INITIALIZE = 0x100
FAILURE = 0x101
COMMAND_CODE = 0x143
OBJECT_MEMORY = 0x902
SESSION_MEMORY = 0x903
LOCKOUT = 0x921

# Without the number of the parameter, handle or session.
HIERARCHY = 0x085
AUTH_FAIL = 0x08E
HANDLE = 0x08B
POLICY_FAIL = 0x09D
INTEGRITY = 0x09F
BAD_AUTH = 0x0A2

YIELDED = 0x908
TESTING = 0x90A
NV_RATE = 0x920
RETRY = 0x922
RESEND = frozenset({YIELDED, TESTING, NV_RATE, RETRY})  # the same bytes again, a little later

_FORMAT_1 = 0x080
_PARAMETER = 0x040
_SESSION = 0x800
_LAYER_SHIFT = 16
_LAYERS = {0: "", 11: " (resource manager)", 12: " (resource manager)"}  # TSS2_RESMGR_(TPM_)RC_LAYER

_FORMAT_0_NAMES = {
    INITIALIZE: "INITIALIZE",
    FAILURE: "FAILURE",
    0x103: "SEQUENCE",
    0x10B: "PRIVATE",
    0x119: "HMAC",
    0x120: "DISABLED",
    0x121: "EXCLUSIVE",
    0x124: "AUTH_TYPE",
    0x125: "AUTH_MISSING",
    0x126: "POLICY",
    0x127: "PCR",
    0x128: "PCR_CHANGED",
    0x12D: "UPGRADE",
    0x12E: "TOO_MANY_CONTEXTS",
    0x12F: "AUTH_UNAVAILABLE",
    0x130: "REBOOT",
    0x131: "UNBALANCED",
    0x142: "COMMAND_SIZE",
    COMMAND_CODE: "COMMAND_CODE",
    0x144: "AUTHSIZE",
    0x145: "AUTH_CONTEXT",
    0x146: "NV_RANGE",
    0x147: "NV_SIZE",
    0x148: "NV_LOCKED",
    0x149: "NV_AUTHORIZATION",
    0x14A: "NV_UNINITIALIZED",
    0x14B: "NV_SPACE",
    0x14C: "NV_DEFINED",
    0x150: "BAD_CONTEXT",
    0x151: "CPHASH",
    0x152: "PARENT",
    0x153: "NEEDS_TEST",
    0x154: "NO_RESULT",
    0x155: "SENSITIVE",
    0x901: "CONTEXT_GAP",
    OBJECT_MEMORY: "OBJECT_MEMORY",
    SESSION_MEMORY: "SESSION_MEMORY",
    0x904: "MEMORY",
    0x905: "SESSION_HANDLES",
    0x906: "OBJECT_HANDLES",
    0x907: "LOCALITY",
    YIELDED: "YIELDED",
    0x909: "CANCELED",
    TESTING: "TESTING",
    **{0x910 + number: f"REFERENCE_H{number}" for number in range(7)},
    **{0x918 + number: f"REFERENCE_S{number}" for number in range(7)},
    NV_RATE: "NV_RATE",
    LOCKOUT: "LOCKOUT",
    RETRY: "RETRY",
    0x923: "NV_UNAVAILABLE",
}
_FORMAT_1_NAMES = {
    0x081: "ASYMMETRIC",
    0x082: "ATTRIBUTES",
    0x083: "HASH",
    0x084: "VALUE",
    HIERARCHY: "HIERARCHY",
    0x087: "KEY_SIZE",
    0x088: "MGF",
    0x089: "MODE",
    0x08A: "TYPE",
    HANDLE: "HANDLE",
    0x08C: "KDF",
    0x08D: "RANGE",
    AUTH_FAIL: "AUTH_FAIL",
    0x08F: "NONCE",
    0x090: "PP",
    0x092: "SCHEME",
    0x095: "SIZE",
    0x096: "SYMMETRIC",
    0x097: "TAG",
    0x098: "SELECTOR",
    0x09A: "INSUFFICIENT",
    0x09B: "SIGNATURE",
    0x09C: "KEY",
    POLICY_FAIL: "POLICY_FAIL",
    INTEGRITY: "INTEGRITY",
    0x0A0: "TICKET",
    0x0A1: "RESERVED_BITS",
    BAD_AUTH: "BAD_AUTH",
    0x0A3: "EXPIRED",
    0x0A4: "POLICY_CC",
    0x0A5: "BINDING",
    0x0A6: "CURVE",
    0x0A7: "ECC_POINT",
    0x0A8: "FW_LIMITED",
    0x0A9: "SVN_LIMITED",
}


def kind(code: int) -> int:
    """The code without the number and nature of what it is about, comparable with the names above."""
    return code & 0xBF if code & _FORMAT_1 else code


def is_about_parameter(code: int) -> bool:
    """Does the TPM say that a parameter of the command, and no handle or session, is at fault?"""
    return code & (_FORMAT_1 | _PARAMETER) == _FORMAT_1 | _PARAMETER


def name(code: int) -> str:
    """What the TCG calls it, such as "TPM_RC_INTEGRITY (parameter 1)"."""
    layer, own = divmod(code, 1 << _LAYER_SHIFT)
    if layer not in _LAYERS or own >> 12:
        return "of no known layer"
    if not own & _FORMAT_1:
        known = _FORMAT_0_NAMES.get(own)
        return f"TPM_RC_{known}{_LAYERS[layer]}" if known else "of no known name"
    known = _FORMAT_1_NAMES.get(kind(own))
    return f"{f'TPM_RC_{known}' if known else 'of no known name'}{_subject(own)}{_LAYERS[layer]}"


def _subject(code: int) -> str:
    if code & _PARAMETER:
        nature, number = "parameter", code >> 8 & 0xF
    else:
        nature, number = "session" if code & _SESSION else "handle", code >> 8 & 0x7
    return f" ({nature} {number})" if number else ""
