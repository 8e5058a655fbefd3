"""`attest`: evidence and nothing else on standard output."""

import pytest

from app.wire.b64 import decode
from app.wire.binding import expected_report_data
from app.wire.report import AttestationReport
from tests.cli.command_line import Cli

NONCE = "e7" * 64


def test_evidence_is_bound_to_the_nonce(cli: Cli) -> None:
    ended = cli("attest", "--nonce", NONCE)
    assert ended.status == 0
    document = ended.json
    assert document["profile"] == "tag:svsm-attest,2026:evidence#1"
    report = AttestationReport.parse(decode(document["report"]))
    assert report.report_data == expected_report_data(bytes.fromhex(NONCE), decode(document["manifest"]))
    assert "SIMULATED" in ended.err


def test_a_nonce_that_is_not_given_is_random_and_shown(cli: Cli) -> None:
    shown = set()
    for _ in range(2):
        ended = cli("attest")
        nonce = next(line for line in ended.err.split("\n") if line.startswith("nonce: ")).split()[1]
        assert decode(ended.json["nonce"]).hex() == nonce
        shown.add(nonce)
    assert len(shown) == 2


@pytest.mark.parametrize(("service", "size"), [("vtpm", 314), ("uefi-mm", 8), ("all", 24 * 3 + 314 + 8)])
def test_every_service(service: str, size: int, cli: Cli) -> None:
    assert len(decode(cli("attest", "--service", service).json["manifest"])) == size


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--nonce", "abcd"), 2, "4 hexadecimal digits"),
        (("--service", "tpm"), 2, "tpm"),
        (("--manifest-version", "-1"), 2, "--manifest-version"),
        (("--manifest-version", "9"), 4, "refused"),
    ],
)
def test_what_cannot_be_attested(arguments: tuple[str, ...], status: int, said: str, cli: Cli) -> None:
    ended = cli("attest", *arguments, "--json")
    assert ended.status == status
    assert said in ended.json["detail"]
    assert ended.json["exit_code"] == status


def test_a_backend_that_is_not_there(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SVSM_ATTEST_BACKEND", "configfs")
    monkeypatch.setenv("SVSM_ATTEST_CONFIGFS_PATH", "/nonexistent/tsm/report")
    ended = cli("attest")
    assert (ended.status, ended.out) == (4, "")
    assert "do: " in ended.err
    assert "Traceback" not in ended.err


def test_settings_that_contradict_each_other(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SVSM_ATTEST_SIMULATOR_REPORT_VERSION", "2")
    monkeypatch.setenv("SVSM_ATTEST_SIMULATOR_FAULT", "snp.product")
    ended = cli("attest", "--json")
    assert (ended.status, ended.json["type"]) == (2, "urn:svsm-attest:problem:configuration-invalid")
