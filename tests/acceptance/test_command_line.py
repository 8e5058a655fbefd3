"""Every published vector through `svsm-attest verify --offline --json`, for its own reason."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.cli.application import run
from tests.acceptance.cases import Case, all_cases, available

CASES = all_cases()
AFFIRMED, NOT_AFFIRMED, MALFORMED, UNAVAILABLE = 0, 1, 2, 3


@pytest.fixture(scope="module", autouse=True)
def _vectors() -> None:
    if not available():
        pytest.skip("no test vectors: set SVSM_ATTEST_VECTORS")


def arguments(case: Case, folder: Path) -> list[str]:
    parts = ["verify", "--report", str(case.report), "--offline", "--json", "--at", case.at]
    parts += ["--store", str(folder / "store")]
    for path in case.certificates:
        parts += ["--certs", str(path)]
    if case.manifest is not None:
        parts += ["--manifest", str(case.manifest)]
    if case.nonce is not None:
        parts += ["--nonce", str(case.nonce)]
    elif case.report_data is not None:
        parts += ["--report-data", case.report_data.hex()]
    if case.trust_root is not None:
        parts += ["--trust-root", str(case.trust_root)]
    if case.crl is not None:
        parts += ["--crl", str(case.crl)]
    if case.policy is not None:
        path = folder / "policy.json"
        path.write_text(case.policy)
        parts += ["--policy", str(path)]
    return parts


def expected_status(case: Case) -> int:
    if case.expected.malformed is not None:
        return MALFORMED
    return UNAVAILABLE if case.expected.unavailable else NOT_AFFIRMED


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_vector(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = run(arguments(case, tmp_path))
    document: dict[str, Any] = json.loads(capsys.readouterr().out)  # exactly one document
    expected = case.expected
    assert status == expected_status(case), document
    if expected.malformed is not None:
        assert expected.malformed in document["detail"], document
        return
    if expected.unavailable:
        assert document["type"].endswith("collateral-unavailable")
        return
    outcomes = {finding["check"]: finding["outcome"] for finding in document["findings"]}
    assert {check for check, outcome in outcomes.items() if outcome == "failed"} == expected.failed
    assert document["genuine"] is expected.genuine
    assert document["profile"] == case.profile
    if case.nonce is None and case.report_data is None:
        assert outcomes["snp.report_data"] == "not_requested"
        assert document["verdict"] in {"none", "contraindicated"}
    chain = next(finding for finding in document["findings"] if finding["check"] == "snp.chain")
    assert [fault for fault in expected.chain if f"{fault}: " not in chain["actual"]] == []


AFFIRMABLE = ("milan-v3-oak", "genoa-v5-a", "turin-v5-oak", "milan-vlek-v3-aws-us-east-2")


@pytest.mark.parametrize("name", AFFIRMABLE)
def test_a_policy_that_knows_the_measurement_affirms_a_real_report(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a current CRL of AMD's at hand the policy has to do without one."""
    case = next(case for case in CASES if case.id == name)
    document = {
        "version": 1,
        "id": "real",
        "root_of_trust": {"crl_unavailable": "ignore"},
        "policy": {"permit_provisional_firmware": True},  # the cloud's current build is ahead
        "reference_values": {
            "measurements": [{"name": name, "value": case.report.read_bytes()[0x90:0xC0].hex()}]
        },
    }
    policy = tmp_path / "real.json"
    policy.write_text(json.dumps(document))
    status = run([*arguments(case, tmp_path), "--policy", str(policy)])
    verdict = json.loads(capsys.readouterr().out)
    warned = [finding["check"] for finding in verdict["findings"] if finding["outcome"] == "warned"]
    assert (status, verdict["verdict"], warned) == (AFFIRMED, "affirming", [])


def test_the_installed_command_does_the_same(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.id == "synthetic-genoa-svsm-vtpm-good")
    command = [str(Path(sys.executable).with_name("svsm-attest")), *arguments(case, tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == NOT_AFFIRMED, done.stderr
    assert json.loads(done.stdout)["genuine"] is True


@pytest.mark.parametrize("case", CASES[::17], ids=lambda case: case.id)
def test_inspect_reads_whatever_verify_reads(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    """A report that is refused is refused by name; every other file of a case can be looked at."""
    for path in (case.report, *case.certificates):
        status = run(["inspect", str(path)])
        shown = capsys.readouterr()
        assert status in {AFFIRMED, MALFORMED}
        assert (shown.out if status == AFFIRMED else shown.err).strip()
