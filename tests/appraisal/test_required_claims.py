import pytest

from app.appraisal.findings import CheckId, Finding, Outcome
from app.appraisal.required_claims import check_required_claims
from tests.appraisal.subjects import policy, subject

ASKED = [
    Finding(check=check, outcome=Outcome.PASSED, why="")
    for check in (CheckId.CHAIN, CheckId.SIGNATURE, CheckId.VMPL, CheckId.MEASUREMENT)
]
ENROLLED = Finding(check=CheckId.CHIP_ALLOWED, outcome=Outcome.PASSED, why="")
NOT_ENROLLED = Finding(check=CheckId.CHIP_ALLOWED, outcome=Outcome.NOT_REQUESTED, why="")


@pytest.mark.parametrize(
    ("required", "findings", "outcome"),
    [
        ([], ASKED, Outcome.NOT_REQUESTED),
        (["hardware", "configuration", "executables", "runtime-opaque"], ASKED, Outcome.PASSED),
        (["instance-identity"], [*ASKED, NOT_ENROLLED], Outcome.WARNED),
        (["instance-identity"], [*ASKED, ENROLLED], Outcome.PASSED),
        (["file-system"], [*ASKED, ENROLLED], Outcome.WARNED),
        (["storage-opaque", "hardware"], ASKED, Outcome.WARNED),
    ],
)
def test_required_claims(required: list[str], findings: list[Finding], outcome: Outcome) -> None:
    finding = check_required_claims(subject(policy=policy({"required_claims": required})), findings)
    assert finding.outcome is outcome
