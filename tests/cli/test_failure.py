"""Errors reach the user with their exit code, their place and what to do."""

from typing import Any

import pytest

from app import errors
from app.api.problems import TYPES, URN
from app.cli.failure import ExitCode, InFileError, InputError, ServiceError, about, failure_of

CASES: tuple[tuple[errors.AttestError, int, str, dict[str, Any]], ...] = (
    (errors.WireError("S", 7, "bad"), 2, "evidence-malformed", {"structure": "S", "byte_offset": 7}),
    (
        errors.UnsupportedVersionError("ATTESTATION_REPORT", 0, 9, (2, 3)),
        2,
        "report-version-unsupported",
        {"version": 9, "supported": [2, 3]},
    ),
    (errors.UnsupportedVersionError("UEFI MM manifest", 0, 9, (0,)), 2, "evidence-malformed", {"version": 9}),
    (errors.CertificateError("leaf", "bad"), 2, "evidence-malformed", {"source": "leaf"}),
    (errors.EvidenceError("/report", "bad"), 2, "evidence-malformed", {"pointer": "/report"}),
    (errors.NonceError("short"), 2, "nonce-invalid", {}),
    (errors.PolicyError("policy/vmpl", "bad"), 2, "policy-invalid", {"place": "policy/vmpl"}),
    (errors.ConfigError("bad"), 2, "configuration-invalid", {}),
    (InputError("file", "bad", "fix it"), 2, "input-unusable", {"place": "file", "remedy": "fix it"}),
    (
        errors.CollateralUnavailableError("leaf", "gone", source="u", upstream_status=404, product="Milan"),
        3,
        "collateral-unavailable",
        {"source": "u", "upstream_status": 404, "product": "Milan"},
    ),
    (
        errors.BackendError("no-svsm", "why", "do this", errno=22),
        4,
        "backend-unavailable",
        {"cause": "no-svsm", "remedy": "do this", "errno": 22},
    ),
    (errors.RateLimitedError("full", 3.5), 4, "rate-limited", {"retry_after_s": 3.5}),
    (errors.AttestError("other"), 2, "malformed-request", {}),
)


@pytest.mark.parametrize(("error", "status", "kind", "members"), CASES, ids=lambda case: str(case)[:24])
def test_an_error_has_its_exit_code_type_and_members(
    error: errors.AttestError, status: int, kind: str, members: dict[str, Any]
) -> None:
    failure = failure_of(error)
    problem = failure.problem()
    assert (failure.exit_code, problem["type"]) == (status, URN + kind)
    assert members.items() <= problem.items()
    assert None not in problem.values()
    assert {"title", "detail", "exit_code"} <= problem.keys()


def test_types_that_the_service_knows_too_mean_the_same() -> None:
    shared = {failure_of(error).type for error, *_ in CASES} & TYPES.keys()
    assert shared == {
        "evidence-malformed",
        "report-version-unsupported",
        "nonce-invalid",
        "policy-invalid",
        "malformed-request",
        "collateral-unavailable",
        "backend-unavailable",
        "rate-limited",
    }
    for error, *_ in CASES:
        problem = failure_of(error).problem()
        known = TYPES.get(problem["type"].removeprefix(URN))
        assert known is None or problem["title"] == known.title


def test_a_file_is_named_before_what_is_wrong_in_it() -> None:
    with pytest.raises(InFileError) as error, about("report.bin", "look closer"):
        raise errors.WireError("ATTESTATION_REPORT", 0x34, "bad")
    failure = failure_of(error.value)
    assert failure.detail == "report.bin: ATTESTATION_REPORT at 0x34: bad"
    assert (failure.remedy, failure.members["file"]) == ("look closer", "report.bin")
    assert failure.members["byte_offset"] == 0x34
    assert failure_of(InFileError("x", InputError("content", "nothing"))).detail == "x: nothing"


@pytest.mark.parametrize(
    ("problem", "status", "kind"),
    [
        (None, 4, "service-unavailable"),
        ({"type": "about:blank", "status": 404}, 4, "service-unavailable"),
        ({"type": URN + "collateral-unavailable", "status": 503}, 3, "collateral-unavailable"),
        ({"type": URN + "backend-unavailable", "status": 503, "remedy": "wait"}, 4, "backend-unavailable"),
        ({"type": URN + "rate-limited", "status": 429}, 4, "rate-limited"),
        ({"type": URN + "internal", "status": 500}, 4, "internal"),
        ({"type": URN + "something-new", "status": 507}, 4, "something-new"),
        ({"type": URN + "evidence-malformed", "status": 422, "byte_offset": 5}, 2, "evidence-malformed"),
        ({"type": URN + "not-found", "status": 404, "remedy": 7}, 2, "not-found"),
    ],
)
def test_a_problem_of_a_service_keeps_its_meaning(
    problem: dict[str, Any] | None, status: int, kind: str
) -> None:
    failure = failure_of(ServiceError("http://there", "HTTP 4xx: no", problem))
    assert (failure.exit_code, failure.type) == (status, kind)
    assert failure.detail == "http://there: HTTP 4xx: no"
    members = failure.problem()
    assert members["url"] == "http://there"
    assert members.get("byte_offset") == (problem or {}).get("byte_offset")
    assert isinstance(members.get("remedy", ""), str)


def test_the_codes_are_those_of_the_contract() -> None:
    assert [int(code) for code in ExitCode][:5] == [0, 1, 2, 3, 4]
