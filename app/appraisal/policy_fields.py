"""Fields of a policy document: what may be written in them, and what it is read as."""

import datetime as dt
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, StringConstraints

from app.wire.product import ProductLine
from app.wire.tpm import algorithms as alg
from app.wire.tpm.pcr import PCR_COUNT

MAX_PCR_VALUES = 1024  # known ones of one register
_BANKS = {alg.HASH_NAMES[one]: size for one, size in alg.HASH_SIZES.items()}  # bytes of a register
_CPU = re.compile(r"^([0-9a-f]{2})/([0-9a-f]{2})/([0-9a-f]{2})$")


def _from_hex(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError("want a string of hexadecimal digits, quoted")  # noqa: TRY004 (pydantic's contract)
    if not re.fullmatch(r"([0-9a-fA-F]{2})+", value):
        raise ValueError("not hexadecimal digits in pairs")
    return bytes.fromhex(value)


def _chip_id(value: bytes) -> bytes:
    """Full 64 bytes; the 8 significant ones of a Turin part are padded to them."""
    if len(value) not in (8, 64):
        raise ValueError(f"{len(value)} bytes, want 64, or 8 for Turin")
    return value.ljust(64, b"\0")


def _cpu(value: str) -> str:
    if not _CPU.match(value.lower()):
        raise ValueError("want family/model/stepping in hexadecimal, like 19/01/01")
    return value.lower()


def _bank(value: str) -> str:
    if value not in _BANKS:
        raise ValueError(f"banks are {', '.join(_BANKS)}")
    return value


def _pcr(value: object) -> object:
    """The number of a register; as the key of a JSON object it is a string."""
    number = int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]|[1-9][0-9]", value) else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < PCR_COUNT:
        raise ValueError(f"registers are numbered from 0 to {PCR_COUNT - 1}")
    return number


def _one_of_each(registers: object) -> object:
    """In YAML, 7 and "7" are two keys."""
    if isinstance(registers, dict) and len({str(name) for name in registers}) != len(registers):
        raise ValueError("a register is named twice")
    return registers


def _distinct(pcrs: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(pcrs)) != len(pcrs):
        raise ValueError("a register is named twice")
    return tuple(sorted(pcrs))


def _in_order(banks: dict[str, Any]) -> dict[str, Any]:
    """The order of the banks is part of what a TPM signs, and no document should have to care."""
    return {name: banks[name] for name in sorted(banks)}


def _demand_digest_sizes(
    banks: dict[str, dict[int, tuple[bytes, ...]]],
) -> dict[str, dict[int, tuple[bytes, ...]]]:
    for name, registers in banks.items():
        for pcr, values in registers.items():
            if any(len(value) != _BANKS[name] for value in values):
                raise ValueError(f"{name}, PCR {pcr}: want values of {_BANKS[name]} bytes")
    return banks


def _version(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"\d{1,3}\.\d{1,3}", value):
        raise ValueError('want "major.minor", quoted')
    return value


Byte = Annotated[int, Field(ge=0, le=0xFF)]
U32 = Annotated[int, Field(ge=0, le=0xFFFFFFFF)]
U64 = Annotated[int, Field(ge=0, le=0xFFFFFFFFFFFFFFFF)]
Hex = Annotated[bytes, BeforeValidator(_from_hex), PlainSerializer(bytes.hex, return_type=str)]
Hex16 = Annotated[Hex, Field(min_length=16, max_length=16)]
Hex32 = Annotated[Hex, Field(min_length=32, max_length=32)]
Hex48 = Annotated[Hex, Field(min_length=48, max_length=48)]
ChipId = Annotated[Hex, AfterValidator(_chip_id)]
CpuKey = Annotated[str, AfterValidator(_cpu)]
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Version = Annotated[str, BeforeValidator(_version)]
Date = Annotated[dt.date, Field(strict=False)]
Line = Annotated[ProductLine, Field(strict=False)]
Wish = Literal["any"] | bool
Bank = Annotated[str, AfterValidator(_bank)]
Pcr = Annotated[int, BeforeValidator(_pcr)]
_PcrList = Annotated[
    tuple[Pcr, ...], Field(strict=False, min_length=1, max_length=PCR_COUNT), AfterValidator(_distinct)
]
PcrBanks = Annotated[dict[Bank, _PcrList], Field(min_length=1), AfterValidator(_in_order)]
_PcrValues = Annotated[tuple[Hex, ...], Field(strict=False, min_length=1, max_length=MAX_PCR_VALUES)]
_KnownRegisters = Annotated[dict[Pcr, _PcrValues], Field(min_length=1), BeforeValidator(_one_of_each)]
KnownPcrs = Annotated[
    dict[Bank, _KnownRegisters], AfterValidator(_in_order), AfterValidator(_demand_digest_sizes)
]
