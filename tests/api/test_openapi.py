from typing import Any

import pytest

from app.api.problems import TYPES, Problem
from tests.api.service import Service


@pytest.fixture(scope="module")
def document(cautious: Service) -> dict[str, Any]:
    found: dict[str, Any] = cautious.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for methods in document["paths"].values() for operation in methods.values()]


def resolved(document: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    name = answer.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = document["components"]["responses"][name] if name else answer
    return found


def test_paths_are_those_of_the_contract(document: dict[str, Any]) -> None:
    found = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert found == {
        ("/attest", "post"),
        ("/attest", "get"),
        ("/ek", "get"),
        ("/ak", "post"),
        ("/ak/activate", "post"),
        ("/quote", "post"),
        ("/verify", "post"),
        ("/ak-challenges", "post"),
        ("/ek-certificates", "post"),
        ("/ek-certificates/nonces", "post"),
        ("/livez", "get"),
        ("/readyz", "get"),
        ("/metrics", "get"),
        ("/simulator/ark.pem", "get"),
        ("/simulator/kds/{path}", "get"),
    }


def test_every_error_is_a_problem_with_an_example_that_is_one(document: dict[str, Any]) -> None:
    named = set()
    for operation in operations(document):
        for status, answer in operation["responses"].items():
            answer = resolved(document, answer)  # noqa: PLW2901
            assert answer["headers"]["X-Request-Id"]["required"] is True
            if int(status) < 400 or "application/json" in answer["content"]:
                continue
            (media_type, content), *others = answer["content"].items()
            assert (media_type, others) == ("application/problem+json", [])
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            for name, example in content["examples"].items():
                problem = Problem.model_validate(example["value"])
                assert (problem.type, problem.status) == (f"urn:svsm-attest:problem:{name}", int(status))
                named.add(name)
    # Not found and a wrong method are answers of paths and methods that no operation describes.
    assert set(TYPES) - named == {"method-not-allowed"}


@pytest.mark.parametrize("status", ["408", "413", "414", "431", "500"])
def test_bounds_hold_everywhere(document: dict[str, Any], status: str) -> None:
    assert all(status in operation["responses"] for operation in operations(document))


def test_frameworks_own_errors_are_gone(document: dict[str, Any]) -> None:
    assert "HTTPValidationError" not in str(document)
    assert "422" not in document["paths"]["/attest"]["post"]["responses"]
    assert "422" in document["paths"]["/verify"]["post"]["responses"]


def test_references_lead_somewhere(document: dict[str, Any]) -> None:
    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [one for part in value.values() for one in references(part)]
        return [one for part in value for one in references(part)] if isinstance(value, list) else []

    found = references(document)
    assert found
    for reference in found:
        _, components, kind, name = reference.split("/")
        assert name in document[components][kind]


def test_requests_are_closed_and_exact(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in ("AttestRequest", "VerifyRequest", "EvidenceDocument", "ServiceDocument", "BindingDocument"):
        assert schemas[name]["additionalProperties"] is False
    nonce = schemas["AttestRequest"]["properties"]["nonce"]
    assert nonce["contentEncoding"] == "base64"
    assert nonce["pattern"] == "^[A-Za-z0-9+/]{84}[A-Za-z0-9+/][AQgw]==$"
    assert schemas["AttestRequest"]["required"] == ["nonce"]
    assert schemas["VerifyRequest"]["required"] == ["nonce", "evidence"]
    assert schemas["EvidenceDocument"]["required"] == ["report"]


def test_numbers_have_their_bounds(document: dict[str, Any]) -> None:
    (version,) = (
        parameter["schema"]
        for parameter in document["paths"]["/attest"]["get"]["parameters"]
        if parameter["name"] == "manifest_version"
    )
    for schema in (
        version,
        document["components"]["schemas"]["AttestRequest"]["properties"]["manifest_version"],
    ):
        assert (schema["type"], schema["minimum"], schema["maximum"]) == ("integer", 0, 0xFFFFFFFF)
