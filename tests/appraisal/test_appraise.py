"""Whole appraisals: of published evidence where it is at hand, else of the simulator's."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.appraisal.appraise import appraise
from app.appraisal.findings import CheckId, Outcome, Profile, Tier
from app.appraisal.policy import Policy
from app.appraisal.result import AttestationResult
from app.evidence.simulator.backend import SimulatorBackend
from app.trust.endorsements import EndorsementSource
from app.trust.offered import OfferedEndorsements
from app.trust.roots import TrustRoots
from app.wire.evidence import Evidence, Service
from app.wire.manifest import parse_manifest
from app.wire.report import AttestationReport, KeyInfo
from tests.appraisal.subjects import policy

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
NONCE = bytes(range(64))


@pytest.fixture(scope="module")
def backend(simulator_state: Path) -> SimulatorBackend:
    return SimulatorBackend(state_dir=simulator_state)


def collect(backend: SimulatorBackend, service: Service = Service.VTPM) -> Evidence:
    return asyncio.run(backend.collect(NONCE, service))


def run(evidence: Evidence, wished: Policy, *, trust: bool = True, **changes: Any) -> AttestationResult:
    report = AttestationReport.parse(evidence.report)
    offered = OfferedEndorsements.from_table(evidence.certificates or b"")
    roots = TrustRoots.amd()
    if trust:
        roots = roots.with_root(offered.roots[0], "simulator")
    endorsements = asyncio.run(EndorsementSource(roots).gather(report, offered, want_crl=True, at=AT))
    arguments: dict[str, Any] = {
        "report": report,
        "manifest": parse_manifest(evidence.manifest) if evidence.manifest else None,
        "manifest_bytes": evidence.manifest,
        "nonce": NONCE,
        "endorsements": endorsements,
        "roots": roots,
        "policy": wished,
        "at": AT,
    }
    return appraise(**{**arguments, **changes})


def knowing(backend: SimulatorBackend, **measurement: Any) -> Policy:
    value = {"value": backend.measurement.hex(), "name": "simulated", **measurement}
    return policy(reference_values={"measurements": [value]})


def test_evidence_in_order_is_affirmed_once_its_root_and_measurement_are_known(
    backend: SimulatorBackend,
) -> None:
    result = run(collect(backend), knowing(backend, attest_feature=False))
    assert result.verdict is Tier.AFFIRMING, [f for f in result.findings if f.outcome is not Outcome.PASSED]
    assert result.genuine
    assert [finding.check for finding in result.findings] == list(Profile.SVSM.checks)
    assert len(result.caveats) == 1
    assert "SIMULATED" in result.caveats[0]


def test_simulated_evidence_is_contraindicated_where_nobody_trusts_its_root(
    backend: SimulatorBackend,
) -> None:
    result = run(collect(backend), knowing(backend), trust=False)
    failed = {finding.check for finding in result.findings if finding.outcome is Outcome.FAILED}
    assert result.verdict is Tier.CONTRAINDICATED
    assert not result.genuine
    assert failed == {CheckId.CHAIN, CheckId.SIMULATED}


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({"attest_feature": False}, None),
        ({"attest_feature": True}, "simulated has it"),
        ({}, "is not known"),
    ],
)
def test_the_attest_feature_caveat_shows_unless_the_build_is_known_without_it(
    backend: SimulatorBackend, known: dict[str, Any], words: str | None
) -> None:
    caveats = [c for c in run(collect(backend), knowing(backend, **known)).caveats if "attest" in c]
    assert [words in caveat for caveat in caveats if words] == ([] if words is None else [True])


def test_without_a_nonce_there_is_no_verdict(backend: SimulatorBackend) -> None:
    result = run(collect(backend), knowing(backend), nonce=None)
    assert result.verdict is Tier.NONE
    assert result.genuine


def test_a_bare_report_has_its_own_profile(backend: SimulatorBackend) -> None:
    evidence = collect(backend)
    expected = AttestationReport.parse(evidence.report).report_data
    result = run(evidence, knowing(backend), manifest=None, manifest_bytes=None, nonce=expected)
    assert result.profile is Profile.SNP
    assert result.verdict is Tier.AFFIRMING
    assert "vtpm" not in result.claims
    assert [finding.check for finding in result.findings] == list(Profile.SNP.checks)


@pytest.mark.parametrize(
    ("service", "verdict", "kind"),
    [
        (Service.VTPM, Tier.AFFIRMING, "vTPM manifest version 0"),
        (Service.ALL, Tier.AFFIRMING, "services manifest"),
        (Service.UEFI_MM, Tier.WARNING, "UEFI MM manifest"),
    ],
)
def test_every_service_is_appraised_for_what_it_says(
    backend: SimulatorBackend, service: Service, verdict: Tier, kind: str
) -> None:
    result = run(collect(backend, service), knowing(backend))
    assert (result.verdict, result.claims["vtpm"]["manifest_kind"]) == (verdict, kind)
    assert (result.claims["vtpm"]["uefi_mm"] is None) == (service is Service.VTPM)


def test_a_report_that_names_no_key_is_appraised_and_refused(backend: SimulatorBackend) -> None:
    evidence = collect(backend)
    report = AttestationReport.parse(evidence.report)
    unsigned = KeyInfo(author_key_en=False, mask_chip_key=False, signing_key=7)
    raw = bytearray(report.encode())
    raw[0x48:0x4C] = unsigned.encode().to_bytes(4, "little")
    roots = TrustRoots.amd()
    parsed = AttestationReport.parse(bytes(raw))
    endorsements = asyncio.run(
        EndorsementSource(roots).gather(parsed, OfferedEndorsements(), want_crl=True, at=AT)
    )
    result = run(evidence, knowing(backend), report=parsed, endorsements=endorsements)
    assert result.verdict is Tier.CONTRAINDICATED
    assert result.endorsements["leaf"] is None
    assert result.endorsements["leaf_not_after"] is None


def test_the_document_is_json_with_every_member_of_the_contract(backend: SimulatorBackend) -> None:
    document = json.loads(json.dumps(run(collect(backend), knowing(backend)).document()))
    assert document.keys() >= {
        "verdict",
        "genuine",
        "findings",
        "claims",
        "endorsements",
        "policy",
        "appraised_at",
        "ear",
    }
    assert document["findings"][0].keys() == {
        "check",
        "outcome",
        "expected",
        "actual",
        "why",
        "remedy",
        "source",
    }
    assert document["policy"]["digest"].startswith("sha256:")
    assert document["appraised_at"] == "2026-11-23T12:00:00Z"
    assert document["endorsements"]["simulated"] is True
    assert document["endorsements"]["root_origin"] == "simulator"


@pytest.mark.parametrize("folder", ["milan-v3-oak", "genoa-v5-a", "turin-v5-oak", "milan-v2-baremetal-a"])
def test_claims_of_published_reports(vectors: Path, folder: str) -> None:
    known = next(
        entry for entry in json.loads((vectors / "vectors.json").read_text())["real"] if entry["id"] == folder
    )
    files = [vectors / known["files"][role] for role in ("vcek", "ask", "ark")]
    report = AttestationReport.parse((vectors / known["files"]["report"]).read_bytes())
    roots = TrustRoots.amd()
    offered = OfferedEndorsements.from_paths(files)
    endorsements = asyncio.run(EndorsementSource(roots).gather(report, offered, want_crl=True, at=AT))
    result = appraise(
        report=report,
        manifest=None,
        manifest_bytes=None,
        nonce=bytes.fromhex(known["report_data"]),
        endorsements=endorsements,
        roots=roots,
        policy=policy(),
        at=AT,
    )
    claims = result.claims["snp"]
    assert result.genuine
    assert (claims["product"], claims["version"]) == (known["product_line"], known["report_version"])
    assert claims["measurement"] == known["measurement"]
    assert claims["reported_tcb"]["raw"] == known["reported_tcb"]
    names = {"bl": "bootloader", "ucode": "microcode"}
    fields = {names.get(name, name): level for name, level in known["reported_tcb_fields"].items()}
    assert {name: claims["reported_tcb"][name] for name in fields} == fields
    assert claims["policy"]["raw"] == known["guest_policy"]
    assert claims["platform_info"]["raw"] == known["platform_info"]
    assert claims["chip_id"].startswith(known["chip_id_prefix"])
    assert (claims["cpuid"] is None) == (known["cpuid_fms"] is None)
    assert (claims["launch_mit_vector"] is None) == (known["report_version"] < 5)
