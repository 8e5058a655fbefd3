from dataclasses import replace
from typing import Any

import pytest

from app.appraisal.findings import CheckId, Finding, Outcome
from app.appraisal.quote import BootCounters, QuoteExpectation
from app.appraisal.quote_checks import check_quote
from app.appraisal.subject import Subject
from app.wire import event_types as ev
from app.wire.event_log import EventLog
from app.wire.tpm.pcr import PcrValues
from app.wire.tpm.public import TpmtPublic
from tests.appraisal import measured
from tests.appraisal.quotes import AK, CLOCK, ENDORSEMENT, OWNER, VALUES, Making, ecc_ak, proof, quoted
from tests.appraisal.subjects import EK, policy, subject

BOOT = measured.log(
    measured.event(0, ev.EV_S_CRTM_VERSION, b"1.0"),
    *measured.secure_boot(),
    measured.event(8, ev.EV_IPL, b"grub_cmd: linux /vmlinuz", b"linux /vmlinuz"),
)
BOOTED = measured.quoted(BOOT)
WRONG_QUOTE = Making(signer=ecc_ak(5))


def outcome(appraised: Subject, check: CheckId) -> Finding:
    return next(finding for finding in check_quote(appraised, bound=True) if finding.check is check)


def known(**pcrs: Any) -> dict[str, Any]:
    return {"policy": policy(reference_values={"vtpm": {"pcrs": pcrs}})}


def value(pcr: int) -> str:
    return VALUES.values[0][pcr].hex()


PCRS: list[tuple[dict[str, Any], Outcome, str]] = [
    ({}, Outcome.NOT_REQUESTED, "knows no values"),
    (known(sha256={"0": [value(0)], "7": ["00" * 32, value(7)]}), Outcome.PASSED, "holds a known value"),
    (known(sha256={"0": [value(0)], "7": [value(8)]}), Outcome.FAILED, "does not know: sha256:7"),
    (known(sha256={"4": ["00" * 32], "5": ["11" * 32]}), Outcome.FAILED, "does not know: sha256:4-5"),
    (known(sha384={"0": ["00" * 48]}), Outcome.FAILED, "was not quoted"),
]


@pytest.mark.parametrize(("changes", "expected", "word"), PCRS)
def test_registers_hold_what_the_policy_knows(changes: dict[str, Any], expected: Outcome, word: str) -> None:
    finding = outcome(quoted(**changes), CheckId.VTPM_PCRS)
    assert (finding.outcome, word in finding.why) == (expected, True), finding


def test_a_register_that_was_not_quoted_holds_nothing_known() -> None:
    few = PcrValues.of({"sha256": {0: VALUES.values[0][0]}})
    wished = policy(
        {"vtpm": {"pcrs": {"sha256": [0]}}},
        reference_values={"vtpm": {"pcrs": {"sha256": {0: [value(0)], 7: [value(7)]}}}},
    )
    finding = outcome(quoted(Making(values=few), policy=wished), CheckId.VTPM_PCRS)
    assert (finding.outcome, finding.actual) == (Outcome.FAILED, "without sha256:7")


ASKED: list[tuple[CheckId, dict[str, Any]]] = [
    (CheckId.VTPM_PCRS, known(sha256={"0": [value(0)]})),
    (CheckId.VTPM_EVENT_LOG, {"policy": policy({"vtpm": {"require_event_log": True}})}),
    (CheckId.VTPM_SECURE_BOOT, {"policy": policy({"vtpm": {"secure_boot": True}})}),
    (
        CheckId.VTPM_BOOT_COUNTERS,
        {
            "expectation": QuoteExpectation(
                key_proof=proof(), last_boot=BootCounters(reset_count=7, restart_count=2)
            )
        },
    ),
]


@pytest.mark.parametrize(("check", "changes"), ASKED)
def test_what_is_asked_for_fails_where_no_quote_answers(check: CheckId, changes: dict[str, Any]) -> None:
    """Neither an absent quote nor one that does not hold answers anything, whatever it shows."""
    absent = replace(quoted(**changes), quote=None)
    assert outcome(absent, check).outcome is Outcome.FAILED
    broken = outcome(quoted(replace(WRONG_QUOTE, event_log=BOOT, values=BOOTED), **changes), check)
    assert broken.outcome is Outcome.FAILED
    assert "vtpm.quote.signature" in broken.why


@pytest.mark.parametrize("check", [check for check, _ in ASKED])
def test_what_nobody_asked_for_is_not_requested_even_of_a_broken_quote(check: CheckId) -> None:
    broken = quoted(replace(WRONG_QUOTE, event_log=BOOT, values=BOOTED))
    assert outcome(broken, check).outcome is Outcome.NOT_REQUESTED
    assert outcome(subject(), check).outcome is Outcome.NOT_REQUESTED


# --- event log ----------------------------------------------------------------------------------


def with_log(log: EventLog = BOOT, values: PcrValues = BOOTED, **changes: Any) -> Subject:
    return quoted(Making(event_log=log, values=values), **changes)


def test_a_log_that_replays_to_the_registers_passes_and_a_changed_one_fails() -> None:
    assert outcome(with_log(), CheckId.VTPM_EVENT_LOG).outcome is Outcome.PASSED
    changed = measured.log(*BOOT.events[:-1])
    assert outcome(with_log(changed), CheckId.VTPM_EVENT_LOG).outcome is Outcome.FAILED


def test_without_a_nonce_there_is_no_verdict_but_values_and_log_are_judged() -> None:
    wished = known(sha256={"7": ["00" * 32]})
    appraised = quoted(Making(event_log=BOOT, values=BOOTED), nonce=None, **wished)
    assert outcome(appraised, CheckId.QUOTE_NONCE).outcome is Outcome.NOT_REQUESTED
    assert outcome(appraised, CheckId.VTPM_EVENT_LOG).outcome is Outcome.PASSED
    assert outcome(appraised, CheckId.VTPM_PCRS).outcome is Outcome.FAILED


def test_a_log_that_is_required_must_account_for_a_quoted_register() -> None:
    last = {"sha256": {23: bytes(32)}}
    making = Making(values=PcrValues.of(last), event_log=BOOT)
    for require, expected in ((False, Outcome.NOT_REQUESTED), (True, Outcome.FAILED)):
        wished = policy({"vtpm": {"require_event_log": require, "pcrs": {"sha256": [23]}}})
        assert outcome(quoted(making, policy=wished), CheckId.VTPM_EVENT_LOG).outcome is expected
    wished = policy({"vtpm": {"require_event_log": True}})
    missing = outcome(quoted(policy=wished), CheckId.VTPM_EVENT_LOG)
    assert (missing.outcome, missing.why) == (Outcome.FAILED, "The event log is missing.")


# --- Secure Boot --------------------------------------------------------------------------------

OFF = measured.log(*measured.secure_boot(b"\0"))
SECURE_BOOT: list[tuple[Any, EventLog | None, Outcome, str]] = [
    ("any", BOOT, Outcome.NOT_REQUESTED, "on"),
    ("any", None, Outcome.NOT_REQUESTED, "unknown"),
    (True, BOOT, Outcome.PASSED, "on"),
    (False, BOOT, Outcome.FAILED, "on"),
    (True, OFF, Outcome.FAILED, "off"),
    (False, OFF, Outcome.PASSED, "off"),
    (True, None, Outcome.FAILED, "unknown"),
    (False, None, Outcome.FAILED, "unknown"),
]


@pytest.mark.parametrize(("wish", "log", "expected", "actual"), SECURE_BOOT)
def test_secure_boot_is_as_the_policy_wishes(
    wish: Any, log: EventLog | None, expected: Outcome, actual: str
) -> None:
    values = measured.quoted(log) if log is not None else VALUES
    wished = policy({"vtpm": {"secure_boot": wish}})
    finding = outcome(quoted(Making(values=values, event_log=log), policy=wished), CheckId.VTPM_SECURE_BOOT)
    assert (finding.outcome, finding.actual) == (expected, actual)


def test_a_log_that_does_not_replay_proves_no_secure_boot() -> None:
    """PCR 7 alone would replay; but whoever changed one register's events may have changed any."""
    lying = measured.log(*BOOT.events[:-1])
    finding = outcome(
        with_log(lying, policy=policy({"vtpm": {"secure_boot": True}})), CheckId.VTPM_SECURE_BOOT
    )
    assert (finding.outcome, finding.actual) == (Outcome.FAILED, "unknown")


# --- counters -----------------------------------------------------------------------------------

THEN = BootCounters(reset_count=7, restart_count=2)
EK_NAME = TpmtPublic.parse(EK).name
COUNTERS: list[tuple[BootCounters, dict[str, Any], Outcome, str]] = [
    (THEN, {}, Outcome.PASSED, "neither booted nor suspended"),
    (replace(THEN, ek_name=EK_NAME), {}, Outcome.PASSED, "neither booted nor suspended"),
    (replace(THEN, ek_name=bytes(34)), {}, Outcome.WARNED, "made anew"),
    (replace(THEN, reset_count=5), {}, Outcome.WARNED, "5 resets then, 7 now"),
    (BootCounters(reset_count=5, restart_count=9), {}, Outcome.WARNED, "5 resets then, 7 now"),
    (replace(THEN, restart_count=1), {}, Outcome.WARNED, "1 restarts then, 2 now"),
    (replace(THEN, reset_count=8), {}, Outcome.FAILED, "went back"),
    (BootCounters(reset_count=8, restart_count=0), {}, Outcome.FAILED, "went back"),
    (replace(THEN, restart_count=3), {}, Outcome.FAILED, "went back"),
    (THEN, {"clock": replace(CLOCK, safe=False)}, Outcome.WARNED, "not shut down in order"),
    (THEN, {"hierarchy": OWNER}, Outcome.WARNED, "blurs the counters"),
    (THEN, {"hierarchy": TpmtPublic.parse(EK).qualified_name(ENDORSEMENT)}, Outcome.PASSED, "neither"),
    (THEN, {"hierarchy": ecc_ak(9).public.qualified_name(ENDORSEMENT)}, Outcome.WARNED, "blurs"),
]


@pytest.mark.parametrize(("last", "making", "expected", "word"), COUNTERS)
def test_counters_tell_of_boots(
    last: BootCounters, making: dict[str, Any], expected: Outcome, word: str
) -> None:
    expectation = QuoteExpectation(key_proof=proof(), last_boot=last)
    finding = outcome(quoted(Making(**making), expectation=expectation), CheckId.VTPM_BOOT_COUNTERS)
    assert (finding.outcome, word in finding.why) == (expected, True), finding


def test_counters_are_shown_where_nobody_asked() -> None:
    finding = outcome(quoted(), CheckId.VTPM_BOOT_COUNTERS)
    assert (finding.outcome, finding.actual) == (Outcome.NOT_REQUESTED, "reset 7, restart 2, safe")
    assert AK.public.name != EK_NAME
