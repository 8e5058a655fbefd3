"""What return codes come to; the codes as they are printed in TPM 2.0 Library, Part 2, 6.6."""

import pytest

from app.errors import TpmRefusedError
from app.evidence.vtpm.refusal import challenge_refusal, no_longer_loads, refusal


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (0x100, "TPM2_Startup"),
        (0x101, "failure mode"),
        (0x185, "hierarchy is disabled"),
        (0x9A2, "has a password"),
        (0x98E, "has a password"),
        (0x921, "clear-lockout"),
        (0x902, "tpm2_flushcontext -t"),
        (0x903, "tpm2_flushcontext -l"),
        (0x143, "tpm2_rc_decode"),
    ],
)
def test_a_refusal_has_a_remedy(code: int, remedy: str) -> None:
    error = refusal(TpmRefusedError("TPM2_Quote", code, "TPM_RC_X"))
    assert error.cause == "tpm-refused"
    assert error.reason == f"the TPM refused: TPM2_Quote answered 0x{code:x} TPM_RC_X"
    assert remedy in error.remedy


@pytest.mark.parametrize(
    ("command", "code", "challenge"),
    [
        ("TPM2_ActivateCredential", 0x1DF, True),  # INTEGRITY, parameter 1
        ("TPM2_ActivateCredential", 0x2C4, True),  # VALUE, parameter 2
        ("TPM2_ActivateCredential", 0x1D5, True),  # SIZE, parameter 1
        ("TPM2_ActivateCredential", 0x101, True),  # FAILURE, of an RSA decryption in libtpms
        ("TPM2_Import", 0x3DF, True),
        ("TPM2_Load", 0x1DF, True),
        ("TPM2_ActivateCredential", 0x100, False),  # INITIALIZE
        ("TPM2_ActivateCredential", 0x18B, False),  # HANDLE, handle 1
        ("TPM2_ActivateCredential", 0xA9D, False),  # POLICY_FAIL, session 2
        ("TPM2_ActivateCredential", 0x902, False),  # OBJECT_MEMORY
        ("TPM2_Certify", 0x1DF, False),
        ("TPM2_CreatePrimary", 0x101, False),
    ],
)
def test_whose_fault_it_is(command: str, code: int, *, challenge: bool) -> None:
    assert (challenge_refusal(TpmRefusedError(command, code, "TPM_RC_X")) is not None) == challenge


@pytest.mark.parametrize(
    ("code", "ended"),
    [(0x1DF, True), (0x1CB, True), (0x1C5, True), (0x100, False), (0x902, False), (0x101, False)],
)
def test_when_the_life_of_a_saved_key_has_ended(code: int, *, ended: bool) -> None:
    assert no_longer_loads(TpmRefusedError("TPM2_ContextLoad", code, "TPM_RC_X")) == ended
