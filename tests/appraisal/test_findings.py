import itertools

import pytest

from app.appraisal.findings import (
    ADVISORY,
    GENUINE,
    MANDATORY,
    QUOTE,
    QUOTED,
    SOURCES,
    CheckId,
    Finding,
    Outcome,
    Profile,
    Tier,
    genuine,
    tier,
)


def findings(profile: Profile, **outcomes: Outcome) -> tuple[Finding, ...]:
    by_value = {CheckId[name]: outcome for name, outcome in outcomes.items()}
    return tuple(
        Finding(check=check, outcome=by_value.get(check, Outcome.PASSED), why="because")
        for check in profile.checks
    )


@pytest.mark.parametrize("profile", Profile)
def test_all_passed_is_affirming(profile: Profile) -> None:
    assert tier(findings(profile), profile) is Tier.AFFIRMING


def test_no_findings_is_no_verdict() -> None:
    assert tier((), Profile.SVSM) is Tier.NONE


@pytest.mark.parametrize(("profile", "check"), [(p, c) for p in Profile for c in p.checks])
def test_each_failure_contraindicates(profile: Profile, check: CheckId) -> None:
    assert tier(findings(profile, **{check.name: Outcome.FAILED}), profile) is Tier.CONTRAINDICATED


@pytest.mark.parametrize(("profile", "check"), [(p, c) for p in Profile for c in p.checks])
def test_each_warning_lowers_the_verdict_unless_it_is_advisory(profile: Profile, check: CheckId) -> None:
    expected = Tier.AFFIRMING if check in ADVISORY else Tier.WARNING
    assert tier(findings(profile, **{check.name: Outcome.WARNED}), profile) is expected


@pytest.mark.parametrize("check", Profile.SVSM.checks)
def test_a_mandatory_check_cannot_be_waived(check: CheckId) -> None:
    expected = Tier.NONE if check in MANDATORY | QUOTE else Tier.AFFIRMING
    assert tier(findings(Profile.SVSM, **{check.name: Outcome.NOT_REQUESTED}), Profile.SVSM) is expected


def test_where_there_is_no_quote_none_of_its_checks_is_mandatory() -> None:
    unasked = {check.name: Outcome.NOT_REQUESTED for check in QUOTE | QUOTED}
    assert tier(findings(Profile.SVSM, **unasked), Profile.SVSM) is Tier.AFFIRMING


@pytest.mark.parametrize("check", sorted(QUOTE))
def test_one_check_of_a_quote_asks_for_all_of_them(check: CheckId) -> None:
    others = {other.name: Outcome.NOT_REQUESTED for other in QUOTE - {check}}
    assert tier(findings(Profile.SVSM, **others), Profile.SVSM) is Tier.NONE


@pytest.mark.parametrize("index", range(len(Profile.SVSM.checks)))
def test_a_check_that_does_not_report_or_reports_twice_leaves_no_verdict(index: int) -> None:
    whole = findings(Profile.SVSM)
    assert tier(whole[:index] + whole[index + 1 :], Profile.SVSM) is Tier.NONE
    assert tier((*whole, whole[index]), Profile.SVSM) is Tier.NONE


def test_a_failure_counts_even_where_checks_are_missing() -> None:
    failure = Finding(check=CheckId.VMPL, outcome=Outcome.FAILED, why="because")
    assert tier((failure,), Profile.SVSM) is Tier.CONTRAINDICATED


@pytest.mark.parametrize(
    ("check", "outcome"),
    list(itertools.product(sorted(GENUINE), sorted(set(Outcome) - {Outcome.PASSED}))),
    ids=str,
)
def test_genuine_takes_every_one_of_its_checks(check: CheckId, outcome: Outcome) -> None:
    assert genuine(findings(Profile.SVSM))
    assert not genuine(findings(Profile.SVSM, **{check.name: outcome}))


def test_genuine_says_nothing_about_freshness_or_policy() -> None:
    others = {check.name: Outcome.FAILED for check in set(CheckId) - GENUINE}
    assert genuine(findings(Profile.SVSM, **others))


def test_a_bare_report_has_no_vtpm_checks_and_every_check_has_a_source() -> None:
    assert not [check for check in Profile.SNP.checks if check.value.startswith("vtpm.")]
    assert set(Profile.SVSM.checks) == set(CheckId) == set(SOURCES)
