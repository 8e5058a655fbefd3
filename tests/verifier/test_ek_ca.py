"""When an EK certificate is issued, and each reason why one is not."""

import asyncio
import hashlib
import json
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography import x509

from app.appraisal.findings import CheckId, Tier, not_requested
from app.appraisal.policy import Policy, default_policy
from app.appraisal.result import AttestationResult
from app.assembly import simulator_policy
from app.errors import (
    CollateralUnavailableError,
    IssuerUnavailableError,
    NonceError,
    NotAffirmedError,
    RateLimitedError,
    WireError,
)
from app.evidence.simulator.backend import SimulatorBackend
from app.evidence.simulator.ek import EkKind
from app.evidence.simulator.faults import Fault
from app.trust.certificates import certificate_digest
from app.trust.ek_authority import CaAlgorithm, EkAuthority
from app.trust.ek_certificate import TpmModel
from app.trust.endorsements import EndorsementSource
from app.trust.offered import OfferedEndorsements
from app.trust.roots import TrustRoots
from app.trust.tpm_key import public_key
from app.verifier.ek_ca import MAX_LIFETIME, NONCE_LIFETIME, EkCa, IssuedCertificate
from app.verifier.private_files import AppendLog
from app.verifier.single_use import MemorySingleUseStore
from app.verifier.verifier import Verifier
from app.wire.evidence import Evidence, Service
from app.wire.tpm.public import TpmtPublic

T = TypeVar("T")
TPM = TpmModel(manufacturer="id:414D4400", model="SVSM vTPM", version="id:00010002", revision=164)


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return self.now.timestamp()


class Doctored(Verifier):
    """A verifier whose results are changed before anybody sees them."""

    changes: dict[str, Any]

    async def verify(self, *args: Any, **options: Any) -> AttestationResult:
        result = await super().verify(*args, **options)
        return replace(
            result, **{name: change(getattr(result, name)) for name, change in self.changes.items()}
        )


class Bench:
    """An issuer beside a verifier that trusts the simulator's root, and a simulated VM."""

    def __init__(self, folder: Path, state: Path, *, simulated: bool = True, **options: Any) -> None:
        self.runner = asyncio.Runner()
        self.state = state
        self.clock = Clock()
        self.log = folder / "issued.jsonl"
        self.policy = simulator_policy()
        backend = SimulatorBackend(state_dir=state)
        self.roots = TrustRoots.amd().with_root(self.run(backend.trust_root()), "simulator")
        self.run(backend.aclose())
        self.authority = EkAuthority.create(
            name="EK CA",
            simulated=simulated,
            algorithm=CaAlgorithm.P256,
            at=self.clock.now,
            lifetime=options.pop("ca_lifetime", timedelta(days=30)),
        )
        self.nonces = MemorySingleUseStore(options.pop("capacity", 4), self.clock.monotonic)
        chosen = {"tpm": TPM, "lifetime": MAX_LIFETIME, **options}
        self.ca = EkCa(self.authority, AppendLog(self.log), nonces=self.nonces, clock=self.clock, **chosen)
        self.verifier: Verifier = Verifier(EndorsementSource(self.roots), self.roots, self.clock)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def doctor(self, **changes: Any) -> None:
        doctored = Doctored(EndorsementSource(self.roots), self.roots, self.clock)
        doctored.changes = changes
        self.verifier = doctored

    def nonce(self) -> bytes:
        return self.run(self.ca.new_nonce())[0]

    def attest(self, nonce: bytes, service: Service = Service.VTPM, **options: Any) -> Evidence:
        async def collect() -> Evidence:
            backend = SimulatorBackend(state_dir=self.state, **options)
            try:
                return await backend.collect(nonce, service)
            finally:
                await backend.aclose()

        return self.run(collect())

    def issue(
        self, evidence: Evidence | None = None, nonce: bytes | None = None, policy: Policy | None = None
    ) -> IssuedCertificate:
        nonce = nonce or self.nonce()
        evidence = evidence or self.attest(nonce)
        return self.run(self.issuing(evidence, nonce, policy))

    def issuing(
        self, evidence: Evidence, nonce: bytes, policy: Policy | None = None
    ) -> Coroutine[Any, Any, IssuedCertificate]:
        return self.ca.issue(evidence, nonce, verifier=self.verifier, policy=policy or self.policy)

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def refuses(self, reason: str, **how: Any) -> NotAffirmedError:
        with pytest.raises(NotAffirmedError, match=reason) as refused:
            self.issue(**how)
        assert self.records() == []
        return refused.value


@pytest.fixture
def bench(tmp_path: Path, simulator_state: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, simulator_state)
    yield made
    made.runner.close()


@pytest.mark.parametrize("kind", EkKind)
@pytest.mark.parametrize("service", [Service.VTPM, Service.ALL])
def test_the_attested_ek_is_certified(bench: Bench, kind: EkKind, service: Service) -> None:
    nonce = bench.nonce()
    evidence = bench.attest(nonce, service, ek=kind)
    issued = bench.issue(evidence, nonce)
    assert issued.result.verdict is Tier.AFFIRMING
    assert issued.ek.encode() in (evidence.manifest or b"")
    assert issued.certificate.public_key() == public_key(issued.ek)
    issued.certificate.verify_directly_issued_by(bench.authority.certificate)
    assert x509.load_pem_x509_certificate(issued.pem.encode()) == issued.certificate


def test_the_names_are_the_operator_s_and_a_simulated_one_says_so(bench: Bench) -> None:
    names = bench.issue().certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    (name,) = names.value.get_values_for_type(x509.DirectoryName)
    assert [part.value for part in name] == ["id:414D4400", "SIMULATED SVSM vTPM", "id:00010002"]


def test_each_certificate_is_on_record(bench: Bench) -> None:
    nonce = bench.nonce()
    evidence = bench.attest(nonce)
    issued = bench.issue(evidence, nonce)
    ek = TpmtPublic.parse(evidence.manifest or b"")
    snp = issued.result.claims["snp"]
    (record,) = bench.records()
    appraised_at = f"{issued.result.appraised_at:%Y-%m-%dT%H:%M:%SZ}"
    assert record == {
        "serial": f"{issued.certificate.serial_number:040x}",
        "not_before": f"{issued.certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}",
        "not_after": f"{issued.certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
        "issuer": "SIMULATED EK CA",
        "certificate_sha256": certificate_digest(issued.certificate),
        "ek_name": ek.name.hex(),
        "ek_sha256": hashlib.sha256(ek.encode()).hexdigest(),
        "simulated": True,
        "appraisal": {
            "report_sha256": hashlib.sha256(evidence.report).hexdigest(),
            "chip_id": evidence.report[0x1A0:0x1E0].hex(),
            "csp_id": None,
            "measurement": evidence.report[0x90:0xC0].hex(),
            "reported_tcb": evidence.report[0x180:0x188].hex(),
            "root_sha256": issued.result.endorsements["root_sha256"],
            "policy": "simulator",
            "policy_digest": bench.policy.digest,
            "appraised_at": appraised_at,
        },
    }
    assert snp["vmpl"] == 0
    bench.issue()
    assert len({record["serial"] for record in bench.records()}) == 2
    assert bench.log.stat().st_mode & 0o777 == 0o600


def test_a_nonce_is_good_for_one_request(bench: Bench) -> None:
    nonce = bench.nonce()
    evidence = bench.attest(nonce)
    bench.issue(evidence, nonce)
    with pytest.raises(NonceError, match="used already"):
        bench.issue(evidence, nonce)
    assert len(bench.records()) == 1


def test_of_many_requests_with_one_nonce_one_is_served(bench: Bench) -> None:
    nonce = bench.nonce()
    evidence = bench.attest(nonce)

    async def race() -> list[Any]:
        requests = [bench.issuing(evidence, nonce) for _ in range(8)]
        ended: list[Any] = await asyncio.gather(*requests, return_exceptions=True)
        return ended

    outcomes = sorted(type(outcome).__name__ for outcome in bench.run(race()))
    assert outcomes == ["IssuedCertificate", *["NonceError"] * 7]
    assert len(bench.records()) == 1


def test_a_nonce_is_used_up_by_a_refusal_too(bench: Bench) -> None:
    nonce = bench.nonce()
    bench.refuses("verdict is contraindicated", evidence=bench.attest(bytes(64)), nonce=nonce)
    with pytest.raises(NonceError):
        bench.issue(bench.attest(nonce), nonce)


def test_a_nonce_of_anybody_else_is_refused(bench: Bench, tmp_path: Path, simulator_state: Path) -> None:
    other = Bench(tmp_path, simulator_state)
    for nonce in (bytes(64), other.nonce()):
        with pytest.raises(NonceError, match="not one that this verifier gave out"):
            bench.issue(bench.attest(nonce), nonce)
    other.runner.close()
    assert bench.records() == []


def test_a_nonce_expires(bench: Bench) -> None:
    for late, served in ((timedelta(seconds=-1), True), (timedelta(0), False)):
        nonce, expires_at = bench.run(bench.ca.new_nonce())
        assert expires_at == bench.clock.now + NONCE_LIFETIME
        evidence = bench.attest(nonce)
        bench.clock.now = expires_at + late
        if served:
            bench.issue(evidence, nonce)
            continue
        with pytest.raises(NonceError, match="expired"):
            bench.issue(evidence, nonce)


def test_nonces_are_bounded_and_none_repeats(bench: Bench) -> None:
    assert len({bench.nonce() for _ in range(4)}) == 4
    with pytest.raises(RateLimitedError) as refused:
        bench.nonce()
    assert refused.value.retry_after_s == pytest.approx(NONCE_LIFETIME.total_seconds())


def test_evidence_that_is_not_affirmed_gets_none(bench: Bench) -> None:
    refusal = bench.refuses("verdict is warning, and a certificate takes affirming", policy=default_policy())
    assert refusal.verdict["verdict"] == "warning"
    outcomes = {finding["check"]: finding["outcome"] for finding in refusal.verdict["findings"]}
    assert outcomes["snp.measurement"] == "warned"


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        (Fault("snp.vmpl"), "snp.vmpl"),
        (Fault("snp.report_data"), "snp.report_data"),
        (Fault("snp.signature"), "snp.signature"),
        (Fault("snp.chain:signature"), "snp.chain"),
        (Fault("snp.policy.debug"), "snp.policy.debug"),
        (Fault("vtpm.ek_template"), "vtpm.ek_template"),
    ],
)
def test_each_failure_is_told(bench: Bench, fault: Fault, check: str) -> None:
    nonce = bench.nonce()
    refusal = bench.refuses("contraindicated", evidence=bench.attest(nonce, fault=fault), nonce=nonce)
    failed = {one["check"] for one in refusal.verdict["findings"] if one["outcome"] == "failed"}
    assert check in failed


def test_a_manifest_without_a_vtpm_gets_none(bench: Bench) -> None:
    nonce = bench.nonce()
    refusal = bench.refuses("warning", evidence=bench.attest(nonce, Service.UEFI_MM), nonce=nonce)
    assert refusal.verdict["claims"]["vtpm"]["ek_name"] is None


def test_a_bare_report_gets_none_even_where_it_is_affirmed(bench: Bench) -> None:
    # The guest itself can ask for a report with this verifier's nonce as its REPORT_DATA.
    nonce = bench.nonce()
    attested = bench.attest(nonce)
    expected = attested.report[0x50:0x90]
    bench.run(bench.nonces.put(b"ek-certificate-nonce:" + expected, b"", 60))
    bare = replace(attested, manifest=None)
    result = bench.run(bench.verifier.verify(bare, expected, bench.policy))
    assert result.verdict is Tier.AFFIRMING
    bench.refuses("a bare report names no EK", evidence=bare, nonce=expected)


@pytest.mark.parametrize("attest_feature", [True, None])
def test_a_build_that_signs_what_a_host_chooses_gets_none(bench: Bench, attest_feature: bool | None) -> None:  # noqa: FBT001 (a parameter of the test)
    (known,) = bench.policy.reference_values.measurements
    loose = bench.policy.model_copy(
        update={
            "reference_values": bench.policy.reference_values.model_copy(
                update={"measurements": (known.model_copy(update={"attest_feature": attest_feature}),)}
            )
        }
    )
    refusal = bench.refuses("attest_feature: false is missing from reference value svsm-attest", policy=loose)
    assert refusal.verdict["verdict"] == "affirming"


def test_an_authority_for_hardware_certifies_nothing_simulated(tmp_path: Path, simulator_state: Path) -> None:
    bench = Bench(tmp_path, simulator_state, simulated=False)
    refusal = bench.refuses("the evidence is simulated, and EK CA is for hardware")
    assert refusal.verdict["verdict"] == "affirming"
    bench.runner.close()


def test_a_simulated_authority_certifies_nothing_else(bench: Bench) -> None:
    bench.doctor(endorsements=lambda facts: {**facts, "simulated": False})
    bench.refuses("the evidence is of hardware, and SIMULATED EK CA is for simulated evidence")


def test_an_authority_for_hardware_certifies_hardware(tmp_path: Path, simulator_state: Path) -> None:
    bench = Bench(tmp_path, simulator_state, simulated=False)
    bench.doctor(endorsements=lambda facts: {**facts, "simulated": False})
    issued = bench.issue()
    names = issued.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "SIMULATED" not in names.get_values_for_type(x509.DirectoryName)[0].rfc4514_string()
    (record,) = bench.records()
    assert (record["simulated"], record["issuer"]) == (False, "EK CA")
    bench.runner.close()


@pytest.mark.parametrize("check", [CheckId.VMPL, CheckId.VTPM_BINDING, CheckId.VTPM_EK_TEMPLATE])
def test_what_a_certificate_says_is_demanded_by_name(
    bench: Bench, check: CheckId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if a verdict could be affirming without it."""
    waived = not_requested(check, None, "Nobody asked.")
    bench.doctor(findings=lambda findings: tuple(waived if one.check is check else one for one in findings))
    monkeypatch.setattr(AttestationResult, "verdict", Tier.AFFIRMING)
    bench.refuses(f"not passed: {check.value}")


def test_a_record_that_cannot_be_written_is_no_certificate(bench: Bench) -> None:
    bench.log.mkdir()
    with pytest.raises(IssuerUnavailableError, match="the record of certificates cannot be written"):
        bench.issue()
    bench.log.rmdir()
    bench.issue()
    assert len(bench.records()) == 1


@pytest.mark.parametrize("chosen", [timedelta(minutes=10), timedelta(hours=24), timedelta(days=7)])
def test_a_lifetime_is_the_chosen_one_and_never_longer_than_a_day(
    tmp_path: Path, simulator_state: Path, chosen: timedelta
) -> None:
    bench = Bench(tmp_path, simulator_state, lifetime=chosen)
    certificate = bench.issue().certificate
    now = bench.clock.now.replace(microsecond=0)
    assert certificate.not_valid_before_utc == now - timedelta(minutes=5)
    assert certificate.not_valid_after_utc == now + min(chosen, timedelta(hours=24))
    bench.runner.close()


def test_a_certificate_ends_with_the_key_that_signed_the_report(bench: Bench) -> None:
    leaf = OfferedEndorsements.from_table(bench.attest(bytes(64)).certificates or b"").leaves[0]
    end = leaf.not_valid_after_utc
    bench.authority = EkAuthority.create(
        name=None,
        simulated=True,
        algorithm=CaAlgorithm.P256,
        at=bench.clock.now,
        lifetime=timedelta(days=4000),
    )
    bench.ca.authority = bench.authority
    bench.clock.now = end - timedelta(hours=3)
    relaxed = bench.policy.model_copy(
        update={"root_of_trust": bench.policy.root_of_trust.model_copy(update={"check_crl": False})}
    )
    assert bench.issue(policy=relaxed).certificate.not_valid_after_utc == end


def test_a_certificate_ends_with_the_authority_and_begins_no_sooner(
    tmp_path: Path, simulator_state: Path
) -> None:
    bench = Bench(tmp_path, simulator_state, ca_lifetime=timedelta(hours=2))
    own = bench.authority.certificate
    certificate = bench.issue().certificate
    assert certificate.not_valid_before_utc == own.not_valid_before_utc
    assert certificate.not_valid_after_utc == own.not_valid_after_utc
    bench.runner.close()


@pytest.mark.parametrize("moment", [timedelta(minutes=-6), timedelta(days=30, seconds=2)])
def test_an_authority_that_is_not_valid_now_issues_nothing(bench: Bench, moment: timedelta) -> None:
    nonce = bench.nonce()
    evidence = bench.attest(nonce)
    start = bench.clock.now
    bench.clock.now += moment
    with pytest.raises(IssuerUnavailableError, match="certificate of SIMULATED EK CA is valid from"):
        bench.nonce()
    bench.doctor(appraised_at=lambda _: start + moment)
    bench.clock.now = start
    with pytest.raises(IssuerUnavailableError, match="is valid from"):
        bench.issue(evidence, nonce)
    assert bench.records() == []


def test_what_is_no_evidence_or_lacks_endorsements_is_no_verdict(bench: Bench) -> None:
    nonce = bench.nonce()
    evidence = bench.attest(nonce)
    with pytest.raises(WireError):
        bench.issue(replace(evidence, report=evidence.report[:-1]), nonce)
    nonce = bench.nonce()
    with pytest.raises(CollateralUnavailableError):
        bench.issue(replace(bench.attest(nonce), certificates=None), nonce)
    assert bench.records() == []
