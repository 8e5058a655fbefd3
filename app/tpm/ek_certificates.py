"""Where a TPM keeps the certificates of its endorsement keys, for whoever asks it who it is.

Source: TCG EK Credential Profile for TPM Family 2.0, version 2.3, section 2.2.1.4 (NV indices). Readers
such as Keylime's agent read with the index's own empty password: hence AUTH_READ.
"""

from collections.abc import Callable
from enum import StrEnum

from app.errors import BackendError, TpmRefusedError
from app.tpm import codes, handles
from app.tpm.client import Tpm
from app.tpm.nv import OWNER_WRITES_ALL_READ, POLICY_READ
from app.wire.tpm.public import TpmtPublic
from app.wire.tpm.template import creation_template

# by template of the key
INDEXES = {
    "L-1": 0x01C00002,
    "L-2": 0x01C0000A,
    "H-1": 0x01C00012,
    "H-2": 0x01C00014,
    "H-3": 0x01C00016,
    "H-6": 0x01C0001C,
}


class EkNvCause(StrEnum):
    """Why a certificate was not stored: the `cause` of the error."""

    OTHER_EK = "tpm-other-ek"
    TAKEN = "nv-index-taken"
    NOT_KEPT = "nv-not-kept"
    REFUSED = "tpm-refused"


def store_ek_certificate(
    tpm: Tpm, ek: TpmtPublic, certificate: bytes, *, may_replace: Callable[[bytes], bool]
) -> int:
    """Write a certificate (DER) to the NV index of its key, and read it back; returns the index.

    Args:
        tpm: whose owner has an empty password, as a TPM that nobody set up.
        ek: the key that the certificate is about.
        certificate: what to write.
        may_replace: asked about what the index holds already, if it is something else; nothing at all
            where nothing was ever written.

    Raises:
        BackendError: the TPM has another EK, the index holds what may not be replaced, or the TPM
            refuses; then what it held is there no more only if writing itself was refused.
        TpmUnavailableError: the TPM did not answer.
    """
    index = INDEXES.get(ek.template or "")
    if index is None:
        raise _failed(EkNvCause.OTHER_EK, "the key follows no template of the TCG, so no index is for it")
    try:
        _demand_own(tpm, ek)
        held = _held(tpm, index)
        if held == certificate:
            return index
        if held is not None:
            if not may_replace(held):
                raise _failed(
                    EkNvCause.TAKEN,
                    f"index 0x{index:08x} holds something of somebody else",
                    f"If it is to go: tpm2_nvundefine -C o 0x{index:08x}",
                )
            tpm.nv_undefine(index)
        tpm.nv_define(index, len(certificate), attributes=OWNER_WRITES_ALL_READ | POLICY_READ)
        tpm.nv_write(index, certificate)
        if tpm.nv_read(index) != certificate:
            raise _failed(EkNvCause.NOT_KEPT, f"index 0x{index:08x} does not hold what was written to it")
    except TpmRefusedError as error:
        remedy = "Where owner or endorsement hierarchy have a password, write the file with tpm2_nvwrite"
        raise BackendError(EkNvCause.REFUSED, f"the TPM refused: {error}", remedy) from error
    return index


def _demand_own(tpm: Tpm, ek: TpmtPublic) -> None:
    """A certificate is of use only in the TPM that has its key."""
    made = tpm.create_primary(handles.ENDORSEMENT, creation_template(ek.template or ""))
    with tpm.transient(made.handle):
        if made.public != ek.encode():
            remedy = "Run this in the VM that was attested; after a restart, attest again"
            raise _failed(EkNvCause.OTHER_EK, "this TPM has another EK than the certificate's", remedy)


def _held(tpm: Tpm, index: int) -> bytes | None:
    """What the index holds, empty where nothing was written yet; None where there is no such index."""
    try:
        written = tpm.nv_read_public(index).written
    except TpmRefusedError as error:
        if codes.kind(error.code) != codes.HANDLE:
            raise
        return None
    return tpm.nv_read(index) if written else b""


def _failed(
    cause: EkNvCause, reason: str, remedy: str = "Look at the TPM with tpm2_nvreadpublic"
) -> BackendError:
    return BackendError(cause, reason, remedy)
