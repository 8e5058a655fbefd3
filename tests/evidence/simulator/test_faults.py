"""Every fault, appraised for real: the checks that it names fail, and no others."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, Self

import httpx
import pytest

from app.appraisal.appraise import appraise
from app.appraisal.findings import QUOTE, QUOTED, CheckId, Outcome
from app.appraisal.policy import Policy
from app.appraisal.policy_document import policy_from
from app.appraisal.result import AttestationResult
from app.errors import CollateralUnavailableError
from app.evidence.simulator.backend import SimulatorBackend
from app.evidence.simulator.faults import Fault
from app.evidence.simulator.launch import Launch
from app.trust.endorsements import EndorsementSource
from app.trust.kds import KdsClient
from app.trust.names import VekKind
from app.trust.offered import OfferedEndorsements
from app.trust.roots import TrustRoots
from app.wire.bits import GuestPolicy
from app.wire.evidence import Evidence, Service
from app.wire.manifest import parse_manifest
from app.wire.product import ProductLine
from app.wire.report import AttestationReport
from app.wire.tcb import TcbVersion

Simulator = partial[SimulatorBackend]
NONCE = bytes(range(64))
KDS_FAULTS = {Fault.KDS_THROTTLED, Fault.KDS_NOT_FOUND}
# Whatever evidence a simulator gives, these never pass; the last follows from others.
NEVER = {CheckId.SIMULATED, CheckId.REQUIRED_CLAIMS}

# A guest whose owner demands everything that can be demanded, and allows nothing.
DEMANDING = Launch(
    policy=GuestPolicy(
        abi_major=0,
        abi_minor=31,
        smt=False,
        migrate_ma=False,
        debug=False,
        cxl=False,
        single_socket=True,
        mem_aes_256_xts=True,
        rapl_dis=True,
        ciphertext_hiding=True,
        page_swap_disable=True,
    )
)


async def collect(backend: SimulatorBackend) -> Evidence:
    return await backend.collect(NONCE, Service.VTPM)


def policy_for(backend: SimulatorBackend, evidence: Evidence) -> dict[str, Any]:
    """A policy document that asks for everything which this (good) evidence has, and nothing less."""
    report = AttestationReport.parse(evidence.report)
    assert evidence.manifest is not None
    line = backend.processor.line
    tcb = TcbVersion.parse(report.reported_tcb, line.tcb_layout).components()
    flags = report.policy
    return {
        "version": 1,
        "id": "everything",
        "policy": {
            "minimum_report_version": 3,
            "minimum_guest_svn": report.guest_svn,
            "guest_policy": {
                name: getattr(flags, name) for name in GuestPolicy.__slots__ if name != "__weakref__"
            },
            "minimum_tcb": {str(line): tcb},
            "minimum_version": "1.55",
            "minimum_build": report.committed_version.build,
            "platform_info": report.platform_info.flags(),
            "mitigation_vectors": {str(report.cpuid): {"launch": 0x3F, "current": 0x3F}},
            "trusted_id_key_hashes": [report.id_key_digest.hex()],
            "host_data": [report.host_data.hex()],
            "family_id": report.family_id.hex(),
            "image_id": report.image_id.hex(),
            "chip_ids": [report.chip_id.hex()] if any(report.chip_id) else [],
            "csp_ids": ["CN=cc.simulated.invalid"],
        },
        "reference_values": {
            "measurements": [{"value": backend.measurement.hex(), "name": "simulated"}],
            "vtpm": {
                "ek_templates": ["L-1"],
                "ek_sha256": [hashlib.sha256(evidence.manifest).hexdigest()],
            },
        },
    }


# What is not asked, because it would fail along with the fault and is beside its point.
NOT_ASKED: dict[Fault, dict[str, Any]] = {
    Fault.PRODUCT: {"minimum_tcb": {}, "mitigation_vectors": {}},
    Fault.PRODUCT_LINE: {"minimum_tcb": {}, "mitigation_vectors": {}},
    Fault.REPORT_VERSION: {"mitigation_vectors": {}},
    Fault.VEK_HWID_MASKED: {"chip_ids": []},
}


def policy_against(fault: Fault, document: dict[str, Any], report: AttestationReport) -> Policy:
    asked = {**document["policy"], **NOT_ASKED.get(fault, {})}
    known = document["reference_values"]
    if fault is Fault.ID_BLOCK_AUTHOR:
        asked["trusted_id_key_hashes"] = []
        asked["trusted_author_key_hashes"] = [report.author_key_digest.hex()]
    if fault is Fault.VTPM_EK_TEMPLATE:
        known = {**known, "vtpm": {"ek_templates": ["L-1"]}}
    return policy_from({**document, "policy": asked, "reference_values": known})


async def appraised(good: SimulatorBackend, evidence: Evidence, policy: Policy) -> AttestationResult:
    assert evidence.certificates is not None
    assert evidence.manifest is not None
    roots = TrustRoots.amd().with_root(await good.trust_root(), "simulator")
    report = AttestationReport.parse(evidence.report)
    offered = OfferedEndorsements.from_table(evidence.certificates)
    endorsements = await EndorsementSource(roots).gather(report, offered, want_crl=True)
    return appraise(
        report=report,
        manifest=parse_manifest(evidence.manifest),
        manifest_bytes=evidence.manifest,
        nonce=NONCE,
        endorsements=endorsements,
        roots=roots,
        policy=policy,
        at=datetime.now(UTC),
    )


def not_passed(result: AttestationResult) -> set[str]:
    return {
        finding.check.value
        for finding in result.findings
        if finding.outcome is not Outcome.PASSED and finding.check not in NEVER | QUOTE | QUOTED
    }


Machine = tuple[ProductLine, VekKind]
MACHINES: list[Machine] = [
    (ProductLine.MILAN, VekKind.VCEK),
    (ProductLine.MILAN, VekKind.VLEK),
    (ProductLine.TURIN, VekKind.VCEK),
]


@dataclass
class Good:
    """A machine without a fault, its evidence, and what does not pass of that."""

    backend: SimulatorBackend
    evidence: Evidence
    document: dict[str, Any]

    @classmethod
    def of(cls, backend: SimulatorBackend) -> Self:
        evidence = asyncio.run(collect(backend))
        return cls(backend, evidence, policy_for(backend, evidence))

    def not_passed(self, policy: Policy) -> set[str]:
        return not_passed(asyncio.run(appraised(self.backend, self.evidence, policy)))


@pytest.fixture(scope="module")
def good(simulator: Simulator) -> Callable[[Machine], Good]:
    def make(machine: Machine) -> Good:
        line, kind = machine
        return Good.of(simulator(line=line, signing_key=kind, launch=DEMANDING))

    return cache(make)


def possible(fault: Fault, machine: Machine) -> bool:
    if fault is Fault.CHAIN and machine != MACHINES[0]:
        return False  # one impostor is enough: its RSA keys take seconds
    if fault.effect.needs_tpm:
        return False  # watched in tests/api/test_quote_faults.py, where there are quotes
    return fault not in KDS_FAULTS and not (fault.effect.vcek_only and machine[1] is VekKind.VLEK)


CASES = [(fault, machine) for machine in MACHINES for fault in Fault if possible(fault, machine)]


@pytest.mark.parametrize(
    ("fault", "machine"), CASES, ids=[f"{fault} {' '.join(machine)}" for fault, machine in CASES]
)
def test_the_checks_that_a_fault_names_fail_and_no_others(
    simulator: Simulator, good: Callable[[Machine], Good], fault: Fault, machine: Machine
) -> None:
    line, kind = machine
    reference = good(machine)
    report = AttestationReport.parse(reference.evidence.report)
    policy = policy_against(fault, reference.document, report)
    bad = simulator(line=line, signing_key=kind, launch=DEMANDING, fault=fault)

    async def appraise_it() -> AttestationResult:
        return await appraised(reference.backend, await collect(bad), policy)

    expected = set(fault.checks)
    if fault is Fault.PRODUCT_LINE and line is ProductLine.TURIN:
        expected.add("snp.tcb.relations")  # no other line has Turin's layout of a TCB
    assert not_passed(asyncio.run(appraise_it())) ^ reference.not_passed(policy) == expected


@pytest.mark.parametrize("machine", MACHINES, ids=" ".join)
def test_without_a_fault_everything_passes(good: Callable[[Machine], Good], machine: Machine) -> None:
    failing = good(machine).not_passed(policy_from(good(machine).document))
    assert failing == (set() if machine[1] is VekKind.VCEK else {CheckId.CHIP_ALLOWED})


def test_faults_cover_every_check_that_evidence_can_fail() -> None:
    about = {check for fault in Fault for check in fault.checks}
    assert about == {check.value for check in CheckId} - NEVER


def test_a_fault_says_what_it_does() -> None:
    whats = [fault.effect.what for fault in Fault]
    assert all(whats)
    assert len(set(whats)) == len(whats)


def test_a_fault_is_chosen_by_its_name() -> None:
    assert Fault("snp.chain:expired") is Fault.CHAIN_EXPIRED
    assert str(Fault.CHAIN_EXPIRED) == "snp.chain:expired"
    assert Fault.CHAIN_EXPIRED.checks == ("snp.chain",)
    with pytest.raises(ValueError, match="not a valid Fault"):
        Fault("snp.chain:unheard_of")


@pytest.mark.parametrize("line", ProductLine)
def test_a_faulty_report_differs_only_where_it_should(simulator: Simulator, line: ProductLine) -> None:
    """Under the same report id: nothing but the field, the signature, and what derives from them."""

    async def fields(fault: Fault | None) -> dict[str, object]:
        backend = simulator(line=line, fault=fault, with_certificates=False)
        report = AttestationReport.parse((await collect(backend)).report)
        same = replace(report, report_id=bytes(32), signature=replace(report.signature, r=0, s=0))
        return {name: getattr(same, name) for name in same.__slots__ if name != "_raw"}

    async def run() -> dict[Fault, set[str]]:
        good = await fields(None)
        bad = {fault: await fields(fault) for fault in Fault if not fault.effect.needs_tpm}
        return {fault: {name for name in good if good[name] != found[name]} for fault, found in bad.items()}

    found = asyncio.run(run())
    assert {fault: names for fault, names in found.items() if names} == REPORT_FIELDS


TCBS = {"current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"}
REPORT_FIELDS = {
    Fault.SIGNATURE_MASKED: {"key_info"},
    Fault.VEK_KIND: {"key_info"},
    Fault.VEK_KIND_NONE: {"key_info"},
    Fault.VEK_HWID_MASKED: {"chip_id"},
    Fault.CHIP_ALLOWED: {"chip_id"},
    Fault.PRODUCT: {"cpuid"},
    Fault.PRODUCT_LINE: {"cpuid"},
    Fault.REPORT_VERSION: {"version", "cpuid", "launch_mit_vector", "current_mit_vector"},
    Fault.TCB_RELATIONS: {"reported_tcb"},
    Fault.TCB_MINIMUM: TCBS,
    Fault.TCB_MINIMUM_REPORTED: {"reported_tcb"},
    Fault.TCB_MINIMUM_LAUNCH: {"launch_tcb"},
    Fault.FIRMWARE: {"current_version", "committed_version"},
    Fault.FIRMWARE_PROVISIONAL: {"current_version", "current_tcb"},
    Fault.MIT_VECTOR: {"launch_mit_vector", "current_mit_vector"},
    Fault.MIT_VECTOR_LAUNCH: {"launch_mit_vector"},
    **{fault: {"platform_info"} for fault in Fault if fault.startswith("snp.platform_info")},
    **{fault: {"policy"} for fault in Fault if fault.startswith("snp.policy.")},
    Fault.ID_BLOCK: {"id_key_digest"},
    Fault.ID_BLOCK_AUTHOR: {"author_key_digest"},
    Fault.ID_BLOCK_GUEST_SVN: {"guest_svn"},
    Fault.ID_BLOCK_FAMILY_ID: {"family_id"},
    Fault.ID_BLOCK_IMAGE_ID: {"image_id"},
    Fault.ID_BLOCK_HOST_DATA: {"host_data"},
    Fault.MEASUREMENT: {"measurement"},
    **{fault: {"vmpl"} for fault in Fault if fault.startswith("snp.vmpl")},
    **{fault: {"report_data"} for fault in Fault if fault.startswith("snp.report_data")},
    # these bind another manifest, or the same in another way
    Fault.VTPM_BINDING: {"report_data"},
    Fault.VTPM_MANIFEST_VERSION: {"report_data"},
    Fault.VTPM_EK_TEMPLATE: {"report_data"},
    Fault.VTPM_EK_ENROLLED: {"report_data"},
}


@pytest.mark.parametrize(
    ("fault", "status"), [(Fault.KDS_THROTTLED, 429), (Fault.KDS_NOT_FOUND, 404)], ids=str
)
def test_a_fault_of_the_kds_leaves_no_verdict(simulator: Simulator, fault: Fault, status: int) -> None:
    async def run() -> CollateralUnavailableError:
        backend = simulator(fault=fault)
        evidence = await collect(backend)
        assert evidence.certificates is None
        report = AttestationReport.parse(evidence.report)
        roots = TrustRoots.amd().with_root(await backend.trust_root(), "simulator")
        async with httpx.AsyncClient(transport=backend.kds.transport()) as http:
            source = EndorsementSource(roots, kds=KdsClient(http, "https://kds.simulated.invalid"))
            with pytest.raises(CollateralUnavailableError) as caught:
                await source.gather(report, OfferedEndorsements(), want_crl=True)
        return caught.value

    assert fault.checks == ()
    assert asyncio.run(run()).upstream_status == status


@pytest.mark.parametrize("line", ProductLine)
def test_what_the_host_does_not_offer_the_kds_has(simulator: Simulator, line: ProductLine) -> None:
    """The same fault through the other door: no table, so the verifier asks the simulated KDS."""

    async def run(fault: Fault | None) -> set[str]:
        backend = simulator(line=line, fault=fault, with_certificates=False)
        evidence = await collect(backend)
        report = AttestationReport.parse(evidence.report)
        roots = TrustRoots.amd().with_root(await backend.trust_root(), "simulator")
        async with httpx.AsyncClient(transport=backend.kds.transport()) as http:
            source = EndorsementSource(roots, kds=KdsClient(http, "https://kds.simulated.invalid"))
            endorsements = await source.gather(report, OfferedEndorsements(), want_crl=True)
        result = appraise(
            report=report,
            manifest=None,
            manifest_bytes=None,
            nonce=report.report_data,
            endorsements=endorsements,
            roots=roots,
            policy=policy_from({"version": 1, "id": "plain"}),
            at=datetime.now(UTC),
        )
        endorsed = {CheckId.SIGNATURE, CheckId.CHAIN, CheckId.VEK_TCB, CheckId.VEK_HWID, CheckId.REVOCATION}
        return not_passed(result) & {check.value for check in endorsed}

    assert asyncio.run(run(None)) == set()
    assert asyncio.run(run(Fault.REVOCATION)) == {"snp.revocation"}
    assert asyncio.run(run(Fault.TCB_MINIMUM_REPORTED)) == set()  # an older key of the same chip
