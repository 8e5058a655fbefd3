"""Why a TPM could not be asked, as stable words, and what to do about each."""

from enum import StrEnum

from app.errors import TpmUnavailableError


class TpmCause(StrEnum):
    """The `cause` of a TpmUnavailableError."""

    MISSING = "tpm-missing"
    IN_USE = "tpm-in-use"
    PERMISSION_DENIED = "tpm-permission-denied"
    TIMEOUT = "tpm-timeout"
    GONE = "tpm-gone"
    MALFORMED_ANSWER = "tpm-malformed-answer"
    BANK_MISSING = "tpm-bank-missing"
    UNSETTLED = "tpm-unsettled"
    OVERLOADED = "tpm-overloaded"
    STALLED = "tpm-stalled"
    CLOSED = "tpm-closed"


_REMEDIES = {
    TpmCause.MISSING: "A guest needs a kernel with CONFIG_TCG_SVSM (Linux 6.16 or later) to have /dev/tpmrm0",
    TpmCause.IN_USE: "Use /dev/tpmrm0, which takes many users; /dev/tpm0 takes one",
    TpmCause.PERMISSION_DENIED: "Let the service's user open the device; pass it to the container",
    TpmCause.TIMEOUT: "Try again; if it stays, look at the kernel's log for the TPM driver",
    TpmCause.GONE: "Try again: the channel is opened anew for each attempt",
    TpmCause.MALFORMED_ANSWER: "Try again; if it stays, what answers is no TPM 2.0 or is broken",
    TpmCause.BANK_MISSING: "Ask for a bank that the TPM has allocated (tpm2_getcap pcrs)",
    TpmCause.UNSETTLED: "Try again when less is being measured into the registers, or ask for fewer of them",
    TpmCause.OVERLOADED: "Try again later",
    TpmCause.STALLED: "Wait until the TPM comes back; if it does not, restart the VM",
    TpmCause.CLOSED: "The service is stopping",
}


def unavailable(cause: TpmCause, reason: str, *, errno: int | None = None) -> TpmUnavailableError:
    """The error for a cause, with its remedy; to be raised by the caller."""
    return TpmUnavailableError(cause, reason, _REMEDIES[cause], errno=errno)
