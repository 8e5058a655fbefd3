"""`verify` as a user meets it: every option, every exit code, and messages that name their file."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.wire import b64
from tests.cli.appraisals import options, outcomes, svsm
from tests.cli.command_line import Cli

GENUINE = ("snp.signature", "snp.chain", "snp.vek.kind", "snp.vek.tcb", "snp.vek.hwid", "snp.product")


def test_a_real_report_is_genuine_but_not_affirmed_without_reference_values(cli: Cli, vectors: Path) -> None:
    report_data = (vectors / "genoa-v5-a" / "report.bin").read_bytes()[0x50:0x90].hex()
    ended = cli(*options(vectors, "genoa-v5-a"), "--report-data", report_data, "--json")
    assert ended.status == 1
    assert ended.json["genuine"] is True
    assert ended.json["profile"] == "snp"
    assert ended.json["appraised_at"].startswith("2026-11-23T12:00:00")
    found = outcomes(ended)
    assert {found[check] for check in GENUINE} == {"passed"}
    assert (found["snp.report_data"], found["snp.measurement"]) == ("passed", "warned")


def test_the_same_as_text_names_what_to_do_and_ends_with_the_verdict(cli: Cli, vectors: Path) -> None:
    ended = cli(*options(vectors, "genoa-v5-a"))
    lines = ended.out.rstrip().split("\n")
    assert lines[-1].startswith(
        "Verdict: NONE - nothing failed, but there is no verdict without snp.report_data."
    )
    assert any(line.startswith("passed     snp.signature") for line in lines)
    assert any(line.startswith("warned     snp.measurement") and "Expected:" in line for line in lines)
    assert "  snp.measurement  Compute the expected digest with `svsm-attest measure`" in ended.out
    assert "Root          ARK-Genoa (AMD's, pinned)" in ended.out
    assert "without --report-data nothing tells whether this is fresh" in ended.err


def test_a_report_of_a_debuggable_guest_is_contraindicated(cli: Cli, vectors: Path) -> None:
    ended = cli(*options(vectors, "milan-v2-debug-policy"))
    assert ended.status == 1
    assert "Verdict: CONTRAINDICATED" in ended.out
    assert "failed     snp.policy.debug" in ended.out


def test_svsm_evidence_under_an_extra_root_with_a_policy_that_knows_it(
    cli: Cli, vectors: Path, tmp_path: Path
) -> None:
    synthetic = vectors / "synthetic" / "genoa"
    measurement = (synthetic / "svsm-vtpm-good" / "report.bin").read_bytes()[0x90:0xC0].hex()
    policy = tmp_path / "known.json"
    document = {
        "version": 1,
        "id": "known",
        "reference_values": {"measurements": [{"name": "synthetic", "value": measurement}]},
    }
    policy.write_text(json.dumps(document))
    arguments = [
        *svsm(vectors),
        "--nonce",
        synthetic / "svsm-vtpm-good" / "nonce.bin",
        "--trust-root",
        synthetic / "ark.der",
        "--crl",
        synthetic / "crl" / "crl-empty.der",
        "--policy",
        policy,
    ]
    ended = cli(*arguments)
    assert ended.status == 0, ended.out
    assert "Verdict: AFFIRMING" in ended.out
    assert "Root          ARK-Genoa (trusted for this run, not AMD's)" in ended.out
    assert "Caveats" in ended.out  # whether this build has the `attest` feature is not known
    documented = cli(*arguments, "--json").json
    assert documented["endorsements"]["root_origin"] == "extra"
    assert documented["endorsements"]["crl"] == "clear"
    assert documented["policy"]["id"] == "known"


def test_a_revoked_intermediate_is_not_trusted(cli: Cli, vectors: Path) -> None:
    synthetic = vectors / "synthetic" / "genoa"
    ended = cli(
        *svsm(vectors),
        "--trust-root",
        synthetic / "ark.der",
        "--crl",
        synthetic / "crl" / "crl-revokes-ask.der",
        "--json",
    )
    assert ended.status == 1
    assert outcomes(ended)["snp.revocation"] == "failed"


def test_without_the_extra_root_the_same_evidence_is_not_genuine(cli: Cli, vectors: Path) -> None:
    nonce = vectors / "synthetic" / "genoa" / "svsm-vtpm-good" / "nonce.bin"
    ended = cli(*svsm(vectors), "--nonce", nonce, "--json")
    assert ended.status == 1
    assert ended.json["genuine"] is False
    assert ended.json["endorsements"]["root"] is None


def test_the_nonce_inside_the_evidence_is_not_trusted(cli: Cli, tmp_path: Path) -> None:
    evidence = tmp_path / "evidence.json"
    evidence.write_text(cli("attest").out)
    ended = cli("verify", evidence, "--allow-simulator", "--json")
    assert ended.status == 1
    assert ended.json["verdict"] == "none"
    assert outcomes(ended)["snp.report_data"] == "not_requested"
    assert "its maker's word" in ended.err


def test_simulated_evidence_takes_an_explicit_setting_and_says_so(cli: Cli, tmp_path: Path) -> None:
    nonce = "ab" * 64
    evidence = tmp_path / "evidence.json"
    evidence.write_text(cli("attest", "--nonce", nonce).out)
    refused = cli("verify", evidence, "--nonce", nonce, "--offline")
    assert refused.status == 1
    assert "Verdict: CONTRAINDICATED" in refused.out
    trusted = cli("verify", "-", "--nonce", nonce, "--allow-simulator", stdin=evidence.read_bytes())
    assert trusted.status == 0, trusted.out
    assert "Verdict: AFFIRMING" in trusted.out
    assert "SIMULATED: this proves nothing about hardware." in trusted.out


def test_the_setting_can_come_from_the_environment(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nonce = "cd" * 64
    evidence = tmp_path / "evidence.json"
    evidence.write_text(cli("attest", "--nonce", nonce).out)
    monkeypatch.setenv("SVSM_ATTEST_ALLOW_SIMULATOR", "true")
    ended = cli("verify", evidence, "--nonce", nonce, "--json")
    assert (ended.status, ended.json["policy"]["id"]) == (0, "simulator")
    assert ended.json["endorsements"]["simulated"] is True


@pytest.mark.parametrize("table", ["genoa-good", "genoa-good-page-padded", "genoa-vcek-pem"])
def test_certificates_from_a_table(table: str, cli: Cli, vectors: Path) -> None:
    report = vectors / "genoa-v5-a" / "report.bin"
    certs = vectors / "certtable" / f"{table}.bin"
    by_file = cli("verify", "--report", report, "--certs", certs, "--offline", "--json")
    assert by_file.json["genuine"] is True
    by_stdin = cli(
        "verify", "--report", report, "--certs", "-", "--offline", "--json", stdin=certs.read_bytes()
    )
    assert by_stdin.json["genuine"] is True


def test_certificates_from_folders_and_pem_bundles(cli: Cli, vectors: Path) -> None:
    report = vectors / "turin-v5-oak" / "report.bin"
    for certs in (vectors / "ca", vectors / "ca" / "turin-vcek-cert_chain.pem"):
        ended = cli(
            "verify",
            "--report",
            report,
            "--certs",
            vectors / "turin-v5-oak",
            "--certs",
            certs,
            "--offline",
            "--json",
        )
        assert ended.json["genuine"] is True


def test_files_that_a_shell_put_behind_certs(cli: Cli, vectors: Path, tmp_path: Path) -> None:
    """`--certs *.der` and the like: one option, several files."""
    report = vectors / "genoa-v5-a" / "report.bin"
    certs = [
        vectors / "genoa-v5-a" / "vcek.der",
        vectors / "ca" / "genoa-ask.der",
        vectors / "ca" / "genoa-ark.der",
    ]
    ended = cli("verify", "--report", report, "--offline", "--certs", *certs, "--json")
    assert ended.json["genuine"] is True
    crls = sorted((vectors / "crl").iterdir())
    assert cli("verify", "--report", report, "--certs", *certs, "--crl", *crls, *crls, "--json").status == 1
    evidence = tmp_path / "evidence.json"
    document = {"report": b64.encode(report.read_bytes()), "binding": {"type": "direct"}}
    evidence.write_text(json.dumps(document))
    for arguments in ((evidence, "--certs", *certs), ("--certs", *certs, evidence), ("--certs", *certs, "-")):
        ended = cli("verify", "--offline", "--json", *arguments, stdin=evidence.read_bytes())
        assert ended.json["genuine"] is True
    two = cli("verify", evidence, report)
    assert (two.status, "one evidence document" in two.err) == (2, True)


def test_certificates_from_the_store(cli: Cli, vectors: Path) -> None:
    files = (vectors / "genoa-v5-a" / "vcek.der", vectors / "ca")
    assert cli("certs", "import", *files).status == 0
    ended = cli("verify", "--report", vectors / "genoa-v5-a" / "report.bin", "--offline", "--json")
    assert ended.json["genuine"] is True


def test_a_store_of_its_own(cli: Cli, vectors: Path, tmp_path: Path) -> None:
    report = vectors / "genoa-v5-a" / "report.bin"
    other = tmp_path / "other"
    files = (vectors / "genoa-v5-a" / "vcek.der", vectors / "ca")
    assert cli("certs", "import", *files, "--store", other).status == 0
    assert cli("verify", "--report", report, "--offline").status == 3
    assert cli("verify", "--report", report, "--offline", "--store", other).status == 1


def test_missing_certificates_are_unavailable_and_not_untrusted(cli: Cli, vectors: Path) -> None:
    report = vectors / "genoa-v5-a" / "report.bin"
    for offline in (("--offline",), ()):  # without it, a KDS that does not answer
        ended = cli("verify", "--report", report, *offline, "--json")
        assert ended.status == 3
        assert ended.json["type"].endswith(":collateral-unavailable")
        assert "says nothing about trust" in ended.json["remedy"]
        assert "Verdict" not in ended.out


def test_another_policy_by_name_and_by_file(
    cli: Cli, vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "strict.yaml").write_text("version: 1\nid: strict\npolicy: {minimum_report_version: 5}\n")
    monkeypatch.setenv("SVSM_ATTEST_POLICY_DIR", str(folder))
    for wish in ("strict", folder / "strict.yaml"):
        ended = cli(*options(vectors, "milan-v3-oak"), "--policy", wish, "--json")
        assert ended.json["policy"]["id"] == "strict"
        assert outcomes(ended)["snp.report_version"] == "failed"
    unknown = cli(*options(vectors, "milan-v3-oak"), "--policy", "nobody", "--json")
    assert (unknown.status, unknown.json["type"]) == (2, "urn:svsm-attest:problem:policy-invalid")
    missing = cli(*options(vectors, "milan-v3-oak"), "--policy", tmp_path / "none.yaml")
    assert missing.status == 2
    assert "none.yaml" in missing.err


def test_the_time_of_appraisal(cli: Cli, vectors: Path) -> None:
    folder = vectors / "milan-vlek-v3-aws-us-east-2"
    arguments = ["verify", "--report", folder / "report.bin", "--certs", folder / "vlek.der", "--offline"]
    arguments += ["--certs", vectors / "ca", "--json"]
    inside = cli(*arguments, "--at", "2025-06-01T02:00:00+02:00")
    assert inside.json["genuine"] is True
    assert datetime.fromisoformat(inside.json["appraised_at"]) == datetime(2025, 6, 1, tzinfo=UTC)
    outside = cli(*arguments, "--at", "2026-06-01T00:00:00Z")
    assert outside.json["genuine"] is False
    assert "expired" in next(f["actual"] for f in outside.json["findings"] if f["check"] == "snp.chain")


@pytest.mark.parametrize(
    "text",
    ["2025-06-01", "2025-06-01T00:00:00", "yesterday", "2025-13-01T00:00:00Z", "0001-01-01T00:00:00+23:00"],
)
def test_a_time_without_a_zone_or_meaning_is_a_usage_error(text: str, cli: Cli, vectors: Path) -> None:
    ended = cli(*options(vectors, "milan-v3-oak")[:4], "--at", text)
    assert ended.status == 2
    assert "--at" in ended.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "either EVIDENCE.json or --report"),
        (("e.json", "--report", "r"), "either EVIDENCE.json or --report"),
        (("--manifest", "m"), "either EVIDENCE.json or --report"),
        (("e.json", "--manifest", "m"), "--manifest goes with --report"),
        (("-", "--nonce", "-"), "once only"),
        (("--report", "-", "--certs", "-"), "once only"),
    ],
)
def test_options_that_contradict_each_other(arguments: tuple[str, ...], said: str, cli: Cli) -> None:
    ended = cli("verify", *arguments)
    assert ended.status == 2
    assert said in ended.err
    assert ended.out == ""


def test_nonce_and_report_data_are_not_mixed_up(cli: Cli, vectors: Path) -> None:
    both = cli(*options(vectors, "milan-v3-oak"), "--nonce", "ab" * 64, "--report-data", "ab" * 64)
    assert both.status == 2
    assert "exclude each other" in both.err
    wrong = cli(*svsm(vectors), "--report-data", "ab" * 64)
    assert wrong.status == 2
    assert "give the --nonce" in wrong.err
    # Of a bare report the nonce is REPORT_DATA, here as over HTTP.
    ended = cli(*options(vectors, "milan-v3-oak"), "--nonce", "ab" * 64, "--json")
    assert outcomes(ended)["snp.report_data"] == "failed"


def test_what_is_no_root_is_not_trusted_as_one(cli: Cli, vectors: Path) -> None:
    for file in ("milan-v3-oak/vcek.der", "ca/milan-ask.der", "synthetic/genoa/vcek-rsa-key/vcek.der"):
        ended = cli(*options(vectors, "milan-v3-oak"), "--trust-root", vectors / file)
        assert ended.status == 2
        assert "not a root certificate" in ended.err
    missing = cli(*options(vectors, "milan-v3-oak"), "--trust-root", "/nonexistent")
    assert (missing.status, "cannot be read" in missing.err) == (2, True)


def test_the_root_of_a_simulator_can_be_trusted_for_a_run_and_shows(
    cli: Cli, simulator_state: Path, tmp_path: Path
) -> None:
    nonce = "12" * 64
    evidence = tmp_path / "evidence.json"
    evidence.write_text(cli("attest", "--nonce", nonce).out)
    root = next(simulator_state.glob("SIMULATED-*ARK-Genoa*.cert.pem"))
    ended = cli("verify", evidence, "--nonce", nonce, "--trust-root", root, "--offline", "--json")
    assert ended.json["genuine"] is True
    assert ended.json["endorsements"]["simulated"] is True
    assert outcomes(ended)["snp.simulated"] == "warned"


def test_settings_that_cannot_be_used_stop_a_command_too(
    cli: Cli, vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SVSM_ATTEST_NONSENSE", "1")
    ended = cli(*options(vectors, "milan-v3-oak"), "--json")
    assert (ended.status, ended.json["type"]) == (2, "urn:svsm-attest:problem:configuration-invalid")


def test_a_simulated_root_among_the_settings_takes_the_explicit_setting(
    cli: Cli, simulator_state: Path, vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("attest")
    root = next(simulator_state.glob("SIMULATED-*ARK*.cert.pem"))
    monkeypatch.setenv("SVSM_ATTEST_TRUST_ROOTS", str(root))
    ended = cli(*options(vectors, "milan-v3-oak"))
    assert (ended.status, "ALLOW_SIMULATOR" in ended.err) == (2, True)
