"""`attest`: evidence and nothing else on standard output."""

from typing import Any

import pytest

from app.wire.b64 import decode, encode
from app.wire.binding import expected_report_data
from app.wire.report import AttestationReport
from app.wire.session import Session
from app.wire.tpm.attest import Attest
from app.wire.tpm.public import TpmtPublic
from tests.cli.command_line import Cli, Ended
from tests.interop.software_tpm import demand

NONCE = "e7" * 64
TWO_BANKS = {"sha384": list(range(24)), "sha256": [1, 14]}


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


def quoted(ended: Ended) -> dict[str, Any]:
    assert ended.status == 0, ended.err
    document: dict[str, Any] = ended.json
    assert document["binding"]["type"] == "session"
    ak = TpmtPublic.parse(decode(document["quote"]["ak_public"]))
    session = Session(bytes.fromhex(NONCE), ak.name)
    report = decode(document["report"])
    attest = Attest.parse(decode(document["quote"]["attest"]))
    assert attest.extra_data == session.qualifying_data(report)
    assert AttestationReport.parse(report).report_data == expected_report_data(
        session.report_nonce, decode(document["manifest"])
    )
    assert document["nonce"] == encode(bytes.fromhex(NONCE))
    found: dict[str, Any] = document["quote"] | {"algorithm": ak.algorithm}
    return found


@pytest.mark.parametrize(
    ("options", "algorithm", "pcrs", "with_log"),
    [
        (("--quote",), "P-256", {"sha256": list(range(24))}, False),
        (("--event-log",), "P-256", {"sha256": list(range(24))}, True),
        (("--key", "rsa2048"), "RSA-2048", {"sha256": list(range(24))}, False),
        (("--pcrs", "sha256:7,0"), "P-256", {"sha256": [0, 7]}, False),
        (("--pcrs", "sha384:all+sha256: 1, 14", "--event-log"), "P-256", TWO_BANKS, True),
    ],
)
def test_a_quote_in_one_session(
    options: tuple[str, ...], algorithm: str, pcrs: dict[str, list[int]], with_log: object, cli: Cli
) -> None:
    demand("swtpm")
    quote = quoted(cli("attest", "--nonce", NONCE, *options))
    found = {bank: [int(pcr) for pcr in registers] for bank, registers in quote["pcrs"].items()}
    assert (quote["algorithm"], list(found.items())) == (algorithm, list(pcrs.items()))
    assert bool(quote["event_log"]) == with_log


def test_a_quote_of_an_attester_elsewhere(cli: Cli, service: str) -> None:
    demand("swtpm")
    here = quoted(
        cli("attest", "--nonce", NONCE, "--pcrs", "sha256:16", "--key", "rsa2048", "--url", service)
    )
    assert (here["algorithm"], list(here["pcrs"]["sha256"])) == ("RSA-2048", ["16"])


def test_without_a_tpm_there_is_no_quote(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SVSM_ATTEST_SIMULATOR_VTPM", "none")
    ended = cli("attest", "--quote", "--json")
    assert (ended.status, ended.json["cause"]) == (4, "tpm-missing")
    assert "swtpm" in ended.json["remedy"]
    assert cli("attest").status == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a bank and registers are wanted"),
        ("sha256", "a bank and registers are wanted"),
        ("sha256:", "registers are numbers"),
        ("sha256:x", "registers are numbers"),
        ("sha256:-1", "registers are numbers"),
        ("sha256:٣", "registers are numbers"),
        ("sha256:024", "registers are numbers"),
        ("sha256:0,24", "distinct registers from 0 to 23"),
        ("sha256:0,0", "distinct registers from 0 to 23"),
        ("sha256:0+sha256:1", "a bank is named twice"),
        ("sha1:0", "sha1 is not a bank"),
    ],
)
def test_registers_that_nobody_can_quote(text: str, said: str, cli: Cli) -> None:
    ended = cli("attest", "--pcrs", text, "--json")
    assert (ended.status, ended.json["type"]) == (2, "urn:svsm-attest:problem:input-unusable")
    assert ended.json["place"] == "--pcrs"
    assert said in ended.json["detail"]
    assert "Write them like sha256:" in ended.json["remedy"]


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
