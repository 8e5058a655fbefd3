import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.api.evidence_document import EvidenceDocument
from app.wire import b64
from app.wire.evidence import PROFILE, Evidence, Service

BYTES = st.binary(max_size=80)
WHOLE = st.builds(
    Evidence,
    report=BYTES,
    manifest=st.none() | BYTES,
    certificates=st.none() | BYTES,
    nonce=st.none() | st.binary(min_size=64, max_size=64),
    service=st.sampled_from(Service),
    manifest_version=st.integers(0, 2**32 - 1),
    backend=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    boot_id=st.none() | st.uuids().map(str),
    collected_at=st.none() | st.datetimes(timezones=st.just(UTC)),
)


@given(WHOLE)
def test_written_and_read_it_is_the_same(evidence: Evidence) -> None:
    text = EvidenceDocument.from_evidence(evidence).model_dump_json()
    assert EvidenceDocument.model_validate(json.loads(text)).to_evidence() == evidence


def test_the_document_is_that_of_the_contract() -> None:
    evidence = Evidence(
        report=b"\1" * 3,
        manifest=b"\2" * 3,
        certificates=None,
        nonce=b"\3" * 64,
        service=Service.VTPM,
        manifest_version=0,
        backend="configfs",
        boot_id="3f0c",
        collected_at=datetime(2026, 11, 23, 7, tzinfo=UTC),
    )
    assert json.loads(EvidenceDocument.from_evidence(evidence).model_dump_json()) == {
        "profile": "tag:svsm-attest,2026:evidence#1",
        "report": "AQEB",
        "manifest": "AgIC",
        "service": {"guid": "c476f1eb-0123-45a5-9641-b4e7dde5bfe3", "manifest_version": 0},
        "certificates": None,
        "nonce": b64.encode(b"\3" * 64),
        "binding": {"type": "direct"},
        "backend": "configfs",
        "boot_id": "3f0c",
        "collected_at": "2026-11-23T07:00:00Z",
    }
    assert EvidenceDocument.from_evidence(evidence).profile == PROFILE


def test_nothing_but_a_report_is_needed() -> None:
    evidence = EvidenceDocument.model_validate({"report": "AQEB"}).to_evidence()
    assert evidence == Evidence(report=b"\1\1\1", manifest=None)


def test_a_service_nobody_knows_is_no_fault_because_nobody_asks() -> None:
    service = {"guid": "00000000-0000-0000-0000-000000000001", "manifest_version": 7}
    evidence = EvidenceDocument.model_validate({"report": "AQEB", "service": service}).to_evidence()
    assert (evidence.service, evidence.manifest_version) == (None, 7)


@pytest.mark.parametrize(
    ("members", "where"),
    [
        ({"report": None}, "report"),
        ({"report": "AQE"}, "report"),
        ({"report": 5}, "report"),
        ({"manifest": "?"}, "manifest"),
        ({"certificates": ""}, None),
        ({"certificates": False}, "certificates"),
        ({"nonce": "AQEB"}, "nonce"),
        ({"profile": "tag:somebody.else"}, "profile"),
        ({"service": "vtpm"}, "service"),
        ({"service": {"guid": "x"}}, "service"),
        ({"service": {"guid": "c476f1eb-0123-45a5-9641-b4e7dde5bfe3", "manifest_version": "0"}}, "service"),
        ({"service": {"guid": "c476f1eb-0123-45a5-9641-b4e7dde5bfe3", "manifest_version": True}}, "service"),
        ({"service": {"guid": "c476f1eb-0123-45a5-9641-b4e7dde5bfe3", "manifest_version": -1}}, "service"),
        ({"service": {"guid": "c476f1eb-0123-45a5-9641-b4e7dde5bfe3", "manifest_version": 2**32}}, "service"),
        ({"service": {"guid": "c476f1eb-0123-45a5-9641-b4e7dde5bfe3", "more": 1}}, "service"),
        ({"binding": {"type": "merkle"}}, "binding"),
        ({"binding": {"type": "other"}}, "binding"),
        ({"binding": {"type": "direct", "path": []}}, "binding"),
        ({"binding": None}, "binding"),
        ({"binding": "direct"}, "binding"),
        ({"backend": 1}, "backend"),
        ({"backend": "x" * 257}, "backend"),
        ({"boot_id": ["x"]}, "boot_id"),
        ({"collected_at": 1700000000}, "collected_at"),
        ({"collected_at": "yesterday"}, "collected_at"),
        ({"collected_at": "2026-11-23T07:00:00"}, "collected_at"),  # whose seven o'clock?
        ({"colour": "red"}, "colour"),
    ],
)
def test_members_are_held_to_their_form(members: dict[str, Any], where: str | None) -> None:
    document = {"report": "AQEB", **members}
    if where is None:
        EvidenceDocument.model_validate(document)
        return
    with pytest.raises(ValidationError) as caught:
        EvidenceDocument.model_validate(document)
    assert {fault["loc"][0] for fault in caught.value.errors()} == {where}


def test_a_merkle_binding_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="merkle bindings are not supported here"):
        EvidenceDocument.model_validate({"report": "AQEB", "binding": {"type": "merkle"}})
