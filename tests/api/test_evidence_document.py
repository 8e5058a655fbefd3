import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.api.evidence_document import EvidenceDocument
from app.wire import b64
from app.wire.evidence import PROFILE, Binding, Evidence, QuoteEvidence, Service
from app.wire.session import ChannelType
from app.wire.tpm.pcr import PcrValues

BYTES = st.binary(max_size=80)
SIZES = {"sha256": 32, "sha384": 48, "sha512": 64}


def registers(size: int) -> st.SearchStrategy[dict[int, bytes]]:
    return st.dictionaries(st.integers(0, 23), st.binary(min_size=size, max_size=size), min_size=1)


BANKS = st.permutations(sorted(SIZES)).flatmap(
    lambda names: st.fixed_dictionaries({name: registers(SIZES[name]) for name in names[:2]})
)
QUOTE = st.builds(
    QuoteEvidence,
    ak_public=BYTES,
    attest=BYTES,
    signature=BYTES,
    pcrs=BANKS.map(PcrValues.of),
    event_log=st.none() | BYTES,
)
SESSION = {"type": "session", "construction": "svsm-attest/session/1"}
WHOLE = st.builds(
    Evidence,
    report=BYTES,
    manifest=st.none() | BYTES,
    quote=st.none() | QUOTE,
    certificates=st.none() | BYTES,
    nonce=st.none() | st.binary(min_size=64, max_size=64),
    service=st.sampled_from(Service),
    manifest_version=st.integers(0, 2**32 - 1),
    backend=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    boot_id=st.none() | st.uuids().map(str),
    collected_at=st.none() | st.datetimes(timezones=st.just(UTC)),
)


@given(
    st.one_of(
        WHOLE,
        st.builds(
            replace,
            WHOLE,
            binding=st.just(Binding.SESSION),
            channel=st.none() | st.sampled_from(ChannelType),
        ),
    )
)
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


def test_a_quote_is_a_member_of_its_own_in_a_session() -> None:
    quote = QuoteEvidence(
        ak_public=b"\1" * 3,
        attest=b"\2" * 3,
        signature=b"\3" * 3,
        pcrs=PcrValues.of({"sha384": {7: b"\5" * 48}, "sha256": {0: b"\4" * 32, 23: bytes(32)}}),
    )
    evidence = Evidence(
        report=b"\1" * 3,
        manifest=None,
        binding=Binding.SESSION,
        quote=quote,
        channel=ChannelType.TLS_SERVER_END_POINT,
    )
    document = json.loads(EvidenceDocument.from_evidence(evidence).model_dump_json())
    assert document["binding"] == {**SESSION, "channel_binding": "tls-server-end-point"}
    assert document["quote"] == {
        "ak_public": "AQEB",
        "attest": "AgIC",
        "signature": "AwMD",
        "pcrs": {"sha384": {"7": "05" * 48}, "sha256": {"0": "04" * 32, "23": "00" * 32}},
        "event_log": None,
    }
    assert list(document["quote"]["pcrs"]) == ["sha384", "sha256"]  # as it was signed


QUOTED: dict[str, Any] = {
    "ak_public": "AQEB",
    "attest": "AQEB",
    "signature": "AQEB",
    "pcrs": {"sha256": {"0": "00" * 32}},
}


@pytest.mark.parametrize(
    ("members", "where"),
    [
        ({}, None),
        ({"event_log": "AQEB"}, None),
        ({"pcrs": {"sha256": {"0": "AA" * 32}, "sha512": {"23": "00" * 64}}}, None),
        ({"ak_public": None}, "ak_public"),
        ({"ak_public": b64.encode(bytes(1025))}, "ak_public"),
        ({"attest": b64.encode(bytes(1025))}, "attest"),
        ({"signature": b64.encode(bytes(513))}, "signature"),
        ({"event_log": b64.encode(bytes(2**20 + 1))}, "event_log"),
        ({"event_log": 5}, "event_log"),
        ({"pcrs": None}, "pcrs"),
        ({"pcrs": []}, "pcrs"),
        ({"pcrs": {}}, "pcrs"),
        ({"pcrs": {"sha1": {"0": "00" * 20}}}, "pcrs"),
        ({"pcrs": {"sha256": {}}}, "pcrs"),
        ({"pcrs": {"sha256": ["00"]}}, "pcrs"),
        ({"pcrs": {"sha256": {"24": "00" * 32}}}, "pcrs"),
        ({"pcrs": {"sha256": {"00": "00" * 32}}}, "pcrs"),
        ({"pcrs": {"sha256": {"-1": "00" * 32}}}, "pcrs"),
        ({"pcrs": {"sha256": {"٣": "00" * 32}}}, "pcrs"),
        ({"pcrs": {"sha256": {"0": "00" * 31}}}, "pcrs"),
        ({"pcrs": {"sha256": {"0": "00" * 31 + "0"}}}, "pcrs"),
        ({"pcrs": {"sha256": {"0": "00 " * 32}}}, "pcrs"),
        ({"pcrs": {"sha256": {"0": 0}}}, "pcrs"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_quote_is_held_to_its_form(members: dict[str, Any], where: str | None) -> None:
    document = {"report": "AQEB", "binding": SESSION, "quote": {**QUOTED, **members}}
    if where is None:
        EvidenceDocument.model_validate(document)
        return
    with pytest.raises(ValidationError) as caught:
        EvidenceDocument.model_validate(document)
    assert {fault["loc"] for fault in caught.value.errors()} == {("quote", where)}


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
        ({"binding": {"type": "session"}}, "binding"),
        ({"binding": {"type": "session", "construction": "svsm-attest/session/2"}}, "binding"),
        ({"binding": {**SESSION, "channel_binding": "tls-unique"}}, "binding"),
        ({"binding": {**SESSION, "type": "direct"}}, "binding"),
        ({"binding": {"type": "direct", "channel_binding": "none"}}, "binding"),
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
