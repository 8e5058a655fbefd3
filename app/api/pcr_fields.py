"""PCRs in HTTP documents: which registers of which banks, and what they hold.

A selection is `{"sha256": [0, 7]}`, values are `{"sha256": {"0": "hexadecimal"}}`. The order of the
banks is kept, because a TPM signs it.
"""

import re
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from app.errors import WireError
from app.wire.tpm import algorithms as alg
from app.wire.tpm.pcr import PCR_COUNT, PcrSelection, PcrValues

DEFAULT_BANK = "sha256"
_SIZES = {name: alg.HASH_SIZES[algorithm] for algorithm, name in alg.HASH_NAMES.items()}
_NUMBER = re.compile(r"[0-9]|1[0-9]|2[0-3]")
_HEX = re.compile(r"[0-9A-Fa-f]*")


def every_pcr() -> PcrSelection:
    """All registers of the SHA-256 bank."""
    return PcrSelection.of({DEFAULT_BANK: range(PCR_COUNT)})


def _selection(value: object) -> PcrSelection:
    if isinstance(value, PcrSelection):
        return value
    banks = _banks(value, list, "a list of registers")
    try:
        return PcrSelection.of({name: [_whole(pcr) for pcr in pcrs] for name, pcrs in banks.items()})
    except WireError as error:
        raise ValueError(error.reason) from error


def _values(value: object) -> PcrValues:
    if isinstance(value, PcrValues):
        return value
    banks = _banks(value, dict, "an object of registers")
    read = {name: dict(map(_register, registers.items())) for name, registers in banks.items()}
    try:
        return PcrValues.of(read)
    except WireError as error:
        raise ValueError(error.reason) from error


def _banks(value: object, kind: type, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"want an object: a bank, and {what}")  # noqa: TRY004 (pydantic's contract)
    for name, content in value.items():
        if name not in _SIZES:
            raise ValueError(f"banks are {', '.join(_SIZES)}")
        if not isinstance(content, kind):
            raise ValueError(f"{name}: want {what}")  # noqa: TRY004
    return value


def _whole(value: object) -> int:
    # JSON knows one kind of number: 1.0 is 1
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise ValueError(f"registers are whole numbers from 0 to {PCR_COUNT - 1}")
    return int(value)


def _register(item: tuple[str, object]) -> tuple[int, bytes]:
    number, digest = item
    if not _NUMBER.fullmatch(number):
        raise ValueError(f"registers are numbered from 0 to {PCR_COUNT - 1}")
    if not isinstance(digest, str) or not _HEX.fullmatch(digest) or len(digest) % 2:
        raise ValueError(f"register {number}: want hexadecimal digits")
    return int(number), bytes.fromhex(digest)


def _hexadecimal(values: PcrValues) -> dict[str, dict[str, str]]:
    return {
        bank: {str(pcr): digest.hex() for pcr, digest in registers.items()}
        for bank, registers in values.names().items()
    }


def _schema(banks: dict[str, dict[str, Any]]) -> WithJsonSchema:
    return WithJsonSchema(
        {"type": "object", "minProperties": 1, "additionalProperties": False, "properties": banks}
    )


_registers = {
    "type": "array",
    "minItems": 1,
    "maxItems": PCR_COUNT,
    "uniqueItems": True,
    "items": {"type": "integer", "minimum": 0, "maximum": PCR_COUNT - 1},
}

Pcrs = Annotated[
    PcrSelection,
    PlainValidator(_selection),
    PlainSerializer(PcrSelection.names),
    _schema(dict.fromkeys(_SIZES, _registers)),
]
"""Registers of banks; any order of the registers, each once."""

PcrDigests = Annotated[
    PcrValues,
    PlainValidator(_values),
    PlainSerializer(_hexadecimal),
    _schema(
        {
            name: {
                "type": "object",
                "minProperties": 1,
                "maxProperties": PCR_COUNT,
                "propertyNames": {"pattern": f"^(?:{_NUMBER.pattern})$"},
                "additionalProperties": {"type": "string", "pattern": f"^[0-9A-Fa-f]{{{2 * size}}}$"},
            }
            for name, size in _SIZES.items()
        }
    ),
]
"""Values of registers, in hexadecimal."""
