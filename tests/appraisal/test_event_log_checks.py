import pytest

from app.appraisal.event_log_checks import check_event_log, proven_registers
from app.appraisal.findings import CheckId, Outcome
from app.wire import event_types as ev
from app.wire.tpm import algorithms as alg
from tests.appraisal.measured import event, log, quoted, secure_boot, separator

EVERY = frozenset(range(24))
BOOT = (
    *(separator(pcr) for pcr in range(7)),
    *secure_boot(),
    event(8, ev.EV_IPL, b"8"),
    event(9, ev.EV_IPL, b"9"),
)
BOOTED = log(*BOOT)
UKI = log(*BOOT, event(11, ev.EV_IPL, b".linux"))
PHASES = (b"enter-initrd", b"leave-initrd", b"sysinit", b"ready", b"shutdown", b"final")


def test_registers_that_hold_what_the_log_replays_to() -> None:
    finding = check_event_log(BOOTED, quoted(BOOTED, banks=(alg.SHA256, alg.SHA384)))
    assert (finding.check, finding.outcome) == (CheckId.VTPM_EVENT_LOG, Outcome.PASSED)
    assert finding.expected == "sha256 PCR 0-9, 14 as the log replays; sha384 PCR 0-9, 14 as the log replays"
    assert finding.actual == "sha256 PCR 0-23; sha384 PCR 0-23"


@pytest.mark.parametrize("pcr", [*range(10), 14])
def test_one_other_measurement_is_named(pcr: int) -> None:
    finding = check_event_log(BOOTED, quoted(BOOTED, later={pcr: (b"unlogged",)}))
    assert finding.outcome is Outcome.FAILED
    assert finding.actual == f"sha256 PCR {pcr} differ"
    assert finding.remedy is not None


@pytest.mark.parametrize("pcr", [10, 11, 12, 13, 15, 16, 23])
def test_registers_of_the_operating_system_are_not_the_logs_business(pcr: int) -> None:
    values = quoted(BOOTED, later={pcr: (b"a file that IMA measured",)})
    assert check_event_log(BOOTED, values).outcome is Outcome.PASSED
    assert proven_registers(BOOTED, values) == {alg.SHA256: EVERY - {pcr}}


def test_an_event_that_was_taken_out_or_put_in() -> None:
    values = quoted(BOOTED)
    for changed in (log(*BOOT[1:]), log(*BOOT, event(0, ev.EV_POST_CODE, b"more"))):
        finding = check_event_log(changed, values)
        assert (finding.outcome, finding.actual) == (Outcome.FAILED, "sha256 PCR 0 differ")


def test_each_bank_must_agree() -> None:
    values = quoted(BOOTED, banks=(alg.SHA384, alg.SHA256))
    other = quoted(log(*BOOT, event(4, ev.EV_IPL, b"x"), event(5, ev.EV_IPL, b"x")))
    mixed = values.of({"sha384": values.names()["sha384"], "sha256": other.names()["sha256"]})
    assert check_event_log(BOOTED, mixed).actual == "sha256 PCR 4-5 differ"


def test_a_bank_that_the_log_has_not() -> None:
    only = log(*BOOT, banks=(alg.SHA256,))
    values = quoted(BOOTED, pcrs=range(8), banks=(alg.SHA256, alg.SHA384))
    finding = check_event_log(only, values)
    assert finding.outcome is Outcome.FAILED
    assert "sha384" in finding.why
    assert (finding.expected, finding.actual) == ("sha256 PCR 0-7; sha384 PCR 0-7", "a log of sha256")
    assert proven_registers(only, values) == {alg.SHA256: frozenset(range(8))}


def test_a_log_without_a_bank_of_ours() -> None:
    finding = check_event_log(log(banks=()), quoted(BOOTED))
    assert (finding.outcome, finding.actual) == (Outcome.FAILED, "a log of no bank that is accepted")


def test_a_quote_over_some_registers() -> None:
    finding = check_event_log(BOOTED, quoted(BOOTED, pcrs=(0, 2, 7, 16)))
    assert (finding.outcome, finding.expected) == (Outcome.PASSED, "sha256 PCR 0, 2, 7 as the log replays")


def test_a_quote_over_none_of_the_registers_proves_nothing() -> None:
    finding = check_event_log(BOOTED, quoted(BOOTED, pcrs=(10, 16)))
    assert (finding.outcome, finding.actual) == (Outcome.NOT_REQUESTED, "sha256 PCR 10, 16")


def test_a_bank_quoted_over_other_registers_beside_one_that_counts() -> None:
    values = quoted(BOOTED, banks=(alg.SHA256, alg.SHA384))
    names = values.names()
    some = values.of({"sha256": names["sha256"], "sha384": {16: names["sha384"][16]}})
    finding = check_event_log(BOOTED, some)
    assert (finding.outcome, finding.actual) == (Outcome.PASSED, "sha256 PCR 0-23; sha384 PCR 16")
    assert "sha384 no PCR" in str(finding.expected)


def test_systemd_separates_the_firmwares_registers() -> None:
    later = dict.fromkeys((*range(8), 9, 12, 13, 14), (b"os-separator",))
    values = quoted(BOOTED, later=later)
    assert check_event_log(BOOTED, values).outcome is Outcome.PASSED
    assert proven_registers(BOOTED, values) == {alg.SHA256: EVERY}
    twice = quoted(BOOTED, later={7: (b"os-separator",) * 2, 8: (b"os-separator",)})
    assert check_event_log(BOOTED, twice).actual == "sha256 PCR 7-8 differ"


@pytest.mark.parametrize(
    ("phases", "proven"),
    [
        *((PHASES[:reached], True) for reached in range(7)),
        (PHASES[2:4], True),
        (PHASES[1:2], False),
        ((PHASES[0], PHASES[2]), False),
        ((*PHASES, b"final"), False),
    ],
)
def test_boot_phases_of_a_unified_kernel_image(phases: tuple[bytes, ...], *, proven: bool) -> None:
    values = quoted(UKI, later={11: phases})
    assert check_event_log(UKI, values).outcome is Outcome.PASSED
    assert (11 in proven_registers(UKI, values)[alg.SHA256]) is proven


def test_systemd_stub_leaves_register_9_to_systemd() -> None:
    values = quoted(UKI, later={9: (b"nvpcr-init:hardware",)})
    assert check_event_log(UKI, values).outcome is Outcome.PASSED
    assert 9 not in proven_registers(UKI, values)[alg.SHA256]
