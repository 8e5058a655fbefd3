"""The OpenAPI document: what FastAPI finds out, completed by what every answer has in common."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.api.problems import MEDIA_TYPE, TYPES, URN, Problem
from app.telemetry import request_id

_SCHEMAS = "#/components/schemas/"
_RESPONSES = "#/components/responses/"
# Anybody can be told these, on any path.
_ALWAYS = ("request-timeout", "evidence-too-large", "uri-too-long", "headers-too-large", "internal")
_RETRY_AFTER = {"rate-limited", "collateral-unavailable", "backend-unavailable"}
_REQUEST_ID = {
    "description": "of the request, where it had one of this shape, or a new one; it is in the log, too",
    "required": True,
    "schema": {"type": "string", "pattern": request_id.PATTERN},
}


def problems(*names: str) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problem types."""
    responses: dict[int | str, dict[str, Any]] = {}
    for name in names:
        kind = TYPES[name]
        response = responses.setdefault(
            kind.status,
            {
                "description": "",
                "content": {MEDIA_TYPE: {"schema": {"$ref": f"{_SCHEMAS}Problem"}, "examples": {}}},
            },
        )
        response["description"] = " · ".join(filter(None, (response["description"], kind.title)))
        response["content"][MEDIA_TYPE]["examples"][name] = {"value": _example(name)}
        if name in _RETRY_AFTER:
            response["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "string"}}}
    return responses


def complete_openapi(app: FastAPI) -> None:
    """Make `app.openapi` give the complete document, built once."""

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas |= _problem_schemas()
    for invented in ("HTTPValidationError", "ValidationError"):  # FastAPI's own 422, which we never send
        schemas.pop(invented, None)
    components["responses"] = {}
    common: dict[str, dict[str, str]] = {}
    for name in _ALWAYS:
        (status, response), *_ = problems(name).items()
        components["responses"][name] = response
        common[str(status)] = {"$ref": _RESPONSES + name}
    for path in document["paths"].values():
        for operation in path.values():
            _complete_operation(operation["responses"], common)
    for response in components["responses"].values():
        response.setdefault("headers", {})[request_id.HEADER] = _REQUEST_ID
    return document


def _complete_operation(responses: dict[str, Any], common: dict[str, Any]) -> None:
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    for response in responses.values():
        response.setdefault("headers", {})[request_id.HEADER] = _REQUEST_ID
    responses |= {status: reference for status, reference in common.items() if status not in responses}


def _problem_schemas() -> dict[str, Any]:
    schema = Problem.model_json_schema(ref_template=_SCHEMAS + "{model}")
    return {**schema.pop("$defs", {}), "Problem": schema}


def _example(name: str) -> dict[str, Any]:
    kind = TYPES[name]
    return {
        "type": URN + name,
        "title": kind.title,
        "status": kind.status,
        "detail": "…",
        "instance": "urn:svsm-attest:request:0d5c1e6a2f7b4c19",
        **_EXAMPLE_MEMBERS.get(name, {}),
    }


_EXAMPLE_MEMBERS: dict[str, dict[str, Any]] = {
    "malformed-request": {
        "detail": "/polcy: there is no such member",
        "pointer": "/polcy",
        "errors": [{"detail": "there is no such member", "pointer": "/polcy"}],
    },
    "nonce-invalid": {
        "detail": "/nonce: 32 bytes, want exactly 64",
        "pointer": "/nonce",
        "errors": [{"detail": "32 bytes, want exactly 64", "pointer": "/nonce"}],
    },
    "policy-invalid": {"pointer": "/policy", "place": "policy/minimum_tcb/Milan/snp"},
    "evidence-malformed": {
        "detail": "TPMT_PUBLIC at 0x0: type 0x4141 is neither RSA nor ECC",
        "pointer": "/evidence/manifest",
        "structure": "TPMT_PUBLIC",
        "byte_offset": 0,
    },
    "challenge-malformed": {
        "detail": "TPM2B_ID_OBJECT at 0x2: TPMS_ID_OBJECT needs 68 bytes, 67 left",
        "pointer": "/credential_blob",
        "structure": "TPM2B_ID_OBJECT",
        "byte_offset": 2,
    },
    "challenge-refused": {
        "detail": "this EK cannot decrypt it (TPM2_ActivateCredential answered 0x101 TPM_RC_FAILURE)",
        "remedy": "Ask the verifier for a new challenge, made for the ek_public and ak_public of POST /ak",
    },
    "report-version-unsupported": {
        "detail": "ATTESTATION_REPORT at 0x0: version 6 is not supported (known: 2, 3, 4, 5)",
        "pointer": "/evidence/report",
        "structure": "ATTESTATION_REPORT",
        "byte_offset": 0,
        "version": 6,
        "supported": [2, 3, 4, 5],
    },
    "not-affirmed": {
        "detail": "the verdict is warning, and a certificate takes affirming",
        "verdict": "warning",
        "findings": [
            {
                "check": "snp.measurement",
                "outcome": "warned",
                "why": "The launch digest is svsm 2026.05, which the policy calls deprecated.",
            }
        ],
    },
    "issuer-unavailable": {"detail": "the record of certificates cannot be written"},
    "collateral-unavailable": {
        "source": "https://kdsintf.amd.com/vcek/v1/Milan/crl",
        "upstream_status": 429,
        "product": "Milan",
    },
    "backend-unavailable": {
        "detail": "no provider is registered",
        "cause": "no-provider",
        "remedy": "Load the sev-guest module: modprobe sev-guest",
    },
}
