"""Real reports, each bit of the signed part flipped once: none of them is genuine any more."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import pytest
from omne_attest import vectors as omne
from structlog.testing import capture_logs

from app.appraisal.findings import CheckId, Outcome
from app.appraisal.policy import default_policy
from app.appraisal.result import AttestationResult
from app.errors import WireError
from app.trust.endorsements import EndorsementSource
from app.trust.offered import OfferedEndorsements
from app.trust.roots import TrustRoots
from app.verifier.verifier import Verifier
from app.wire.evidence import Evidence
from app.wire.report import SIGNED_SIZE
from tests.acceptance.cases import NOW, available, real_cases

BITS = SIGNED_SIZE * 8
IN_VECTORS = ("genoa-v5-a", "turin-v5-oak", "milan-vlek-v3-aws-us-east-2")


@dataclass(frozen=True)
class Real:
    """A report that real hardware signed, its certificates, and a time at which they are valid."""

    report: bytes
    offered: OfferedEndorsements
    at: str = NOW


def milan() -> Real:
    """Version 2; it comes with the package omne-attest, so that it is there without the vectors."""
    offered = OfferedEndorsements()
    for certificate in (omne.vcek(), omne.ask(), omne.ark()):
        offered += OfferedEndorsements.from_bytes(certificate, "omne-attest")
    return Real(omne.attestation(), offered)


def published(name: str) -> Real:
    if not available():
        pytest.skip("no test vectors: set SVSM_ATTEST_VECTORS")
    case = next(case for case in real_cases() if case.id == name)
    return Real(case.report.read_bytes(), OfferedEndorsements.from_paths(case.certificates), case.at)


async def outcomes(real: Real) -> Counter[str]:
    """What became of every flipped bit."""
    roots = TrustRoots.amd()
    verifier = Verifier(EndorsementSource(roots), roots, lambda: datetime.fromisoformat(real.at))
    policy = default_policy()

    async def verify(report: bytes) -> AttestationResult:
        evidence = Evidence(report=report, manifest=None, certificates=None)
        return await verifier.verify(evidence, None, policy, offered=real.offered)

    counted: Counter[str] = Counter()
    assert (await verify(real.report)).genuine
    for bit in range(BITS):
        report = bytearray(real.report)
        report[bit // 8] ^= 1 << bit % 8
        try:
            result = await verify(bytes(report))
        except WireError:
            counted["no report"] += 1
            continue
        failed = {finding.check for finding in result.findings if finding.outcome is Outcome.FAILED}
        not_genuine = not result.genuine and CheckId.SIGNATURE in failed
        counted["not genuine" if not_genuine else f"bit {bit}"] += 1
    return counted


@pytest.mark.parametrize("name", ["milan", *IN_VECTORS])
def test_no_report_with_a_flipped_bit_is_genuine(name: str) -> None:
    real = milan() if name == "milan" else published(name)
    with capture_logs():
        counted = asyncio.run(outcomes(real))
    assert set(counted) == {"no report", "not genuine"}
    assert counted.total() == BITS
