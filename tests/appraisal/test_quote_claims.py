"""Claims of a quote: there only where everything that proves them passed."""

from dataclasses import replace
from typing import Any

import pytest

from app.appraisal.claims import vtpm_claims
from app.appraisal.findings import GENUINE, QUOTE, CheckId, Finding, Outcome, Profile
from app.appraisal.subject import Subject
from tests.appraisal import measured
from tests.appraisal.quotes import AK, OWNER, VALUES, Making, quoted
from tests.appraisal.subjects import subject

BOOT = measured.log(*measured.secure_boot())
PROVING = GENUINE | QUOTE | {CheckId.VTPM_BINDING, CheckId.VTPM_EK_TEMPLATE}
BELYING = {
    CheckId.REVOCATION,
    CheckId.MEASUREMENT,
    CheckId.POLICY_DEBUG,
    CheckId.POLICY_MIGRATE_MA,
}
MEMBERS = (
    "ak_name",
    "ak_alg",
    "ak_binding",
    "pcr_selection",
    "pcrs",
    "clock_ms",
    "safe",
    "reset_count",
    "restart_count",
    "tpm_firmware_version",
    "secure_boot",
    "boot",
)


def claims(appraised: Subject, *, failed: CheckId | None = None) -> dict[str, Any]:
    findings = [
        Finding(check=check, outcome=Outcome.FAILED if check is failed else Outcome.PASSED, why="because")
        for check in Profile.SVSM.checks
    ]
    found = vtpm_claims(appraised, findings)
    assert found is not None
    return found


def test_a_proven_quote_is_told_in_full() -> None:
    found = claims(quoted(Making(values=measured.quoted(BOOT), event_log=BOOT)))
    assert {name: found[name] for name in MEMBERS if name not in {"pcrs", "boot"}} == {
        "ak_name": AK.public.name.hex(),
        "ak_alg": "P-256",
        "ak_binding": "activate",
        "pcr_selection": {"sha256": list(range(24))},
        "clock_ms": 120_000,
        "safe": True,
        "reset_count": 7,
        "restart_count": 2,
        "tpm_firmware_version": "0x2019102300163636",
        "secure_boot": True,
    }
    assert found["pcrs"]["sha256"]["7"] == measured.quoted(BOOT).values[0][7].hex()
    assert found["boot"]["secure_boot"]["enabled"] is True


def test_without_a_log_nothing_is_told_of_the_boot() -> None:
    found = claims(quoted())
    assert found["pcrs"]["sha256"]["0"] == VALUES.values[0][0].hex()
    assert (found["secure_boot"], found["boot"]) == (None, None)


def test_a_log_that_does_not_replay_tells_nothing() -> None:
    found = claims(quoted(Making(event_log=BOOT)))
    assert found["pcrs"] is not None
    assert (found["secure_boot"], found["boot"]) == (None, None)


@pytest.mark.parametrize("check", sorted(PROVING | BELYING))
def test_a_quote_that_is_not_proven_is_not_told_at_all(check: CheckId) -> None:
    found = claims(quoted(Making(values=measured.quoted(BOOT), event_log=BOOT)), failed=check)
    assert {name: found[name] for name in MEMBERS} == dict.fromkeys(MEMBERS)


@pytest.mark.parametrize("check", [CheckId.VTPM_PCRS, CheckId.CHIP_ALLOWED, CheckId.VTPM_BOOT_COUNTERS])
def test_what_a_policy_dislikes_is_proven_all_the_same(check: CheckId) -> None:
    assert claims(quoted(), failed=check)["pcrs"] is not None


def test_without_a_quote_there_is_nothing_to_tell() -> None:
    found = claims(subject())
    assert {name: found[name] for name in MEMBERS} == dict.fromkeys(MEMBERS)


def test_blurred_counters_are_not_told() -> None:
    found = claims(quoted(Making(hierarchy=OWNER)))
    blurred = {"reset_count", "restart_count", "tpm_firmware_version"}
    assert {name: found[name] for name in blurred} == dict.fromkeys(blurred)
    assert found["clock_ms"] == 120_000


def test_a_bare_report_has_no_vtpm() -> None:
    assert vtpm_claims(replace(subject(), manifest=None, manifest_bytes=None), []) is None
