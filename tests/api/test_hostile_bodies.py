"""Arbitrary bytes against the whole application: nothing but what the document says."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.wire import b64
from app.wire.evidence import PROFILE
from tests.api.service import Service, problem

NONCE = bytes(range(64))
PATHS = ("/attest", "/verify")
DOCUMENTED = {400, 406, 413, 415, 422}
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([b64.encode(NONCE), "vtpm", "direct", "merkle", "default", PROFILE])
)
NAMES = st.sampled_from(
    [
        "nonce",
        "evidence",
        "policy",
        "report",
        "manifest",
        "certificates",
        "service",
        "guid",
        "binding",
        "type",
    ]
) | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def evidence(trusting: Service) -> dict[str, Any]:
    return trusting.attest(NONCE)


@FUZZ
@given(path=st.sampled_from(PATHS), body=st.binary(max_size=300))
def test_arbitrary_bytes(cautious: Service, path: str, body: bytes) -> None:
    answer = cautious.post(path, content=body)
    assert answer.status_code in DOCUMENTED
    problem(answer)


@FUZZ
@given(path=st.sampled_from(PATHS), value=VALUES)
def test_arbitrary_json(cautious: Service, path: str, value: Any) -> None:
    answer = cautious.post(path, content=json.dumps(value))
    if answer.status_code != 200:
        assert answer.status_code in DOCUMENTED
        problem(answer)


@FUZZ
@given(members=st.dictionaries(NAMES, VALUES, max_size=3), inner=st.dictionaries(NAMES, VALUES, max_size=3))
def test_good_requests_with_something_strange_in_them(
    trusting: Service, evidence: dict[str, Any], members: dict[str, Any], inner: dict[str, Any]
) -> None:
    body = {"nonce": b64.encode(NONCE), "evidence": {**evidence, **inner}, **members}
    answer = trusting.post("/verify", content=json.dumps(body))
    if answer.status_code != 200:
        assert answer.status_code in DOCUMENTED
        problem(answer)


@FUZZ
@given(data=st.data())
def test_evidence_with_other_bytes_in_it(
    trusting: Service, evidence: dict[str, Any], data: st.DataObject
) -> None:
    member = data.draw(st.sampled_from(["report", "manifest", "certificates"]))
    raw = bytearray(b64.decode(evidence[member]))
    start = data.draw(st.integers(0, len(raw)))
    end = data.draw(st.integers(start, min(len(raw), start + 64)))
    raw[start:end] = data.draw(st.binary(max_size=80))
    body = {"nonce": b64.encode(NONCE), "evidence": {**evidence, member: b64.encode(bytes(raw))}}
    answer = trusting.post("/verify", json=body)
    changed = bytes(raw) != b64.decode(evidence[member])
    if answer.status_code == 200:
        if changed and member != "certificates":
            assert answer.json()["verdict"] == "contraindicated"
    else:
        # Without its certificates the simulator's own KDS is asked, which may not know the report.
        assert problem(answer) in {
            "evidence-malformed",
            "report-version-unsupported",
            "collateral-unavailable",
        }


@FUZZ
@given(query=st.text(st.characters(max_codepoint=0x2FF), max_size=60))
def test_arbitrary_queries(cautious: Service, query: str) -> None:
    answer = cautious.get(f"/attest?{quote(query, safe='=&+%')}")
    assert answer.status_code == 400
    problem(answer)


@FUZZ
@given(
    headers=st.dictionaries(
        st.sampled_from(["Accept", "Content-Type", "X-Request-Id"]), st.binary(max_size=40)
    )
)
def test_arbitrary_headers(cautious: Service, headers: dict[str, bytes]) -> None:
    clean = {name: bytes(byte for byte in value if byte not in b"\r\n\0") for name, value in headers.items()}
    answer = cautious.post("/attest", content=b"{}", headers=clean)
    assert answer.status_code in {400, 406, 415}
    problem(answer)
