"""Checks of what a quote says about the boot: register values, event log, Secure Boot, counters.

A quote that does not hold says nothing: then what was asked for fails, whatever the values look like.
Sources: TCG PC Client Platform Firmware Profile (PCR usage, event log); TCG TPM 2.0 Library, Part 2,
TPMS_CLOCK_INFO (10.11.1), and Part 1, 36 (clock and counters).
"""

from app.appraisal.boot_claims import secure_boot
from app.appraisal.event_log_checks import ProvenRegisters, check_event_log, proven_registers
from app.appraisal.findings import CheckId, Finding, Outcome, failed, not_requested, passed, warned
from app.appraisal.quote import BootCounters, Quote
from app.appraisal.subject import Subject
from app.wire.event_log import EventLog
from app.wire.tpm.attest import ClockInfo
from app.wire.tpm.pcr import PcrSelection
from app.wire.tpm.public import TpmtPublic

_ENDORSEMENT = (0x4000000B).to_bytes(4, "big")  # TPM_RH_ENDORSEMENT
_ASK_LOG = "Ask the attester for the event log, too (`event_log` of its `quote`)."


def check_boot(subject: Subject, unknown: str | None) -> list[Finding]:
    """The four checks; `unknown` is the sentence why no quote speaks, None where one does."""
    quote = subject.quote if unknown is None else None
    why = unknown or ""
    return [
        _check_pcrs(subject, quote, why),
        _check_event_log(subject, quote, why),
        _check_secure_boot(subject, quote, why),
        _check_boot_counters(subject, quote, why),
    ]


def counts_plainly(quote: Quote, ek: TpmtPublic | None) -> bool:
    """Is the key in the endorsement hierarchy, as a primary key or as a child of the EK?"""
    parents = [_ENDORSEMENT] if ek is None else [_ENDORSEMENT, ek.qualified_name(_ENDORSEMENT)]
    return quote.attest.qualified_signer in {quote.ak.qualified_name(parent) for parent in parents}


def proven_boot(quote: Quote) -> tuple[EventLog, ProvenRegisters] | None:
    """The event log of a quote that holds, and the registers that it accounts for; None where it is wrong."""
    log = quote.event_log
    if log is None or check_event_log(log, quote.pcrs).outcome is Outcome.FAILED:
        return None
    return log, proven_registers(log, quote.pcrs)


def _check_pcrs(subject: Subject, quote: Quote | None, unknown: str) -> Finding:
    """Does every register that the policy knows hold a value that it knows?"""
    known = subject.policy.reference_values.vtpm.pcrs
    if not known:
        return not_requested(CheckId.VTPM_PCRS, None, "The policy knows no values of PCRs.")
    expected = f"known values in {PcrSelection.of(known)}"
    if quote is None:
        return failed(CheckId.VTPM_PCRS, expected, "unknown", unknown)
    quoted = quote.pcrs.names()
    values = {
        (bank, pcr): quoted.get(bank, {}).get(pcr) for bank, registers in known.items() for pcr in registers
    }
    missing = [name for name, value in values.items() if value is None]
    if missing:
        why = "A register that the policy knows values of was not quoted."
        remedy = "Quote it, too: the registers are chosen by `pcrs` of the request, or policy.vtpm.pcrs."
        return failed(CheckId.VTPM_PCRS, expected, f"without {_shown(missing)}", why, remedy)
    strange = {name: value for name, value in values.items() if value not in known[name[0]][name[1]]}
    if strange:
        actual = "; ".join(f"{bank}:{pcr} {value.hex()}" for (bank, pcr), value in strange.items() if value)
        why = f"The VM booted something that the policy does not know: {_shown(list(strange))}."
        remedy = "Find out what changed; add the values to reference_values.vtpm.pcrs if it was meant."
        return failed(CheckId.VTPM_PCRS, expected, actual, why, remedy)
    why = "Every register that the policy knows holds a known value."
    return passed(CheckId.VTPM_PCRS, expected, _shown(list(values)), why)


def _shown(registers: list[tuple[str, int]]) -> PcrSelection:
    banks: dict[str, list[int]] = {}
    for bank, pcr in registers:
        banks.setdefault(bank, []).append(pcr)
    return PcrSelection.of(banks)


def _check_event_log(subject: Subject, quote: Quote | None, unknown: str) -> Finding:
    """Does the event log account for the registers that were quoted?

    A log beside a quote that holds is judged, whether the policy asks for it or not.
    """
    expected = "an event log that replays to the quoted registers"
    demanded = subject.policy.policy.vtpm.require_event_log
    log = quote.event_log if quote is not None else None
    if quote is None or log is None:
        if not demanded:
            why = unknown or "No event log came along, and the policy asks for none."
            return not_requested(CheckId.VTPM_EVENT_LOG, None, why)
        why, remedy = (unknown, None) if unknown else ("The event log is missing.", _ASK_LOG)
        return failed(CheckId.VTPM_EVENT_LOG, expected, "none", why, remedy)
    finding = check_event_log(log, quote.pcrs)
    if demanded and finding.outcome is Outcome.NOT_REQUESTED:
        remedy = "Quote the registers of firmware and boot loader: 0 to 9, and 14."
        return failed(CheckId.VTPM_EVENT_LOG, expected, finding.actual, finding.why, remedy)
    return finding


def _check_secure_boot(subject: Subject, quote: Quote | None, unknown: str) -> Finding:
    """Was Secure Boot as the policy wishes when the firmware handed over?"""
    wish = subject.policy.policy.vtpm.secure_boot
    boot = proven_boot(quote) if quote is not None else None
    state = secure_boot(*boot) if boot is not None else None
    actual = "unknown" if state is None else _on(state.enabled)
    if wish == "any":
        return not_requested(CheckId.VTPM_SECURE_BOOT, actual, "The policy takes Secure Boot on or off.")
    if state is None:
        why = unknown or "No event log proves whether Secure Boot was on."
        remedy = None if unknown else f"{_ASK_LOG} PCR 7 must be among the registers."
        return failed(CheckId.VTPM_SECURE_BOOT, _on(wish), actual, why, remedy)
    if state.enabled != wish:
        why = f"The VM booted with Secure Boot {actual}."
        return failed(CheckId.VTPM_SECURE_BOOT, _on(wish), actual, why)
    return passed(CheckId.VTPM_SECURE_BOOT, _on(wish), actual, f"The VM booted with Secure Boot {actual}.")


def _on(state: object) -> str:
    return "on" if state else "off"


def _check_boot_counters(subject: Subject, quote: Quote | None, unknown: str) -> Finding:
    """Has the TPM been reset or resumed since the relying party last saw it?

    Only keys of the endorsement hierarchy tell the counters as they are; a TPM that is made anew at
    every boot starts them anew, and shows the boot by its EK.
    """
    last = subject.expectation.last_boot
    check = CheckId.VTPM_BOOT_COUNTERS
    clock = quote.attest.clock if quote is not None else None
    actual = _counters(clock) if clock is not None else "unknown"
    if last is None:
        return not_requested(check, actual, "No earlier counters were given to compare with.")
    expected = f"reset {last.reset_count}, restart {last.restart_count}"
    if quote is None or clock is None:
        return failed(check, expected, actual, unknown)
    if last.ek_name is not None and (subject.ek is None or subject.ek.name != last.ek_name):
        why = "The EK is another one: the vTPM was made anew with a boot, or this is another VM."
        return warned(
            check, f"EK {last.ek_name.hex()}", actual, why, "Treat it as a VM that has just started."
        )
    if not counts_plainly(quote, subject.ek):
        why = "The attestation key is not in the endorsement hierarchy, so its TPM blurs the counters."
        return warned(check, expected, actual, why, "Make an attestation key as POST /ak does.")
    return _compare(clock, last)


def _compare(clock: ClockInfo, last: BootCounters) -> Finding:
    check, actual = CheckId.VTPM_BOOT_COUNTERS, _counters(clock)
    expected = f"reset {last.reset_count}, restart {last.restart_count}"
    if (clock.reset_count, clock.restart_count) < (last.reset_count, last.restart_count):
        why = "The counters went back: the TPM was cleared, or its state is an older copy."
        return failed(check, expected, actual, why, "Find out what became of the VM's state.")
    if clock.reset_count > last.reset_count:
        why = f"The VM was booted since: {last.reset_count} resets then, {clock.reset_count} now."
        return warned(check, expected, actual, why, "Treat what was known of the earlier boot as gone.")
    if clock.restart_count > last.restart_count:
        why = f"The VM was suspended since: {last.restart_count} restarts then, {clock.restart_count} now."
        return warned(check, expected, actual, why)
    if not clock.safe:
        why = "The TPM was not shut down in order before this boot, so its clock may have gone back."
        return warned(check, f"{expected}, safe", actual, why)
    return passed(check, expected, actual, "The VM was neither booted nor suspended since.")


def _counters(clock: ClockInfo) -> str:
    safe = "safe" if clock.safe else "not safe"
    return f"reset {clock.reset_count}, restart {clock.restart_count}, {safe}"
