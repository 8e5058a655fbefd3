"""What a refusal of the TPM means to whoever asked, and what to do about it.

Source: TCG TPM 2.0 Library, Part 2, TPM_RC (6.6); Part 3, for what each command answers.
"""

from enum import StrEnum

from app.errors import BackendError, ChallengeRefusedError, TpmRefusedError


class VtpmCause(StrEnum):
    """Why there is no quote although there is a TPM: the `cause` of errors, beside those of its channel."""

    REFUSED = "tpm-refused"  # by a return code
    RESET = "tpm-reset"  # between two steps of one request
    BANK = "tpm-bank-missing"
    QUOTE = "tpm-quote-unusable"  # a quote that no verifier would take
    EVENT_LOG = "event-log-unavailable"


INITIALIZE = 0x100
FAILURE = 0x101
_HIERARCHY = 0x085
_BAD_AUTH = 0x0A2
_AUTH_FAIL = 0x08E
_LOCKOUT = 0x921
_INTEGRITY = 0x09F

_FORMAT_1 = 0x080
_FORMAT_1_ERROR = 0x0BF  # without the bits that say which handle, session or parameter
_PARAMETER = 0x040

_AUTHORIZED = (
    "The endorsement hierarchy has a password: remove it with tpm2_changeauth -c e, or restart the VM"
)
_REMEDIES = {
    INITIALIZE: "TPM2_Startup has not been run: restart the VM",
    FAILURE: "The TPM is in failure mode: restart the VM",
    _HIERARCHY: "The endorsement hierarchy is disabled, which only a restart of the VM undoes",
    _BAD_AUTH: _AUTHORIZED,
    _AUTH_FAIL: _AUTHORIZED,
    _LOCKOUT: "Wrong passwords locked the TPM: wait, or run tpm2_dictionarylockout --clear-lockout",
}
_OTHERWISE = "Look the code up with tpm2_rc_decode; if it stays, restart the VM"
_NEW_CHALLENGE = "Ask the verifier for a new challenge, made for the ek_public and ak_public of POST /ak"
# The commands that take a part of the challenge.
_OPENING = {"TPM2_ActivateCredential", "TPM2_Import", "TPM2_Load"}


def refusal(error: TpmRefusedError) -> BackendError:
    """The refusal as an error of the platform, with a remedy."""
    return BackendError(
        VtpmCause.REFUSED, f"the TPM refused: {error}", _REMEDIES.get(_kind(error.code), _OTHERWISE)
    )


def challenge_refusal(error: TpmRefusedError) -> ChallengeRefusedError | None:
    """The refusal as the challenge's own fault, or None where it is something else.

    A TPM names the parameter that it found wrong. One that cannot decrypt the seed because it was
    encrypted for another RSA key says, in some builds, no more than TPM_RC_FAILURE, although nothing
    is wrong with it: it had loaded both keys just before.
    """
    if error.command not in _OPENING:
        return None
    is_parameter = bool(error.code & _FORMAT_1 and error.code & _PARAMETER)
    if not is_parameter and error.code != FAILURE:
        return None
    if _kind(error.code) == _INTEGRITY:
        reason = "it was made for another EK, or for a key of another Name, or was changed on its way"
    else:
        reason = "it cannot be decrypted by this EK"
    return ChallengeRefusedError(f"{reason} ({error})", _NEW_CHALLENGE)


def no_longer_loads(error: TpmRefusedError) -> bool:
    """Does this answer to TPM2_ContextLoad say that the context is not, or no longer, one of this TPM?

    A reset ends the life of every saved context, and another seed, or another TPM, has another key
    to protect them with. Warnings and general errors are about the TPM's state instead.
    """
    return bool(error.code & _FORMAT_1)


def reset_since_handed_out() -> ChallengeRefusedError:
    """The error for a challenge to a key that was not handed out in this life of the TPM."""
    return ChallengeRefusedError(
        "the attestation key was not handed out since the TPM, or this service, was last reset",
        _NEW_CHALLENGE,
    )


def _kind(code: int) -> int:
    """The code without its position."""
    return code & _FORMAT_1_ERROR if code & _FORMAT_1 else code
