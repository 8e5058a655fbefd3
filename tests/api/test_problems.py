import asyncio
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request

from app import errors
from app.api import problems
from app.api.openapi import complete_openapi
from app.api.problems import TYPES, Problem, problem_response, register_problems
from app.api.request_context import RequestContext
from app.telemetry.metrics import Metrics
from app.wire import certificate_table, report
from app.wire.tpm import credential, duplicate
from app.wire.tpm import public as tpm_public
from tests.api.service import Service, problem

UNAVAILABLE = errors.CollateralUnavailableError(
    "the VCEK certificate (Milan)",
    "KDS answered 404",
    source="https://kds/vcek/v1/Milan/00",
    upstream_status=404,
    product="Milan",
    chip_id_masked=False,
    retry_after_s=12.3,
)

CASES: list[tuple[Exception, int, str, dict[str, Any]]] = [
    (errors.NonceError("32 bytes, want exactly 64"), 400, "nonce-invalid", {}),
    (
        errors.PolicyError("policy/vmpl", "too large"),
        400,
        "policy-invalid",
        {"place": "policy/vmpl", "pointer": "/policy"},
    ),
    (
        errors.WireError(report.STRUCTURE, 0x29F, "reserved byte is not zero"),
        422,
        "evidence-malformed",
        {"pointer": "/evidence/report", "structure": "ATTESTATION_REPORT", "byte_offset": 0x29F},
    ),
    (
        errors.WireError(certificate_table.STRUCTURE, 24, "overlap"),
        422,
        "evidence-malformed",
        {"pointer": "/evidence/certificates", "structure": "certificate table", "byte_offset": 24},
    ),
    (
        errors.WireError(tpm_public.STRUCTURE, 8, "undefined bit"),
        422,
        "evidence-malformed",
        {"pointer": "/evidence/manifest", "structure": "TPMT_PUBLIC", "byte_offset": 8},
    ),
    (
        errors.WireError(credential.ID_OBJECT, 2, "too short"),
        422,
        "challenge-malformed",
        {"pointer": "/credential_blob", "structure": "TPM2B_ID_OBJECT", "byte_offset": 2},
    ),
    (
        errors.WireError(duplicate.DUPLICATE, 0, "too short"),
        422,
        "challenge-malformed",
        {"pointer": "/duplicate", "structure": "duplicate"},
    ),
    (
        errors.WireError(credential.SEED, 0, "too short"),
        422,
        "challenge-malformed",
        {"structure": "TPM2B_ENCRYPTED_SECRET", "byte_offset": 0},
    ),
    (
        errors.ChallengeRefusedError("made for another key", "ask for a new one"),
        422,
        "challenge-refused",
        {"detail": "made for another key", "remedy": "ask for a new one"},
    ),
    (
        errors.TpmUnavailableError("tpm-missing", "there is none", "get one"),
        503,
        "backend-unavailable",
        {"cause": "tpm-missing", "remedy": "get one"},
    ),
    (
        errors.UnsupportedVersionError(report.STRUCTURE, 0, 6, (2, 3, 4, 5)),
        422,
        "report-version-unsupported",
        {"pointer": "/evidence/report", "version": 6, "supported": [2, 3, 4, 5]},
    ),
    (
        errors.UnsupportedVersionError("vTPM manifest version 1", 0, 2, (0, 1)),
        422,
        "evidence-malformed",
        {"pointer": "/evidence/manifest", "version": 2, "supported": [0, 1]},
    ),
    (
        errors.CertificateError("evidence, VCEK", "not a certificate"),
        422,
        "evidence-malformed",
        {"pointer": "/evidence/certificates", "source": "evidence, VCEK"},
    ),
    (
        errors.EvidenceError("/report", "missing"),
        422,
        "evidence-malformed",
        {"pointer": "/evidence/report"},
    ),
    (
        UNAVAILABLE,
        503,
        "collateral-unavailable",
        {
            "source": "https://kds/vcek/v1/Milan/00",
            "upstream_status": 404,
            "product": "Milan",
            "chip_id_masked": False,
        },
    ),
    (
        errors.BackendError("no-provider", "nothing there", "modprobe sev-guest", errno=2),
        503,
        "backend-unavailable",
        {"cause": "no-provider", "remedy": "modprobe sev-guest"},
    ),
    (
        errors.BackendBusyError("interference", "somebody else", "Repeat"),
        503,
        "backend-unavailable",
        {"cause": "interference"},
    ),
    (errors.RateLimitedError("64 requests wait", 127.2), 429, "rate-limited", {}),
    (errors.ConfigError("cannot happen here"), 500, "internal", {}),
    (ValueError("nor this"), 500, "internal", {}),
    (HTTPException(401), 400, "malformed-request", {}),
    (HTTPException(501), 500, "internal", {}),
    (
        HTTPException(415, "no JSON", headers={"Accept": "a/b"}),
        415,
        "unsupported-media-type",
        {},
    ),
]


def service_raising(error: Exception) -> Service:
    app = FastAPI()
    app.add_middleware(RequestContext, metrics=Metrics())
    register_problems(app)
    complete_openapi(app)

    @app.get("/")
    async def fail() -> None:
        raise error

    return Service(app)


@pytest.mark.parametrize(
    ("error", "status", "kind", "members"),
    CASES,
    ids=[f"{type(case[0]).__name__}-{case[2]}" for case in CASES],
)
def test_every_error_has_its_problem(
    error: Exception, status: int, kind: str, members: dict[str, Any]
) -> None:
    with service_raising(error) as service:
        answer = service.get("/")
    assert (answer.status_code, problem(answer)) == (status, kind)
    document = answer.json()
    Problem.model_validate(document)
    assert {name: document.get(name) for name in members} == members
    assert None not in document.values()
    assert document["title"] == TYPES[kind].title


@pytest.mark.parametrize(
    ("error", "after"),
    [
        (UNAVAILABLE, "13"),
        (errors.CollateralUnavailableError("x", "no network"), None),
        (errors.RateLimitedError("full", 0.2), "1"),
        (errors.BackendBusyError("interference", "somebody else", "Repeat"), "1"),
        (errors.BackendError("no-provider", "nothing there", "modprobe"), None),
    ],
)
def test_who_may_come_back_is_told_when(error: Exception, after: str | None) -> None:
    with service_raising(error) as service:
        assert service.get("/").headers.get("retry-after") == after


def test_unavailable_is_never_called_untrusted() -> None:
    with service_raising(UNAVAILABLE) as service:
        assert "says nothing about trust" in service.get("/").json()["detail"]


def test_headers_of_an_error_are_kept() -> None:
    with service_raising(CASES[-1][0]) as service:
        assert service.get("/").headers["accept"] == "a/b"


def test_types_are_those_of_the_contract() -> None:
    assert {kind.name: kind.status for kind in TYPES.values()}.items() >= {
        "malformed-request": 400,
        "nonce-invalid": 400,
        "not-acceptable": 406,
        "evidence-too-large": 413,
        "unsupported-media-type": 415,
        "evidence-malformed": 422,
        "report-version-unsupported": 422,
        "rate-limited": 429,
        "collateral-unavailable": 503,
        "backend-unavailable": 503,
        "internal": 500,
    }.items()
    assert len({kind.title for kind in TYPES.values()}) == len(TYPES)


def test_a_problem_needs_no_request_id() -> None:
    request = Request({"type": "http", "headers": []})
    document = problem_response(request, 404, "Not here.").body
    assert Problem.model_validate_json(bytes(document)).instance == "urn:svsm-attest:request:unknown"


@pytest.mark.parametrize("handler", ["_on_attest_error", "_on_http_exception", "_on_invalid_request"])
def test_an_error_of_another_kind_is_not_swallowed(handler: str) -> None:
    request = Request({"type": "http", "headers": []})
    with pytest.raises(KeyError):
        asyncio.run(getattr(problems, handler)(request, KeyError("x")))
