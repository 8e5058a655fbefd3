"""PCR selections and values: TPML_PCR_SELECTION, and the registers that a quote is about.

Source: TCG TPM 2.0 Library, Part 2, TPMS_PCR_SELECTION (10.6.2) and TPML_PCR_SELECTION (10.9.7);
Part 3, TPM2_Quote.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from app.errors import WireError
from app.wire.cursor import Cursor
from app.wire.tpm import algorithms as alg
from app.wire.tpm import fields

STRUCTURE = "TPML_PCR_SELECTION"
PCR_COUNT = 24
_SELECT_SIZE = 3  # bytes; PCR i is bit i % 8 of byte i // 8
_BANKS = {name: algorithm for algorithm, name in alg.HASH_NAMES.items()}


@dataclass(frozen=True, slots=True)
class PcrBank:
    """The selected registers (0 to 23, ascending) of the bank of one hash algorithm."""

    hash_alg: int
    pcrs: tuple[int, ...]

    @property
    def name(self) -> str:
        """sha256, sha384 or sha512."""
        return alg.HASH_NAMES[self.hash_alg]


@dataclass(frozen=True, slots=True)
class PcrSelection:
    """Banks in the order in which they were asked for; the order is part of what is signed."""

    banks: tuple[PcrBank, ...]

    @classmethod
    def of(cls, banks: Mapping[str, Iterable[int]]) -> Self:
        """From bank names, such as `{"sha256": [0, 7]}`.

        Raises:
            WireError: an unknown bank or none, a register out of range or named twice, a bank without any.
        """
        read: list[PcrBank] = []
        for name, pcrs in banks.items():
            if name not in _BANKS:
                raise WireError(
                    STRUCTURE, 0, f"{name[:16]} is not a bank that is accepted ({', '.join(_BANKS)})"
                )
            numbers = tuple(sorted(pcrs))
            if (
                not numbers
                or len(set(numbers)) != len(numbers)
                or not 0 <= numbers[0] <= numbers[-1] < PCR_COUNT
            ):
                raise WireError(STRUCTURE, 0, f"{name}: want distinct registers from 0 to {PCR_COUNT - 1}")
            read.append(PcrBank(_BANKS[name], numbers))
        if not read:
            raise WireError(STRUCTURE, 0, "no bank is selected")
        return cls(tuple(read))

    @classmethod
    def read(cls, cursor: Cursor) -> Self:
        """Read a selection at the cursor.

        Raises:
            WireError: no bank or more than are known, a SHA-1 or unknown bank, a bank named twice or
                without registers, a bitmap of another size than 3 bytes.
        """
        count = fields.u32(cursor, "number of banks")
        if not 1 <= count <= len(_BANKS):
            raise cursor.fail(f"{count} banks, want 1 to {len(_BANKS)}", back=4)
        banks: list[PcrBank] = []
        for _ in range(count):
            hash_alg = fields.u16(cursor, "bank")
            if hash_alg == alg.SHA1:
                raise cursor.fail("the SHA-1 bank is not accepted", back=2)
            if hash_alg not in alg.HASH_NAMES:
                raise cursor.fail(f"bank 0x{hash_alg:04x} is not SHA-256, SHA-384 or SHA-512", back=2)
            if any(bank.hash_alg == hash_alg for bank in banks):
                raise cursor.fail(f"bank {alg.HASH_NAMES[hash_alg]} is named twice", back=2)
            size = cursor.integer(1, "bitmap size")
            if size != _SELECT_SIZE:
                raise cursor.fail(f"bitmap of {size} bytes, want {_SELECT_SIZE}", back=1)
            bits = int.from_bytes(cursor.take(size, "bitmap"), "little")
            if not bits:
                raise cursor.fail(f"bank {alg.HASH_NAMES[hash_alg]} selects nothing", back=size)
            banks.append(PcrBank(hash_alg, tuple(pcr for pcr in range(PCR_COUNT) if bits >> pcr & 1)))
        return cls(tuple(banks))

    def encode(self) -> bytes:
        """The inverse of `read`."""
        parts = [len(self.banks).to_bytes(4, "big")]
        for bank in self.banks:
            bits = sum(1 << pcr for pcr in bank.pcrs)
            parts.append(fields.p16(bank.hash_alg) + bytes([_SELECT_SIZE]) + bits.to_bytes(3, "little"))
        return b"".join(parts)

    def names(self) -> dict[str, list[int]]:
        """The inverse of `of`."""
        return {bank.name: list(bank.pcrs) for bank in self.banks}

    def __str__(self) -> str:
        """As tpm2-tools write it, with runs shortened: `sha256:0-7,14+sha384:0`."""
        return "+".join(f"{bank.name}:{_runs(bank.pcrs)}" for bank in self.banks)


def _runs(pcrs: tuple[int, ...]) -> str:
    runs: list[list[int]] = []
    for pcr in pcrs:
        if runs and runs[-1][-1] == pcr - 1:
            runs[-1].append(pcr)
        else:
            runs.append([pcr])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


@dataclass(frozen=True, slots=True)
class PcrValues:
    """The values of selected registers, bank by bank in the order of the selection."""

    selection: PcrSelection
    values: tuple[tuple[bytes, ...], ...]  # as selection.banks and their pcrs

    @classmethod
    def of(cls, banks: Mapping[str, Mapping[int, bytes]]) -> Self:
        """From bank names, register numbers and digests.

        Raises:
            WireError: as PcrSelection.of, or a digest that has not the size of its bank.
        """
        selection = PcrSelection.of(banks)
        values = []
        for bank in selection.banks:
            digests = tuple(banks[bank.name][pcr] for pcr in bank.pcrs)
            if any(len(digest) != alg.HASH_SIZES[bank.hash_alg] for digest in digests):
                raise WireError(
                    "PCR values", 0, f"{bank.name}: a value has not the size of the bank's digest"
                )
            values.append(digests)
        return cls(selection, tuple(values))

    def get(self, hash_alg: int, pcr: int) -> bytes | None:
        """One register, or None where it was not selected."""
        for bank, digests in zip(self.selection.banks, self.values, strict=True):
            if bank.hash_alg == hash_alg and pcr in bank.pcrs:
                return digests[bank.pcrs.index(pcr)]
        return None

    def digest(self, hash_alg: int) -> bytes:
        """What a quote signs: the digest, by the signing scheme's hash, of all values in their order."""
        joined = b"".join(digest for digests in self.values for digest in digests)
        return hashlib.new(alg.HASH_NAMES[hash_alg], joined).digest()

    def names(self) -> dict[str, dict[int, bytes]]:
        """The inverse of `of`."""
        return {
            bank.name: dict(zip(bank.pcrs, digests, strict=True))
            for bank, digests in zip(self.selection.banks, self.values, strict=True)
        }
