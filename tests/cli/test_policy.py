"""`policy`: a document is checked, or a first one is written from evidence and then verifies it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from app.appraisal.policy_document import parse_policy
from app.wire.bits import PlatformInfo
from app.wire.report import AttestationReport
from app.wire.tcb import TcbLayout, TcbVersion
from tests.cli.command_line import Cli, Ended

NONCE = "77" * 64


def policy_in(ended: Ended, tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text(ended.out)
    return file


def evidence_in(cli: Cli, tmp_path: Path) -> Path:
    file = tmp_path / "evidence.json"
    file.write_text(cli("attest", "--nonce", NONCE).out)
    return file


def not_passed(ended: Ended) -> dict[str, str]:
    good = {"passed", "not_requested"}
    return {f["check"]: f["outcome"] for f in ended.json["findings"] if f["outcome"] not in good}


# check


FULL = """
version: 1
id: full
root_of_trust: {product_lines: [Milan, Turin], crl_unavailable: deny, disallow_network: true,
                allow_masked_chip_id: true, allow_simulator: false}
policy:
  vmpl: 1
  guest_policy: {single_socket: true, abi_major: 1, abi_minor: 55, cxl: true}
  minimum_tcb: {Milan: {bootloader: 4, snp: 24}, Turin: {}}
  minimum_launch_tcb: {Milan: {snp: 23}}
  recommended_tcb: {Turin: {fmc: 1}}
  minimum_microcode: {"19/01/01": 219}
  recommended_microcode: {"19/01/01": 222}
  minimum_version: "1.55"
  minimum_build: 21
  permit_provisional_firmware: true
  platform_info: {smt: false, tsme: true, required_set: 64, required_clear: 512}
  mitigation_vectors: {"19/01/01": {launch: 11, current: 0xb}}
  require_id_block: true
  host_data: ["HOST_DATA"]
  minimum_guest_svn: 2
  required_claims: []
reference_values:
  measurements:
    - {value: "KNOWN", name: svsm, not_after: 2027-01-01}
    - {value: "DENIED", name: broken, state: denied}
  vtpm: {manifest_versions: ["0", "1"], ek_templates: [L-1, H-3], ek_sha256: ["EK"]}
"""
for _name, _digits in {
    "HOST_DATA": "00" * 32,
    "KNOWN": "11" * 48,
    "DENIED": "22" * 48,
    "EK": "33" * 32,
}.items():
    FULL = FULL.replace(f'"{_name}"', f'"{_digits}"')


def test_check_says_what_a_policy_asks_for(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "full.yaml"
    file.write_text(FULL)
    ended = cli("policy", "check", file)
    assert ended.status == 0
    assert parse_policy(FULL.encode()).digest in ended.out
    for said in (
        "appraisal policy full",
        "Milan, Turin",
        "by CRL; a missing or stale one gives no verdict",
        "smt, cxl",
        "single_socket",
        "at least 1.55",
        "TCB, at least, Milan",
        "bootloader 4  snp 24",
        "launch TCB, at least, Milan",
        "fmc 1",
        "19/01/01: 219",
        "at least 1.55.21, provisional accepted",
        "smt=false, tsme=true, alias_check_complete=true, required_set 0x40, required_clear 0x200",
        "launch 0xb, current 0xb",
        "an ID block, one of 1 HOST_DATA, GUEST_SVN at least 2",
        "version 0 or 1",
        "L-1 or H-3",
        "until 2027-01-01",
        "refused, even where its root is trusted",
        "accepted",
        "not used",
    ):
        assert said in ended.out
    assert "No launch digest is allowed" not in ended.out
    documented = cli("policy", "check", file, "--json").json
    assert documented["digest"] == parse_policy(FULL.encode()).digest
    assert documented["policy"]["policy"]["minimum_report_version"] == 2  # defaults written out


def test_check_warns_of_a_policy_that_can_never_affirm(cli: Cli) -> None:
    minimal = b"version: 1\nid: minimal\nroot_of_trust: {check_crl: false}\npolicy: {minimum_build: 3}\n"
    ended = cli("policy", "check", "-", stdin=minimal)
    assert ended.status == 0
    assert "no verdict under this policy is affirming" in ended.out
    assert "no CRL is looked for" in ended.out
    assert "at least build 3, committed" in ended.out


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("version: 1\nid: x\nnonsense: 1\n", "nonsense: unknown key"),
        ("version: 2\nid: x\n", "version"),
        ("version: 1\nid: x\nid: y\n", "line 3, column 1"),
        ('{"version": 1,}', "line 1"),
        (
            "version: 1\nid: x\nreference_values: {measurements: [{value: '00', name: n}]}",
            "measurements/0/value",
        ),
        ("- 1", "want a mapping"),
    ],
)
def test_check_names_the_place_of_a_fault(text: str, place: str, cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    ended = cli("policy", "check", file, "--json")
    assert ended.status == 2
    assert place in ended.json["detail"]
    assert ended.json["detail"].startswith(str(file))
    assert "policy.md" in ended.json["remedy"]


def test_check_of_a_file_that_is_not_there(cli: Cli) -> None:
    ended = cli("policy", "check", "/nonexistent.yaml")
    assert (ended.status, "No such file" in ended.err) == (2, True)


# init


def test_the_policy_verifies_the_evidence_it_came_from(cli: Cli, tmp_path: Path) -> None:
    evidence = evidence_in(cli, tmp_path)
    ended = cli(
        "policy", "init", "--from", evidence, "--allow-simulator", "--id", "mine", "--name", 'a "name"'
    )
    assert ended.status == 0
    assert "IT TRUSTS WHAT WAS OBSERVED" in ended.out
    assert "SIMULATED" in ended.out
    assert "Read every line before use" in ended.err
    policy = policy_in(ended, tmp_path)
    appraised = cli("verify", evidence, "--nonce", NONCE, "--policy", policy, "--allow-simulator", "--json")
    assert (appraised.status, appraised.json["policy"]["id"]) == (0, "mine")
    assert (
        cli("policy", "check", policy, "--json").json["policy"]["reference_values"]["measurements"][0]["name"]
        == 'a "name"'
    )


def test_the_policy_refuses_what_was_not_observed(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = policy_in(
        cli("policy", "init", "--from", evidence_in(cli, tmp_path), "--allow-simulator", "--enrol-ek"),
        tmp_path,
    )

    def appraise() -> Ended:
        return cli(
            "verify",
            evidence_in(cli, tmp_path),
            "--nonce",
            NONCE,
            "--policy",
            policy,
            "--allow-simulator",
            "--json",
        )

    assert appraise().status == 0
    monkeypatch.setenv("SVSM_ATTEST_SIMULATOR_EK", "p256")
    assert {"vtpm.ek_template", "vtpm.ek_enrolled"} <= not_passed(appraise()).keys()
    monkeypatch.setenv("SVSM_ATTEST_SIMULATOR_FAULT", "snp.tcb.minimum")
    assert not_passed(appraise())["snp.tcb.minimum"] == "failed"


@pytest.mark.parametrize(
    ("name", "line"), [("genoa-v5-a", "Genoa"), ("turin-v5-oak", "Turin"), ("milan-v5-gcp", "Milan")]
)
def test_from_a_real_report(name: str, line: str, cli: Cli, vectors: Path, tmp_path: Path) -> None:
    report = vectors / name / "report.bin"
    certs = ("--certs", vectors / name, "--certs", vectors / "ca")
    ended = cli("policy", "init", "--from", report, *certs)
    assert ended.status == 0
    assert f"Verified: a security processor under ARK-{line} signed this report" in ended.out
    policy = policy_in(ended, tmp_path)
    report_data = report.read_bytes()[0x50:0x90].hex()
    arguments = ("verify", "--report", report, *certs, "--offline", "--policy", policy, "--json")
    appraised = cli(*arguments, "--report-data", report_data)
    # Nothing but what the policy itself says of this machine; and there is no CRL.
    expected = {"snp.revocation"}
    expected |= {"snp.firmware"} if "OBSERVED: provisional" in ended.out else set()
    expected |= {"snp.tcb.minimum"} if "OBSERVED: less" in ended.out else set()
    assert not_passed(appraised) == dict.fromkeys(expected, "warned")
    other = vectors / "milan-v3-oak"
    files = ("--report", other / "report.bin", "--certs", other, *certs)
    other_appraised = cli("verify", *files, "--offline", "--policy", policy, "--json")
    assert not_passed(other_appraised)["snp.measurement"] == "warned"


def test_weaknesses_are_named_and_not_approved(cli: Cli, vectors: Path, tmp_path: Path) -> None:
    report = vectors / "milan-v2-debug-policy" / "report.bin"
    certs = ("--certs", vectors / "milan-v2-debug-policy", "--certs", vectors / "ca")
    ended = cli("policy", "init", "--from", report, *certs)
    assert ended.status == 0
    assert "debug: false  # OBSERVED: allowed" in ended.out
    assert "does not pass snp.policy.debug" in ended.err
    policy = policy_in(ended, tmp_path)
    appraised = cli("verify", "--report", report, *certs, "--offline", "--policy", policy, "--json")
    assert not_passed(appraised)["snp.policy.debug"] == "failed"
    # Firmware with known vulnerabilities warns, as under the built-in policy.
    assert "OBSERVED: less" in ended.out
    assert not_passed(appraised)["snp.tcb.minimum"] == "warned"


def test_a_vlek_and_a_masked_chip(cli: Cli, vectors: Path) -> None:
    folder = vectors / "milan-vlek-v3-aws-us-east-2"
    vlek = cli(
        "policy", "init", "--from", folder / "report.bin", "--certs", folder, "--certs", vectors / "ca"
    )
    assert vlek.status == 1 or "allow_masked_chip_id" not in vlek.out
    masked = cli("policy", "init", "--from", vectors / "synthetic/genoa/chip-id-zero/report.bin")
    assert "OBSERVED: the host masks CHIP_ID" in masked.out
    assert "chip_ids" not in masked.out


def test_what_cannot_be_verified_says_so(cli: Cli, vectors: Path) -> None:
    ended = cli("policy", "init", "--from", vectors / "genoa-v5-parse-only" / "report.bin")
    assert ended.status == 0
    assert "# NOT VERIFIED" in ended.out
    assert "NOT VERIFIED" in ended.err
    parse_policy(ended.out.encode())


def test_what_is_not_genuine_gets_no_policy(cli: Cli, vectors: Path) -> None:
    report = vectors / "negative" / "milan-v3-oak--measurement-bitflip" / "report.bin"
    ended = cli(
        "policy", "init", "--from", report, "--certs", vectors / "milan-v3-oak", "--certs", vectors / "ca"
    )
    assert (ended.status, ended.out) == (1, "")
    assert "not genuine" in ended.err
    assert "snp.signature" in ended.err


def test_simulated_evidence_is_refused_however_it_is_dressed(cli: Cli, tmp_path: Path) -> None:
    evidence = evidence_in(cli, tmp_path)
    document = json.loads(evidence.read_text())
    bare = {name: document[name] for name in ("report", "manifest")}
    for dressed in (
        document,
        bare | {"backend": "configfs"},
        bare | {"certificates": document["certificates"]},
    ):
        evidence.write_text(json.dumps(dressed))
        ended = cli("policy", "init", "--from", evidence)
        assert (ended.status, ended.out) == (2, "")
        assert "SIMULATED" in ended.err


def test_svsm_evidence_in_raw_files(cli: Cli, vectors: Path, tmp_path: Path) -> None:
    folder = vectors / "synthetic" / "genoa" / "svsm-vtpm-good"
    manifest = folder / "manifest-tpmt_public.bin"
    ended = cli("policy", "init", "--from", folder / "report.bin", "--manifest", manifest)
    assert ended.status == 0
    assert "ek_templates: [L-1]" in ended.out
    assert "vmpl:" not in ended.out  # VMPL 0 goes without saying
    evidence = evidence_in(cli, tmp_path)
    both = cli("policy", "init", "--from", evidence, "--manifest", manifest)
    assert (both.status, "--manifest" in both.err) == (2, True)


def test_a_v2_report_takes_its_line_from_the_certificate_or_the_option(cli: Cli, vectors: Path) -> None:
    report = vectors / "milan-v2-baremetal-a" / "report.bin"
    untold = cli("policy", "init", "--from", report)
    assert "No TCB floor: the report does not tell its product line" in untold.out
    assert "product_lines" not in untold.out
    named = cli("policy", "init", "--from", report, "--line", "Milan")
    assert "Milan: {bootloader: 3, tee: 0, snp: 8}" in named.out
    assert "minimum_microcode" not in named.out  # it compares within a stepping, which is not told
    certified = cli(
        "policy",
        "init",
        "--from",
        report,
        "--certs",
        vectors / "milan-v2-baremetal-a",
        "--certs",
        vectors / "ca",
    )
    assert "Milan: {bootloader: 3, tee: 0, snp: 8}" in certified.out
    wrong = cli("policy", "init", "--from", report, "--line", "Turin")
    assert "a TCB of this report is none of Turin" in wrong.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--id", "has space"), "--id"),
        (("--id", "x" * 65), "--id"),
        (("--name", ""), "--name"),
        (("--name", "n" * 257), "--name"),
    ],
)
def test_names_that_a_policy_cannot_have(
    arguments: tuple[str, ...], said: str, cli: Cli, vectors: Path
) -> None:
    ended = cli("policy", "init", "--from", vectors / "genoa-v5-a" / "report.bin", *arguments)
    assert (ended.status, said in ended.err) == (2, True)


def test_a_file_name_cannot_break_out_of_its_comment(cli: Cli, vectors: Path, tmp_path: Path) -> None:
    hostile = tmp_path / "x\nroot_of_trust: {check_crl: false}\n#"
    hostile.write_bytes((vectors / "genoa-v5-a" / "report.bin").read_bytes())
    ended = cli("policy", "init", "--from", hostile)
    assert ended.status == 0
    assert parse_policy(ended.out.encode()).root_of_trust.check_crl is True


def test_what_is_no_evidence(cli: Cli, vectors: Path) -> None:
    ended = cli("policy", "init", "--from", vectors / "genoa-v5-a" / "vcek.der")
    assert (ended.status, "want 1184" in ended.err) == (2, True)
    manifest = vectors / "genoa-v5-a" / "vcek.der"
    bad = cli("policy", "init", "--from", vectors / "genoa-v5-a" / "report.bin", "--manifest", manifest)
    assert (bad.status, "TPMT_PUBLIC" in bad.err) == (2, True)


def test_what_else_was_observed_is_offered_as_a_comment(cli: Cli, vectors: Path, tmp_path: Path) -> None:
    """An author key, an older TCB at launch, provisional firmware, no alias check."""
    report = AttestationReport.parse((vectors / "genoa-v5-a" / "report.bin").read_bytes())
    lower = TcbVersion(bootloader=9, tee=0, snp=20, microcode=80).encode(TcbLayout.PRE_TURIN)
    changed = replace(
        report,
        key_info=replace(report.key_info, author_key_en=True),
        author_key_digest=b"\xaa" * 48,
        id_key_digest=b"\xbb" * 48,
        launch_tcb=lower,
        committed_tcb=lower,
        reported_tcb=TcbVersion(bootloader=8, tee=0, snp=29, microcode=81).encode(TcbLayout.PRE_TURIN),
        platform_info=PlatformInfo(0),
    )
    file = tmp_path / "changed.bin"
    file.write_bytes(changed.encode())
    text = cli("policy", "init", "--from", file).out
    for said in (
        "Genoa: {bootloader: 8, tee: 0, snp: 20}",  # the least of each level, not of the whole
        "minimum_launch_tcb:\n    Genoa: {bootloader: 9, tee: 0, snp: 20}",
        '"19/11/01": 80',
        "OBSERVED: less",
        "OBSERVED: provisional",
        "alias_check_complete: true  # OBSERVED: false; it warns",
        f'# trusted_id_key_hashes: ["{"bb" * 48}"]',
        f'# trusted_author_key_hashes: ["{"aa" * 48}"]',
    ):
        assert said in text
    parse_policy(text.encode())


def test_a_manifest_without_a_vtpm(cli: Cli, vectors: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "uefi.bin"
    manifest.write_bytes(bytes(8))
    ended = cli(
        "policy", "init", "--from", vectors / "genoa-v5-parse-only/report.bin", "--manifest", manifest
    )
    policy = parse_policy(ended.out.encode())
    assert policy.reference_values.vtpm.manifest_versions == ("0",)
    assert "ek_sha256" not in ended.out


def test_nobody_is_asked_and_a_broken_tcb_is_said(cli: Cli, vectors: Path, tmp_path: Path) -> None:
    raw = bytearray((vectors / "genoa-v5-a" / "report.bin").read_bytes())
    raw[0x183] = 1  # reserved in Genoa's TCB_VERSION
    file = tmp_path / "report.bin"
    file.write_bytes(raw)
    ended = cli("policy", "init", "--from", file)
    assert (ended.status, ended.out) == (2, "")
    assert f"{file}: TCB_VERSION" in ended.err
