"""Problem documents: every error of the HTTP edge, and the only place where errors become answers.

Source: RFC 9457. Nothing of a request's content is repeated in them, except names of members that
look like names.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app import errors
from app.appraisal.findings import CheckId, Outcome, Tier
from app.wire import certificate_table, report
from app.wire.bits import PLATFORM_STRUCTURE, POLICY_STRUCTURE
from app.wire.tcb import STRUCTURE as TCB_STRUCTURE
from app.wire.tpm import credential, duplicate

MEDIA_TYPE = "application/problem+json"
URN = "urn:svsm-attest:problem:"
_INSTANCE = "urn:svsm-attest:request:"
_MAX_FAULTS = 16
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_OBJECTIONS = {Outcome.FAILED.value, Outcome.WARNED.value}


@dataclass(frozen=True, slots=True)
class ProblemType:
    """A kind of problem: the last part of its URN, its HTTP status and its title."""

    name: str
    status: int
    title: str


_ALL = (
    ProblemType("malformed-request", 400, "The request cannot be understood"),
    ProblemType("nonce-invalid", 400, "The nonce cannot be used"),
    ProblemType("policy-invalid", 400, "The policy cannot be used"),
    ProblemType("forbidden", 403, "This is not given out"),
    ProblemType("not-affirmed", 403, "The evidence is not good enough for this"),
    ProblemType("not-found", 404, "There is nothing here"),
    ProblemType("method-not-allowed", 405, "This path takes other methods"),
    ProblemType("not-acceptable", 406, "No acceptable media type"),
    ProblemType("request-timeout", 408, "The request took too long to arrive"),
    ProblemType("evidence-too-large", 413, "The request body is too large"),
    ProblemType("uri-too-long", 414, "The URL is too long"),
    ProblemType("unsupported-media-type", 415, "The request body is not JSON"),
    ProblemType("evidence-malformed", 422, "The evidence is not what it claims to be"),
    ProblemType("challenge-malformed", 422, "The challenge is not what it claims to be"),
    ProblemType("challenge-refused", 422, "The TPM does not answer this challenge"),
    ProblemType("report-version-unsupported", 422, "The report has an unknown version"),
    ProblemType("rate-limited", 429, "Too many requests"),
    ProblemType("headers-too-large", 431, "The request headers are too large"),
    ProblemType("internal", 500, "A fault of this service"),
    ProblemType("backend-unavailable", 503, "The platform gave no evidence"),
    ProblemType("collateral-unavailable", 503, "An endorsement could not be had"),
    ProblemType("issuer-unavailable", 503, "The certificate authority cannot issue"),
)
TYPES = {kind.name: kind for kind in _ALL}
# For errors that come as a bare status: the first type that has it.
_BY_STATUS = {kind.status: kind for kind in reversed(_ALL)}


class Fault(BaseModel):
    """One of several faults in a request."""

    model_config = ConfigDict(extra="forbid")

    detail: str
    pointer: str | None = Field(default=None, description="JSON Pointer into the request body")
    parameter: str | None = Field(default=None, description="name of a query parameter")


class Objection(BaseModel):
    """A finding of an appraisal that speaks against the evidence."""

    model_config = ConfigDict(extra="forbid")

    check: CheckId
    outcome: Literal[Outcome.FAILED, Outcome.WARNED]
    why: str = Field(description="one sentence")
    remedy: str | None = Field(default=None, description="one sentence, where there is something to do")


class Problem(BaseModel):
    """An error (RFC 9457). Members after `instance` are there where they say something."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(description=f"{URN}<name>", json_schema_extra={"format": "uri"})
    title: str = Field(description="fixed for each type")
    status: int = Field(ge=400, le=599, description="the HTTP status")
    detail: str = Field(description="what happened here, and where")
    instance: str = Field(
        description=f"{_INSTANCE}<request id>, which also leads to the log",
        json_schema_extra={"format": "uri"},
    )
    errors: list[Fault] | None = Field(default=None, description="every fault found, at most 16")
    pointer: str | None = Field(default=None, description="JSON Pointer into the request body")
    structure: str | None = Field(default=None, description="the binary structure that is malformed")
    byte_offset: int | None = Field(default=None, description="where in the structure")
    version: int | None = Field(default=None, description="the version that is not known")
    supported: list[int] | None = Field(default=None, description="the versions that are")
    place: str | None = Field(default=None, description="where in the policy")
    source: str | None = Field(default=None, description="where the endorsement came from or was looked for")
    upstream_status: int | None = Field(default=None, description="what the KDS answered")
    product: str | None = Field(default=None, description="the product line of the endorsement")
    chip_id_masked: bool | None = Field(default=None, description="true where the host hides CHIP_ID")
    cause: str | None = Field(default=None, description="a stable word for why there is no evidence")
    remedy: str | None = Field(default=None, description="what to do about it")
    verdict: Tier | None = Field(default=None, description="what the appraisal came to")
    findings: list[Objection] | None = Field(default=None, description="its findings that failed or warn")


class ProblemResponse(Response):
    """A problem document as an answer."""

    media_type = MEDIA_TYPE


def problem_response(
    request: Request,
    kind: ProblemType | int,
    detail: str,
    *,
    retry_after_s: float | None = None,
    headers: dict[str, str] | None = None,
    **members: Any,
) -> ProblemResponse:
    """The answer for one problem.

    Args:
        request: for its id.
        kind: what happened; or a bare HTTP status, of which the first type that has it is taken.
        detail: what happened here.
        retry_after_s: when the caller may come back, if that is known.
        headers: to be sent along.
        members: of Problem; those that are None are left out.
    """
    if not isinstance(kind, ProblemType):
        kind = _BY_STATUS.get(kind) or TYPES["internal" if kind >= 500 else "malformed-request"]  # noqa: PLR2004 (the 5xx class)
    document = Problem(
        type=URN + kind.name,
        title=kind.title,
        status=kind.status,
        detail=detail,
        instance=_INSTANCE + getattr(request.state, "request_id", "unknown"),
        **members,
    )
    response = ProblemResponse(
        document.model_dump_json(exclude_none=True), status_code=kind.status, headers=headers
    )
    if retry_after_s is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
    return response


def register_problems(app: FastAPI) -> None:
    """Have every error of an application answered by a problem document."""
    app.add_exception_handler(errors.AttestError, _on_attest_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_attest_error(request: Request, error: Exception) -> ProblemResponse:
    match error:
        case errors.CollateralUnavailableError():
            return problem_response(
                request,
                TYPES["collateral-unavailable"],
                f"{error}. This says nothing about trust.",
                retry_after_s=error.retry_after_s,
                source=error.source,
                upstream_status=error.upstream_status,
                product=error.product,
                chip_id_masked=error.chip_id_masked,
            )
        case errors.BackendError():
            return problem_response(
                request,
                TYPES["backend-unavailable"],
                error.reason,
                retry_after_s=1 if isinstance(error, errors.BackendBusyError) else None,
                cause=error.cause,
                remedy=error.remedy,
            )
        case errors.RateLimitedError():
            return problem_response(
                request, TYPES["rate-limited"], error.reason, retry_after_s=error.retry_after_s
            )
        case errors.IssuerUnavailableError():
            return problem_response(request, TYPES["issuer-unavailable"], error.reason)
    return _refusal(request, error)


def _refusal(request: Request, error: Exception) -> ProblemResponse:
    match error:
        case errors.NonceError():
            return problem_response(request, TYPES["nonce-invalid"], error.reason)
        case errors.NotAffirmedError():
            verdict, kind = error.verdict, TYPES["not-affirmed"]
            return problem_response(
                request, kind, error.reason, verdict=verdict["verdict"], findings=_objections(verdict)
            )
        case errors.ChallengeRefusedError():
            return problem_response(request, TYPES["challenge-refused"], error.reason, remedy=error.remedy)
        case errors.PolicyError():
            return problem_response(
                request, TYPES["policy-invalid"], str(error), pointer="/policy", place=error.place
            )
    return _malformed_evidence(request, error)


def _objections(verdict: dict[str, Any]) -> list[Objection]:
    return [
        Objection.model_validate({name: finding[name] for name in Objection.model_fields})
        for finding in verdict["findings"]
        if finding["outcome"] in _OBJECTIONS
    ]


def _malformed_evidence(request: Request, error: Exception) -> ProblemResponse:
    kind = TYPES["evidence-malformed"]
    match error:
        case errors.WireError():
            members: dict[str, Any] = {
                "pointer": error.pointer or _POINTERS.get(error.structure, "/evidence/manifest"),
                "structure": error.structure,
                "byte_offset": error.offset,
            }
            if error.structure in _CHALLENGE:
                kind = TYPES["challenge-malformed"]
            if isinstance(error, errors.UnsupportedVersionError):
                members |= {"version": error.version, "supported": list(error.supported)}
                if error.structure == report.STRUCTURE:
                    kind = TYPES["report-version-unsupported"]
            return problem_response(request, kind, str(error), **members)
        case errors.CertificateError():
            return problem_response(
                request, kind, str(error), pointer="/evidence/certificates", source=error.source
            )
        case errors.EvidenceError():
            return problem_response(request, kind, str(error), pointer=f"/evidence{error.pointer}")
    raise error


# Structures of a challenge; of the last, each kind of challenge has another member.
_CHALLENGE = {
    credential.ID_OBJECT: "/credential_blob",
    duplicate.PUBLIC: "/public_area",
    duplicate.DUPLICATE: "/duplicate",
    credential.SEED: None,
}
_POINTERS = {
    **_CHALLENGE,
    **dict.fromkeys(
        (report.STRUCTURE, TCB_STRUCTURE, POLICY_STRUCTURE, PLATFORM_STRUCTURE), "/evidence/report"
    ),
    certificate_table.STRUCTURE: "/evidence/certificates",
}


async def _on_http_exception(request: Request, error: Exception) -> ProblemResponse:
    if not isinstance(error, HTTPException):
        raise error
    headers = dict(error.headers or {})
    detail = error.detail
    if error.status_code == TYPES["not-found"].status and not headers and detail == "Not Found":
        detail = "There is nothing at this path. /docs lists what there is for the role of this service."
    if error.status_code == TYPES["method-not-allowed"].status:
        allowed = _methods_of_path(request) or headers.get("Allow", "")
        headers["Allow"] = allowed
        detail = f"This path takes {allowed}."
    return problem_response(request, error.status_code, detail, headers=headers)


def _methods_of_path(request: Request) -> str:
    """Every method of the path, where the router knows only those of the route it came across first."""
    template = getattr(request.scope.get("route"), "path_format", "")
    operations = request.app.openapi()["paths"].get(template, {})
    return ", ".join(method.upper() for method in sorted(operations))


async def _on_invalid_request(request: Request, error: Exception) -> ProblemResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    found = sorted(error.errors(), key=_gravity)
    kind = TYPES[_KINDS_OF_FAULTS[_gravity(found[0])]]
    faults = [_fault(one) for one in found[:_MAX_FAULTS]]
    first = faults[0]
    place = first.pointer or first.parameter
    detail = f"{place}: {first.detail}" if place else first.detail
    if len(found) > 1:
        detail += f" (and {len(found) - 1} more)"
    return problem_response(request, kind, detail, pointer=first.pointer, errors=faults)


# Of the request as such, of its nonce, of its evidence: the first that there is names the problem.
_KINDS_OF_FAULTS = ("malformed-request", "nonce-invalid", "evidence-malformed")


def _gravity(fault: dict[str, Any]) -> int:
    """Index into _KINDS_OF_FAULTS."""
    loc: Sequence[int | str] = fault["loc"]
    member = loc[1] if len(loc) > 1 else None
    if member == "nonce":
        return 1
    if member == "evidence" and (len(loc) > 2 or fault["type"] != "missing"):  # noqa: PLR2004 (below /evidence)
        return 2
    return 0


def _fault(fault: dict[str, Any]) -> Fault:
    where, *path = fault["loc"]
    what = "member" if where == "body" else "parameter"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        message = f"there is no such {what}"
    elif fault["type"] == "missing":
        message = f"this {what} is missing"
    shown = list(takewhile(_NAME.fullmatch, map(str, path)))
    if where == "body":
        return Fault(detail=message, pointer="".join(f"/{part}" for part in shown))
    return Fault(detail=message, parameter=".".join(shown) or None)
