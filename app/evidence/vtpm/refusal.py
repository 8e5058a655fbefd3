"""What a refusal of the TPM means to whoever asked, and what to do about it.

Source: TCG TPM 2.0 Library, Part 2, TPM_RC (6.6); Part 3, for what each command answers.
"""

from enum import StrEnum

from app.errors import BackendError, ChallengeRefusedError, TpmRefusedError
from app.tpm import codes
from app.tpm.command import CommandCode


class VtpmCause(StrEnum):
    """Why there is no quote although the TPM answers: the `cause` of errors, beside app.tpm.causes."""

    REFUSED = "tpm-refused"  # by a return code
    RESET = "tpm-reset"  # between two steps of one request
    QUOTE = "tpm-quote-unusable"  # a quote that no verifier would take
    EVENT_LOG = "event-log-unavailable"


_AUTHORIZED = (
    "The endorsement hierarchy has a password: remove it with tpm2_changeauth -c e, or restart the VM"
)
_REMEDIES = {
    codes.INITIALIZE: "TPM2_Startup has not been run: restart the VM",
    codes.FAILURE: "The TPM is in failure mode: restart the VM",
    codes.OBJECT_MEMORY: "Something else fills the TPM with keys: flush them with tpm2_flushcontext -t",
    codes.SESSION_MEMORY: "Something else fills the TPM with sessions: flush them with tpm2_flushcontext -l",
    codes.HIERARCHY: "The endorsement hierarchy is disabled, which only a restart of the VM undoes",
    codes.BAD_AUTH: _AUTHORIZED,
    codes.AUTH_FAIL: _AUTHORIZED,
    codes.LOCKOUT: "Wrong passwords locked the TPM: wait, or run tpm2_dictionarylockout --clear-lockout",
}
_OTHERWISE = "Look the code up with tpm2_rc_decode; if it stays, restart the VM"
_NEW_CHALLENGE = "Ask the verifier for a new challenge, made for the ek_public and ak_public of POST /ak"
# The commands that take a part of the challenge.
_OPENING = {code.title for code in (CommandCode.ACTIVATE_CREDENTIAL, CommandCode.IMPORT, CommandCode.LOAD)}


def refusal(error: TpmRefusedError) -> BackendError:
    """The refusal as an error of the platform, with a remedy."""
    remedy = _REMEDIES.get(codes.kind(error.code), _OTHERWISE)
    return BackendError(VtpmCause.REFUSED, f"the TPM refused: {error}", remedy)


def challenge_refusal(error: TpmRefusedError) -> ChallengeRefusedError | None:
    """The refusal as the challenge's own fault, or None where it is something else.

    A TPM names the parameter that it found wrong. One that cannot decrypt the seed because it was
    encrypted for another RSA key says, in some builds, no more than TPM_RC_FAILURE, although nothing
    is wrong with it: it had loaded the key just before.
    """
    if error.command not in _OPENING:
        return None
    if not codes.is_about_parameter(error.code) and error.code != codes.FAILURE:
        return None
    if codes.kind(error.code) == codes.INTEGRITY:
        reason = "it was made for another EK, or for a key of another Name, or was changed on its way"
    else:
        reason = "this EK cannot decrypt it"
    return ChallengeRefusedError(f"{reason} ({error})", _NEW_CHALLENGE)


def not_handed_out() -> ChallengeRefusedError:
    """The error for a challenge to a key that was not handed out in this life of TPM and service."""
    return ChallengeRefusedError(
        "the attestation key was not handed out since the TPM, or this service, was last reset",
        _NEW_CHALLENGE,
    )


def no_longer_loads(error: TpmRefusedError) -> bool:
    """Does this answer to TPM2_ContextLoad say that the context is not, or no longer, one of this TPM?

    A reset ends the life of every saved context, and another seed, or another TPM, has another key
    to protect them with: an error about the parameter. Every other is about the TPM's state.
    """
    return codes.is_about_parameter(error.code)
