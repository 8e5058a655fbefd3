"""Platform configuration registers: read, extended, and which banks there are.

Source: TCG TPM 2.0 Library, Part 3, TPM2_PCR_Read, TPM2_PCR_Extend; Part 2, TPMS_PCR_SELECTION (10.6.2).
"""

from collections.abc import Mapping

from app.tpm.causes import TpmCause, unavailable
from app.tpm.command import Answer, Command, CommandCode
from app.tpm.dispatch import CAP_PCRS, Dispatcher
from app.tpm.handles import PASSWORD
from app.wire.cursor import Cursor
from app.wire.tpm import algorithms as alg
from app.wire.tpm import fields
from app.wire.tpm.pcr import PCR_COUNT, PcrBank, PcrSelection, PcrValues

_AT_ONCE = 8  # digests in an answer: the room of a TPML_DIGEST
_ATTEMPTS = 8
_MAX_BANKS = 16


class PcrCommands(Dispatcher):
    """Commands about registers."""

    def pcr_banks(self) -> dict[int, tuple[int, ...]]:
        """The allocated registers by the hash algorithm of their bank; SHA-1 and unknown ones included."""
        _, banks = self.capability(CAP_PCRS, 0, 1, _read_selections)
        return {hash_alg: pcrs for hash_alg, pcrs in banks.items() if pcrs}

    def pcr_read(self, selection: PcrSelection) -> PcrValues:
        """The values of all selected registers, read at one moment.

        An answer holds eight values. Where a register changed between two answers, all are read again.

        Raises:
            TpmUnavailableError: a selected register is not allocated (tpm-bank-missing), or the
                registers change all the time (tpm-unsettled).
        """
        for _ in range(_ATTEMPTS):
            values = self._read_once(selection)
            if values is not None:
                return values
        raise unavailable(
            TpmCause.UNSETTLED, f"the registers changed during {_ATTEMPTS} attempts to read them"
        )

    def pcr_extend(self, pcr: int, digests: Mapping[int, bytes]) -> None:
        """Extend a register, by a digest for each bank, named by hash algorithm."""
        parameters = len(digests).to_bytes(4, "big")
        for hash_alg, digest in digests.items():
            parameters += fields.p16(hash_alg) + digest
        self.tell(Command(CommandCode.PCR_EXTEND, (pcr,), (PASSWORD,), parameters))

    def _read_once(self, selection: PcrSelection) -> PcrValues | None:
        """None where the registers changed meanwhile."""
        moments = set()
        banks: dict[str, dict[int, bytes]] = {}
        for bank in selection.banks:
            values = banks[bank.name] = {}
            while missing := tuple(pcr for pcr in bank.pcrs if pcr not in values):
                moment, found = self._read_some(PcrBank(bank.hash_alg, missing[:_AT_ONCE]))
                moments.add(moment)
                values.update(found)
        return PcrValues.of(banks) if len(moments) == 1 else None

    def _read_some(self, bank: PcrBank) -> tuple[int, dict[int, bytes]]:
        """The update counter, and at least one of the registers, of which there are 1 to 8."""

        def read(answer: Answer) -> tuple[int, dict[int, bytes]]:
            cursor = answer.parameters
            moment = fields.u32(cursor, "pcrUpdateCounter")
            selected = _read_selections(cursor)
            if selected.keys() - {bank.hash_alg} or set(selected.get(bank.hash_alg, ())) - set(bank.pcrs):
                raise cursor.fail("registers that were not asked for")
            pcrs = selected.get(bank.hash_alg, ())
            count = fields.u32(cursor, "number of digests")
            if count != len(pcrs):
                raise cursor.fail(f"{count} digests for {len(pcrs)} registers", back=4)
            size = alg.HASH_SIZES[bank.hash_alg]
            values = {}
            for pcr in pcrs:
                values[pcr] = fields.tpm2b(cursor, "digest")
                if len(values[pcr]) != size:
                    raise cursor.fail(
                        f"a digest of {len(values[pcr])} bytes, want {size}", back=len(values[pcr])
                    )
            return moment, values

        selection = PcrSelection((bank,)).encode()
        moment, values = self.ask(Command(CommandCode.PCR_READ, parameters=selection), read)
        if not values:
            numbers = ", ".join(map(str, bank.pcrs))
            raise unavailable(TpmCause.BANK_MISSING, f"the TPM has no {bank.name} register {numbers}")
        return moment, values


def _read_selections(cursor: Cursor) -> dict[int, tuple[int, ...]]:
    """A TPML_PCR_SELECTION in which banks may be unknown, or select nothing."""
    count = fields.u32(cursor, "number of banks")
    if count > _MAX_BANKS:
        raise cursor.fail(f"{count} banks, at most {_MAX_BANKS}", back=4)
    banks: dict[int, tuple[int, ...]] = {}
    for _ in range(count):
        hash_alg = fields.u16(cursor, "bank")
        if hash_alg in banks:
            raise cursor.fail(f"bank 0x{hash_alg:04x} is named twice", back=2)
        size = cursor.integer(1, "bitmap size")
        if size > PCR_COUNT // 8:
            raise cursor.fail(f"bitmap of {size} bytes, at most {PCR_COUNT // 8}", back=1)
        bits = int.from_bytes(cursor.take(size, "bitmap"), "little")
        banks[hash_alg] = tuple(pcr for pcr in range(PCR_COUNT) if bits >> pcr & 1)
    return banks
