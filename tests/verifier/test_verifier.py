import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.appraisal.findings import CheckId, Profile, Tier
from app.appraisal.key_proof import KeyProof, NoKeyProof
from app.appraisal.policy import Policy, default_policy
from app.appraisal.policy_document import policy_from
from app.appraisal.quote import QuoteExpectation
from app.appraisal.result import AttestationResult
from app.errors import (
    AttestError,
    CertificateError,
    CollateralUnavailableError,
    EvidenceError,
    NonceError,
    UnsupportedVersionError,
    WireError,
)
from app.evidence.simulator.backend import SimulatorBackend
from app.trust.endorsements import EndorsementSource
from app.trust.offered import OfferedEndorsements
from app.trust.roots import TrustRoots
from app.verifier.key_challenges import ActivationAnswer, ChallengeAnswer, KeyChallenges
from app.verifier.single_use import MemorySingleUseStore
from app.verifier.verifier import Verifier
from app.wire import guid
from app.wire.certificate_table import CertificateTable
from app.wire.evidence import Binding, Evidence, Service
from app.wire.session import Channel, ChannelType
from tests.appraisal.quotes import Making

NONCE = bytes(range(64))


def no_crl(table: bytes) -> bytes:
    entries = CertificateTable.parse(table).entries
    return CertificateTable(tuple(entry for entry in entries if entry.guid != guid.CRL)).encode()


class Bench:
    """A verifier that trusts the simulator's root, and evidence for it."""

    def __init__(self, state: Path) -> None:
        backend = SimulatorBackend(state_dir=state)
        self.evidence = asyncio.run(backend.collect(NONCE, Service.VTPM))
        self.offered = OfferedEndorsements.from_table(self.evidence.certificates or b"")
        self.roots = TrustRoots.amd().with_root(self.offered.roots[0], "simulator")
        self.now = datetime.now(UTC)

    def verify(
        self,
        evidence: Evidence | None = None,
        nonce: bytes | None = NONCE,
        policy: Policy | None = None,
        **more: Any,
    ) -> AttestationResult:
        verifier = Verifier(EndorsementSource(self.roots), self.roots, lambda: self.now)
        wished = policy or default_policy()
        return asyncio.run(verifier.verify(evidence or self.evidence, nonce, wished, **more))


@pytest.fixture(scope="module")
def bench(simulator_state: Path) -> Bench:
    return Bench(simulator_state)


def test_genuine_evidence_is_genuine(bench: Bench) -> None:
    result = bench.verify()
    assert result.genuine
    assert result.verdict is Tier.WARNING  # the built-in policy knows no measurement


def test_certificates_may_come_beside_the_evidence(bench: Bench) -> None:
    alone = replace(bench.evidence, certificates=None)
    assert bench.verify(alone, offered=bench.offered).genuine
    with pytest.raises(CollateralUnavailableError):
        bench.verify(alone)


def test_the_clock_decides_on_validity(bench: Bench) -> None:
    later = Bench.__new__(Bench)
    later.__dict__ = {**bench.__dict__, "now": bench.now + timedelta(days=8 * 365)}
    assert not later.verify().genuine


@pytest.mark.parametrize("size", [0, 32, 63, 65])
def test_a_nonce_of_another_length_is_refused(bench: Bench, size: int) -> None:
    with pytest.raises(NonceError, match=f"{size} bytes, want exactly 64"):
        bench.verify(nonce=bytes(size))


def test_evidence_that_is_not_what_it_claims_to_be_is_no_verdict(bench: Bench) -> None:
    evidence = bench.evidence
    with pytest.raises(WireError, match="ATTESTATION_REPORT"):
        bench.verify(replace(evidence, report=evidence.report[:-1]))
    with pytest.raises(UnsupportedVersionError):
        bench.verify(replace(evidence, report=b"\x06" + evidence.report[1:]))
    with pytest.raises(WireError, match="TPMT_PUBLIC"):
        bench.verify(replace(evidence, manifest=b"\0\1"))
    with pytest.raises(WireError, match="certificate table"):
        bench.verify(replace(evidence, certificates=b"\1" * 24))
    table = CertificateTable.parse(evidence.certificates or b"")
    broken = CertificateTable(tuple(replace(entry, data=b"\x30") for entry in table.entries))
    with pytest.raises(CertificateError):
        bench.verify(replace(evidence, certificates=broken.encode()))


def denying() -> Policy:
    return policy_from({"version": 1, "id": "deny", "root_of_trust": {"crl_unavailable": "deny"}})


def test_a_policy_that_demands_a_crl_gets_one_or_no_verdict(bench: Bench) -> None:
    offered = bench.offered
    assert offered.crls, "the simulator's host offers its CRL"
    assert bench.verify(policy=denying()).genuine
    without = replace(bench.evidence, certificates=no_crl(bench.evidence.certificates or b""))
    with pytest.raises(CollateralUnavailableError, match="CRL"):
        bench.verify(without, policy=denying())
    assert bench.verify(without).genuine


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_of_the_signed_part_is_not_genuine(bench: Bench, data: st.DataObject) -> None:
    bit = data.draw(st.integers(0, 0x2A0 * 8 - 1))
    raw = bytearray(bench.evidence.report)
    raw[bit // 8] ^= 1 << bit % 8
    try:
        assert not bench.verify(replace(bench.evidence, report=bytes(raw))).genuine
    except AttestError as error:
        assert isinstance(error, WireError | CollateralUnavailableError)  # noqa: PT017


@settings(max_examples=100, deadline=None)
@given(
    report=st.binary(max_size=1300),
    manifest=st.none() | st.binary(max_size=400),
    table=st.binary(max_size=99),
)
def test_arbitrary_evidence_raises_only_typed_errors(
    bench: Bench, report: bytes, manifest: bytes | None, table: bytes
) -> None:
    with pytest.raises(AttestError):
        bench.verify(Evidence(report=report, manifest=manifest, certificates=table))


ANSWER = ActivationAnswer("any", bytes(32))


def test_a_verifier_without_challenges_takes_no_answer(bench: Bench) -> None:
    quote = Making().evidence()
    evidence = replace(bench.evidence, binding=Binding.SESSION, quote=quote)
    found = {finding.check: finding for finding in bench.verify(evidence, answer=ANSWER).findings}
    assert found[CheckId.VTPM_AK_BINDING].why == "This verifier gives out no challenges."


def test_an_answer_is_not_used_up_before_everything_else_is_at_hand(bench: Bench) -> None:
    challenges = Recording()
    verifier = Verifier(EndorsementSource(bench.roots), bench.roots, lambda: bench.now, challenges)
    alone = replace(bench.evidence, certificates=None)
    malformed = replace(bench.evidence, report=b"")
    for evidence in (alone, malformed):
        with pytest.raises(AttestError):
            asyncio.run(verifier.verify(evidence, NONCE, default_policy(), answer=ANSWER))
    assert challenges.resolved == []
    asyncio.run(verifier.verify(bench.evidence, NONCE, default_policy(), answer=ANSWER))
    assert challenges.resolved == [ANSWER]


class Recording(KeyChallenges):
    """Challenges that remember what they were asked about."""

    def __init__(self) -> None:
        super().__init__(MemorySingleUseStore(1), lifetime_s=1, clock=lambda: datetime.now(UTC))
        self.resolved: list[ChallengeAnswer] = []

    async def resolve(self, answer: ChallengeAnswer) -> KeyProof | NoKeyProof:
        self.resolved.append(answer)
        return await super().resolve(answer)


QUOTE = Making().evidence()


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"binding": Binding.SESSION}, "/quote"),
        ({"quote": QUOTE}, "/binding"),
        ({"binding": Binding.SESSION, "quote": QUOTE, "manifest": None}, "/manifest"),
    ],
)
def test_quote_binding_and_manifest_go_together(bench: Bench, changes: dict[str, Any], pointer: str) -> None:
    with pytest.raises(EvidenceError) as caught:
        bench.verify(replace(bench.evidence, **changes))
    assert caught.value.pointer == pointer


def test_a_bare_report_cannot_carry_the_quote_that_is_due(bench: Bench) -> None:
    bare = replace(bench.evidence, manifest=None)
    assert bench.verify(bare).profile is Profile.SNP
    wished = policy_from({"version": 1, "id": "quotes", "policy": {"vtpm": {"require_quote": True}}})
    channel = QuoteExpectation(channel=Channel(ChannelType.TLS_EXPORTER, b"x"))
    for due in ({"policy": wished}, {"expectation": channel}, {"answer": ANSWER}):
        with pytest.raises(EvidenceError, match="nothing names the EK"):
            bench.verify(bare, **due)
