"""Names of return codes: by the book, and as the TSS has them."""

import re
import subprocess

import pytest

from app.tpm import codes
from tests.interop.software_tpm import demand


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (0x100, "TPM_RC_INITIALIZE"),
        (0x101, "TPM_RC_FAILURE"),
        (0x143, "TPM_RC_COMMAND_CODE"),
        (0x185, "TPM_RC_HIERARCHY (handle 1)"),
        (0x1D5, "TPM_RC_SIZE (parameter 1)"),
        (0x1DF, "TPM_RC_INTEGRITY (parameter 1)"),
        (0x902, "TPM_RC_OBJECT_MEMORY"),
        (0x903, "TPM_RC_SESSION_MEMORY"),
        (0x908, "TPM_RC_YIELDED"),
        (0x90A, "TPM_RC_TESTING"),
        (0x910, "TPM_RC_REFERENCE_H0"),
        (0x91E, "TPM_RC_REFERENCE_S6"),
        (0x920, "TPM_RC_NV_RATE"),
        (0x921, "TPM_RC_LOCKOUT"),
        (0x922, "TPM_RC_RETRY"),
        (0x98E, "TPM_RC_AUTH_FAIL (session 1)"),
        (0x9A2, "TPM_RC_BAD_AUTH (session 1)"),
        (0xA9D, "TPM_RC_POLICY_FAIL (session 2)"),
        (0x09F, "TPM_RC_INTEGRITY"),
        (0xFDF, "TPM_RC_INTEGRITY (parameter 15)"),
        (0xB0143, "TPM_RC_COMMAND_CODE (resource manager)"),
        (0xB018B, "TPM_RC_HANDLE (handle 1) (resource manager)"),
        (0x1FF, "of no known name (parameter 1)"),
        (0x1FE00, "of no known layer"),
        (0x9FF9FF, "of no known layer"),
        (0x17F, "of no known name"),
        (0xFFFFFFFF, "of no known layer"),
    ],
)
def test_names(code: int, name: str) -> None:
    assert codes.name(code) == name


@pytest.mark.parametrize(
    ("code", "kind", "about_parameter"),
    [
        (0x1DF, codes.INTEGRITY, True),
        (0x2DF, codes.INTEGRITY, True),
        (0x9A2, codes.BAD_AUTH, False),
        (0x18B, codes.HANDLE, False),
        (0xA9D, codes.POLICY_FAIL, False),
        (0x902, codes.OBJECT_MEMORY, False),
        (0x101, codes.FAILURE, False),
        (0x143, codes.COMMAND_CODE, False),  # bit 6 alone says nothing in format 0
    ],
)
def test_what_a_code_is_about(code: int, kind: int, *, about_parameter: bool) -> None:
    assert codes.kind(code) == kind
    assert codes.is_about_parameter(code) is about_parameter


def test_the_codes_that_ask_for_the_same_command_again() -> None:
    assert {0x922, 0x908, 0x90A, 0x920} == codes.RESEND


PARTS_OF_CODES = {
    "SUCCESS",
    "BAD_TAG",
    "VER1",
    "FMT1",
    "WARN",
    "MAX_FM0",
    "NOT_USED",
    "P",
    "H",
    "S",
    "N_MASK",
}
NUMBER = re.compile("(RC)?[0-9A-F]")  # of a parameter, a handle or a session


def test_the_names_of_the_tss() -> None:
    tss = pytest.importorskip("tpm2_pytss", reason="tpm2-pytss is not installed")
    theirs = {
        int(code): f"TPM_RC_{name}"
        for name, code in vars(tss.TPM2_RC).items()
        if name.isupper() and name not in PARTS_OF_CODES and not NUMBER.fullmatch(name)
    }
    assert len(theirs) > 90
    assert {code: codes.name(code) for code in theirs} == theirs


@pytest.mark.parametrize("code", [0x185, 0x1DF, 0x2C4, 0x9A2, 0xA9D, 0x78B, 0x7D5])
def test_what_a_code_is_about_as_tpm2_rc_decode_has_it(code: int) -> None:
    demand("tpm2_rc_decode")
    said = subprocess.run(
        ["tpm2_rc_decode", f"0x{code:x}"], check=True, capture_output=True, text=True, timeout=30
    ).stdout
    nature, number = said.split(":")[1].rstrip(")").split("(")
    assert codes.name(code).endswith(f" ({nature} {int(number, 0)})")
