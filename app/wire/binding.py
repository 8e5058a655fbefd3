"""How an SVSM report is bound to a nonce and to a manifest.

Source: SVSM specification 58019, SVSM_ATTEST_SINGLE_SERVICE and SVSM_ATTEST_SERVICES.
"""

import hashlib

from app.errors import NonceError

NONCE_SIZE = 64
SVSM_VMPL = 0  # only the SVSM runs at VMPL 0: this is what makes the binding its word, not the guest's


def expected_report_data(nonce: bytes, manifest: bytes) -> bytes:
    """The 64-byte REPORT_DATA of an SVSM report: SHA-512(nonce || manifest).

    Nonce first, no length, label, GUID or version: which call was made shows only in the
    structure of the manifest.
    """
    return hashlib.sha512(nonce + manifest).digest()


def demand_nonce(nonce: bytes) -> bytes:
    """The nonce itself, if it has exactly 64 bytes.

    Raises:
        NonceError: any other length; it is never padded, cut or hashed.
    """
    if len(nonce) != NONCE_SIZE:
        raise NonceError(f"{len(nonce)} bytes, want exactly {NONCE_SIZE}")
    return nonce
