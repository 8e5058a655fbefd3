"""`--pcrs`: registers by bank, written as tpm2-tools have them."""

import re

from app.cli.failure import InputError
from app.errors import WireError
from app.wire.tpm.pcr import PCR_COUNT, PcrSelection

OPTION = "--pcrs"
METAVAR = "BANK:N,N…"
_FORM = "Write them like sha256:0-7,14 or sha256:all; join banks with +, as in sha256:0,7+sha384:0."
_NUMBERS = re.compile(r"([0-9]{1,2})(?:-([0-9]{1,2}))?")


def read_pcrs(text: str) -> PcrSelection:
    """Registers such as `sha256:0-7,14`, `sha256:all` or, of two banks, `sha256:0+sha384:0`.

    Raises:
        InputError: another form, an unknown bank, a register out of range or named twice.
    """
    banks: dict[str, list[int]] = {}
    for part in text.split("+"):
        bank, colon, numbers = part.strip().partition(":")
        if not colon or bank in banks:
            raise InputError(
                OPTION, "a bank is named twice" if colon else "a bank and registers are wanted", _FORM
            )
        banks[bank] = _registers(numbers)
    try:
        return PcrSelection.of(banks)
    except WireError as error:
        raise InputError(OPTION, error.reason, _FORM) from error


def _registers(text: str) -> list[int]:
    if text == "all":
        return list(range(PCR_COUNT))
    registers: list[int] = []
    for part in text.split(","):
        found = _NUMBERS.fullmatch(part.strip())
        if found is None:
            raise InputError(OPTION, f"registers are numbers from 0 to {PCR_COUNT - 1}", _FORM)
        first, last = int(found[1]), int(found[2] or found[1])
        registers += range(first, last + 1)
    return registers
