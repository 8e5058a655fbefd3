from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.appraisal import guest_checks as checks
from app.appraisal.findings import CheckId, Finding, Outcome
from app.wire.report import KeyInfo
from tests.appraisal.subjects import GUEST_POLICY, MEASUREMENT, NONCE, REPORT, bare, policy, subject

AUTHOR = KeyInfo(author_key_en=True, mask_chip_key=False, signing_key=0)
ID_KEY, AUTHOR_KEY, OTHER = "55" * 48, "66" * 48, "99" * 48


def wishes(**checks_: Any) -> dict[str, Any]:
    return {"policy": policy(checks_)}


def known(**measurement: Any) -> dict[str, Any]:
    value = {"value": MEASUREMENT.hex(), "name": "svsm", **measurement}
    return {"policy": policy(reference_values={"measurements": [value]})}


CASES: list[tuple[str, dict[str, Any], Outcome, str]] = [
    ("report_data", {}, Outcome.PASSED, "bound to nonce and manifest"),
    ("report_data", {"nonce": None}, Outcome.NOT_REQUESTED, "No nonce"),
    ("report_data", {"nonce": bytes(64)}, Outcome.FAILED, "replay"),
    ("report_data", {"report_data": bytes(64)}, Outcome.FAILED, "replay"),
    ("vmpl", {}, Outcome.PASSED, "VMPL 0"),
    ("vmpl", {"vmpl": 1}, Outcome.FAILED, "only the SVSM"),
    ("vmpl", {"vmpl": 0xFFFFFFFF}, Outcome.FAILED, "The host asked"),
    ("vmpl", {"vmpl": 0x100}, Outcome.FAILED, "only the SVSM"),
    ("vmpl", wishes(vmpl=0), Outcome.PASSED, "VMPL 0"),
    ("vmpl", {"vmpl": 2, **wishes(vmpl=2)}, Outcome.FAILED, "only the SVSM"),
    ("vmpl", wishes(vmpl=2), Outcome.FAILED, "only the SVSM"),
    ("id_block", {}, Outcome.NOT_REQUESTED, "no identity"),
    ("id_block", wishes(require_id_block=True), Outcome.PASSED, "the one asked for"),
    ("id_block", {"id_key_digest": bytes(48), **wishes(require_id_block=True)}, Outcome.FAILED, "ID block"),
    ("id_block", wishes(require_author_key=True), Outcome.FAILED, "an author key"),
    ("id_block", {"key_info": AUTHOR, **wishes(require_author_key=True)}, Outcome.PASSED, "asked for"),
    ("id_block", wishes(trusted_id_key_hashes=[ID_KEY]), Outcome.PASSED, "asked for"),
    ("id_block", wishes(trusted_id_key_hashes=[OTHER]), Outcome.FAILED, "a trusted ID key"),
    ("id_block", wishes(trusted_author_key_hashes=[AUTHOR_KEY]), Outcome.FAILED, "a trusted author"),
    (
        "id_block",
        {"key_info": AUTHOR, **wishes(trusted_author_key_hashes=[AUTHOR_KEY])},
        Outcome.PASSED,
        "asked for",
    ),
    (
        "id_block",
        {
            "key_info": AUTHOR,
            **wishes(trusted_author_key_hashes=[AUTHOR_KEY], trusted_id_key_hashes=[OTHER]),
        },
        Outcome.PASSED,
        "asked for",
    ),
    (
        "id_block",
        wishes(trusted_author_key_hashes=[OTHER], trusted_id_key_hashes=[ID_KEY]),
        Outcome.PASSED,
        "asked for",
    ),
    ("id_block", wishes(family_id="22" * 16, image_id="33" * 16), Outcome.PASSED, "asked for"),
    ("id_block", wishes(family_id="33" * 16), Outcome.FAILED, "FAMILY_ID"),
    ("id_block", wishes(image_id="22" * 16), Outcome.FAILED, "IMAGE_ID"),
    ("id_block", wishes(minimum_guest_svn=3), Outcome.PASSED, "asked for"),
    ("id_block", wishes(minimum_guest_svn=4), Outcome.FAILED, "GUEST_SVN at least 4"),
    ("id_block", wishes(host_data=["44" * 32]), Outcome.PASSED, "asked for"),
    ("id_block", wishes(host_data=["45" * 32]), Outcome.FAILED, "HOST_DATA"),
    ("measurement", {}, Outcome.PASSED, "is svsm"),
    ("measurement", {"measurement": bytes(48)}, Outcome.WARNED, "unrecognised"),
    ("measurement", {"policy": policy(reference_values={})}, Outcome.WARNED, "unrecognised"),
    ("measurement", known(state="denied"), Outcome.FAILED, "denies"),
    ("measurement", known(state="deprecated"), Outcome.WARNED, "deprecated"),
    ("measurement", known(not_after="2026-11-23"), Outcome.PASSED, "is svsm"),
    ("measurement", known(not_after="2026-11-22"), Outcome.WARNED, "ended on 2026-11-22"),
    ("measurement", known(state="denied", not_after="2020-01-01"), Outcome.FAILED, "denies"),
]


@pytest.mark.parametrize(("check", "changes", "outcome", "word"), CASES)
def test_guest_check(check: str, changes: dict[str, Any], outcome: Outcome, word: str) -> None:
    finding = getattr(checks, f"check_{check}")(subject(**changes))
    assert (finding.outcome, word in finding.why) == (outcome, True), finding


def test_a_denial_wins_over_an_approval_of_the_same_digest() -> None:
    value = MEASUREMENT.hex()
    both = [{"value": value, "name": "good"}, {"value": value, "name": "bad", "state": "denied"}]
    for order in (both, both[::-1]):
        wished = policy(reference_values={"measurements": order})
        assert checks.check_measurement(subject(policy=wished)).outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("vmpl", "wish", "outcome"),
    [
        *((level, None, Outcome.PASSED) for level in range(4)),
        (4, None, Outcome.FAILED),
        (0xFFFFFFFF, None, Outcome.FAILED),
        (1, 1, Outcome.PASSED),
        (0, 1, Outcome.FAILED),
    ],
)
def test_a_bare_report_may_have_any_vmpl_unless_the_policy_names_one(
    vmpl: int, wish: int | None, outcome: Outcome
) -> None:
    assert checks.check_vmpl(bare(vmpl=vmpl, policy=policy({"vmpl": wish}))).outcome is outcome


def test_a_bare_report_is_bound_to_the_report_data_itself() -> None:
    assert checks.check_report_data(bare()).outcome is Outcome.PASSED
    assert checks.check_report_data(bare(nonce=NONCE)).outcome is Outcome.FAILED


@given(st.integers(0, 511))
def test_any_changed_bit_of_the_nonce_is_noticed(bit: int) -> None:
    changed = (int.from_bytes(NONCE, "big") ^ 1 << bit).to_bytes(64, "big")
    assert checks.check_report_data(subject(nonce=changed)).outcome is Outcome.FAILED


def findings(report_policy: dict[str, Any], wish: dict[str, Any]) -> dict[CheckId, Finding]:
    report = replace(REPORT, policy=replace(GUEST_POLICY, **report_policy))
    changed = replace(subject(policy=policy({"guest_policy": wish})), report=report)
    return {finding.check: finding for finding in checks.check_guest_policy(changed)}


@pytest.mark.parametrize(
    ("check", "allowed_in_report", "allowed_by_policy", "outcome"),
    [
        ("debug", True, False, Outcome.FAILED),
        ("debug", True, True, Outcome.NOT_REQUESTED),
        ("debug", False, False, Outcome.PASSED),
        ("migrate_ma", True, False, Outcome.FAILED),
        ("migrate_ma", False, False, Outcome.PASSED),
        ("smt", True, False, Outcome.WARNED),
        ("smt", False, False, Outcome.PASSED),
        ("smt", True, True, Outcome.NOT_REQUESTED),
        ("cxl", True, False, Outcome.WARNED),
    ],
)
def test_permissions(
    check: str, *, allowed_in_report: bool, allowed_by_policy: bool, outcome: Outcome
) -> None:
    found = findings({check: allowed_in_report}, {check: allowed_by_policy})
    assert found[CheckId(f"snp.policy.{check}")].outcome is outcome


@pytest.mark.parametrize(
    "check", ["single_socket", "mem_aes_256_xts", "rapl_dis", "ciphertext_hiding", "page_swap_disable"]
)
def test_demands(check: str) -> None:
    identifier = CheckId(f"snp.policy.{check}")
    assert findings({check: False}, {check: True})[identifier].outcome is Outcome.WARNED
    assert findings({check: True}, {check: True})[identifier].outcome is Outcome.PASSED
    assert findings({check: False}, {check: False})[identifier].outcome is Outcome.NOT_REQUESTED


@pytest.mark.parametrize(
    ("wish", "outcome"),
    [
        ({}, Outcome.NOT_REQUESTED),
        ({"abi_major": 1, "abi_minor": 55}, Outcome.PASSED),
        ({"abi_major": 1, "abi_minor": 56}, Outcome.WARNED),
        ({"abi_major": 2}, Outcome.WARNED),
        ({"abi_minor": 99}, Outcome.PASSED),
    ],
)
def test_least_abi(wish: dict[str, int], outcome: Outcome) -> None:
    found = findings({"abi_major": 1, "abi_minor": 55}, wish)
    assert found[CheckId.POLICY_ABI].outcome is outcome


def test_an_approval_ends_by_the_time_of_the_appraisal_not_by_ours() -> None:
    changes = known(not_after="2026-11-23")
    later = subject(at=datetime(2026, 11, 24, tzinfo=UTC), **changes)
    assert checks.check_measurement(later).outcome is Outcome.WARNED
