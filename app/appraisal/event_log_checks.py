"""Does the firmware event log account for the registers that a TPM quoted?

A log is worth what its replay shows: an event counts as measured only where the quoted value of its
register is what the log replays to. docs/reference/event-log.md says which registers must be, and why.
Sources: TCG PC Client Platform Firmware Profile, PCR Usage; UAPI.7 Linux TPM PCR Registry;
systemd-pcrphase.service(8).
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from app.appraisal.findings import CheckId, Finding, failed, not_requested, passed
from app.wire.event_log import EventLog, extend
from app.wire.tpm import algorithms as alg
from app.wire.tpm.pcr import PcrBank, PcrValues

ProvenRegisters: TypeAlias = Mapping[int, frozenset[int]]
"""TPM_ALG_ID of a bank: the registers whose quoted values the log accounts for."""

# Only what runs before the operating system writes these, and all of it through the firmware, which
# logs: 0 to 7 are the firmware's, 8 and 9 the boot loader's, 14 is shim's.
SETTLED = frozenset((*range(10), 14))
_UKI = 11  # systemd-stub's
_INITRD = 9  # systemd anchors its NV registers here once the system runs, if systemd-stub started it

# What systemd measures into registers of the firmware after the log has ended, in this order; of
# each sequence any beginning may have been reached.
_OS_SEPARATOR = ("os-separator",)
_PHASES = ("enter-initrd", "leave-initrd", "sysinit", "ready", "shutdown", "final")
_LATER: dict[int, tuple[tuple[str, ...], ...]] = {
    **dict.fromkeys((*range(8), 9, 12, 13, 14), (_OS_SEPARATOR,)),
    _UKI: (_PHASES, _PHASES[_PHASES.index("sysinit") :]),  # some initrds know no phases
}


def proven_registers(log: EventLog, values: PcrValues) -> ProvenRegisters:
    """Of every quoted bank that the log knows, the registers that hold what the log replays to.

    What systemd is known to measure later may have been added.
    """
    proven: dict[int, frozenset[int]] = {}
    for bank, quoted in _quoted(log, values):
        replayed = log.replay(bank.hash_alg)
        proven[bank.hash_alg] = frozenset(
            pcr for pcr, value in quoted.items() if value in _reachable(bank.hash_alg, pcr, replayed[pcr])
        )
    return proven


def check_event_log(log: EventLog, values: PcrValues) -> Finding:
    """Does every quoted register that only firmware and boot loader write equal its replay?

    Fails where one does not, in any quoted bank, and where the log has no digests of a quoted bank.
    """
    unknown = [bank.name for bank in values.selection.banks if bank.hash_alg not in log.hash_algs]
    if unknown:
        why = f"The log has no digests of a bank that was quoted: {', '.join(unknown)}."
        remedy = "Ask for a quote over the banks that the firmware extends."
        return failed(
            CheckId.VTPM_EVENT_LOG, _banks(values), f"a log of {_names(log.hash_algs)}", why, remedy
        )
    proven = proven_registers(log, values)
    settled = {bank: _settled(log, bank) & frozenset(bank.pcrs) for bank in values.selection.banks}
    if not any(settled.values()):
        why = "The quote covers none of the registers that an event log accounts for."
        return not_requested(CheckId.VTPM_EVENT_LOG, _banks(values), why)
    expected = "; ".join(f"{bank.name} {_numbers(pcrs)} as the log replays" for bank, pcrs in settled.items())
    wrong = {bank.name: pcrs - proven[bank.hash_alg] for bank, pcrs in settled.items()}
    if any(wrong.values()):
        named = "; ".join(f"{name} {_numbers(pcrs)}" for name, pcrs in wrong.items() if pcrs)
        why = f"The TPM quoted other values than the log replays to: {named}."
        remedy = "The log is incomplete, or was changed after the boot: trust nothing in it."
        return failed(CheckId.VTPM_EVENT_LOG, expected, f"{named} differ", why, remedy)
    actual = "; ".join(f"{bank.name} {_numbers(proven[bank.hash_alg])}" for bank in values.selection.banks)
    why = "The events of the log are what the TPM was told, in these registers."
    return passed(CheckId.VTPM_EVENT_LOG, expected, actual, why)


def _quoted(log: EventLog, values: PcrValues) -> Iterator[tuple[PcrBank, dict[int, bytes]]]:
    for bank, digests in zip(values.selection.banks, values.values, strict=True):
        if bank.hash_alg in log.hash_algs:
            yield bank, dict(zip(bank.pcrs, digests, strict=True))


def _settled(log: EventLog, bank: PcrBank) -> frozenset[int]:
    """The registers that must equal their replay."""
    return SETTLED - {_INITRD} if _UKI in log.extended(bank.hash_alg) else SETTLED


def _reachable(hash_alg: int, pcr: int, replayed: bytes) -> Iterator[bytes]:
    """The replayed value, and what known measurements of the operating system make of it."""
    yield replayed
    for sequence in _LATER.get(pcr, ()):
        value = replayed
        for text in sequence:
            value = extend(hash_alg, value, hashlib.new(alg.HASH_NAMES[hash_alg], text.encode()).digest())
            yield value


def _banks(values: PcrValues) -> str:
    return "; ".join(f"{bank.name} {_numbers(frozenset(bank.pcrs))}" for bank in values.selection.banks)


def _names(hash_algs: tuple[int, ...]) -> str:
    return ", ".join(alg.HASH_NAMES[one] for one in hash_algs) or "no bank that is accepted"


def _numbers(pcrs: frozenset[int]) -> str:
    """Register numbers with runs shortened: `PCR 0-7, 9`."""
    runs: list[list[int]] = []
    for pcr in sorted(pcrs):
        if runs and runs[-1][-1] == pcr - 1:
            runs[-1].append(pcr)
        else:
            runs.append([pcr])
    shown = (str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"PCR {', '.join(shown)}" if runs else "no PCR"
