"""Two verifiers of other people beside ours, check by check, on every published vector."""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.appraisal.findings import CheckId, Finding, Outcome
from app.appraisal.policy import default_policy
from app.appraisal.policy_document import policy_from
from app.errors import AttestError
from app.trust.certificates import load_certificate
from app.trust.endorsements import EndorsementSource
from app.trust.roots import AMD_ROOTS, TrustRoots
from app.verifier.verifier import Verifier
from app.wire.evidence import Evidence
from tests.acceptance.cases import Case, all_cases, available, certificate_table
from tests.interop.oracles import ACCEPTS, GENUINE, ORACLES, Exhibit
from tests.interop.peers.differences import Result, compare, load
from tests.interop.peers.verdict import Answer, Verdict

TABLES = ("omne_attest_differences.toml", "tinfoil_differences.toml")


def expressible(case: Case) -> bool:
    """The oracles take three certificates one by one: no table, no CRL, nothing to look up."""
    return [path.suffix for path in case.certificates] == [".der"] * 3 and case.crl is None


def exhibit(case: Case) -> Exhibit:
    leaf, intermediate, root = (path.read_bytes() for path in case.certificates)
    trusted = {bytes.fromhex(root.certificate_sha256) for root in AMD_ROOTS}
    if case.trust_root:
        trusted.add(hashlib.sha256(case.trust_root.read_bytes()).digest())
    report_data = case.report_data
    if case.manifest and case.nonce:
        report_data = hashlib.sha512(case.nonce.read_bytes() + case.manifest.read_bytes()).digest()
    return Exhibit(
        report=case.report.read_bytes(),
        leaf=leaf,
        intermediate=intermediate,
        root=root,
        at=datetime.fromisoformat(case.at),
        trusted=frozenset(trusted),
        report_data=report_data,
        svsm=case.manifest is not None,
    )


def ours(case: Case) -> dict[str, Verdict]:
    """Our verdicts by check, or on the whole alone where the input is no well-formed evidence."""
    roots = TrustRoots.amd()
    if case.trust_root:
        roots = roots.with_root(load_certificate(case.trust_root.read_bytes(), "trust root"), "extra")
    verifier = Verifier(EndorsementSource(roots), roots, lambda: datetime.fromisoformat(case.at))
    evidence = Evidence(
        report=case.report.read_bytes(),
        manifest=case.manifest.read_bytes() if case.manifest else None,
        certificates=certificate_table(case),
    )
    nonce = case.nonce.read_bytes() if case.nonce else case.report_data
    policy = policy_from(json.loads(case.policy)) if case.policy else default_policy()
    try:
        result = asyncio.run(verifier.verify(evidence, nonce, policy))
    except AttestError as error:
        return {GENUINE: Verdict(Answer.REFUSES, str(error))}
    verdicts = {finding.check.value: verdict for finding in result.findings if (verdict := said(finding))}
    refusals = (verdict.detail for verdict in verdicts.values() if verdict != ACCEPTS)
    verdicts[GENUINE] = ACCEPTS if result.genuine else Verdict(Answer.REFUSES, "; ".join(refusals))
    return verdicts


def said(finding: Finding) -> Verdict | None:
    if finding.outcome is Outcome.PASSED:
        return ACCEPTS
    if finding.outcome is Outcome.FAILED:
        return Verdict(Answer.REFUSES, f"{finding.check}: {finding.why} ({finding.actual})")
    return None


def every_result() -> Iterator[Result]:
    for case in filter(expressible, all_cases()):
        mine = ours(case)
        for oracle in ORACLES:
            for check, theirs in oracle.judge(exhibit(case)).items():
                if check in mine:
                    name = f"{check}/{case.id}"
                    yield Result(case=name, peer=oracle.name, theirs=theirs, ours=mine[check])


@pytest.fixture(scope="module")
def results() -> tuple[Result, ...]:
    if not available():
        pytest.skip("no test vectors: set SVSM_ATTEST_VECTORS")
    with capture_logs():
        return tuple(every_result())


def test_every_difference_is_explained_and_every_explained_one_occurs(results: tuple[Result, ...]) -> None:
    table = [one for name in TABLES for one in load(Path(__file__).with_name(name))]
    comparison = compare(results, table)
    wrong = (*comparison.unexplained, *comparison.ambiguous, *comparison.stale)
    assert comparison.holds, "\n".join(map(str, wrong))
    assert {difference.id for _, difference in comparison.explained} == {one.id for one in table}


def test_every_question_was_answered_both_ways_by_both_sides(results: tuple[Result, ...]) -> None:
    """An adapter that always refuses would agree with us on every bad vector."""
    agreed = Counter(
        (result.peer, result.case.partition("/")[0], result.ours.answer)
        for result in results
        if result.theirs.agrees_with(result.ours)
    )
    asked = {
        "omne-attest": {
            GENUINE,
            CheckId.SIGNATURE,
            CheckId.CHAIN,
            CheckId.VEK_TCB,
            CheckId.VEK_HWID,
            CheckId.VMPL,
            CheckId.POLICY_DEBUG,
            CheckId.REPORT_DATA,
        },
        "tinfoil": {
            GENUINE,
            CheckId.SIGNATURE,
            CheckId.CHAIN,
            CheckId.VEK_TCB,
            CheckId.VEK_HWID,
            CheckId.POLICY_DEBUG,
            CheckId.POLICY_MIGRATE_MA,
        },
    }
    both = {Answer.ACCEPTS, Answer.REFUSES}
    assert set(agreed) == {
        (peer, str(check), answer) for peer, checks in asked.items() for check in checks for answer in both
    }
