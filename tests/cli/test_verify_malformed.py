"""`verify` on what is not what it claims to be: exit code 2, with file, structure, offset and remedy."""

import json
from pathlib import Path

import pytest

from tests.cli.appraisals import options, svsm
from tests.cli.command_line import Cli


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("milan-v3-oak--truncated-671", "ATTESTATION_REPORT at 0x29f: 671 bytes, want 1184"),
        ("milan-v3-oak--guest-response-header", "1216 bytes, want 1184"),
        ("milan-v3-oak--sig-tail-nonzero", "ATTESTATION_REPORT at 0x337"),
    ],
)
def test_a_malformed_report_names_file_structure_offset_and_remedy(
    name: str, said: str, cli: Cli, vectors: Path
) -> None:
    report = vectors / "negative" / name / "report.bin"
    ended = cli("verify", "--report", report, "--certs", vectors / "milan-v3-oak", "--offline", "--json")
    assert ended.status == 2
    assert said in ended.json["detail"]
    assert ended.json["detail"].startswith(str(report))
    assert ended.json["structure"] == "ATTESTATION_REPORT"
    assert "svsm-attest inspect" in ended.json["remedy"]
    assert "Traceback" not in ended.err


def test_a_malformed_manifest_names_its_own_file(cli: Cli, vectors: Path) -> None:
    ended = cli(*svsm(vectors, "svsm-vtpm-manifest-trailing"), "--json")
    assert ended.status == 2
    assert "manifest-tpmt_public.bin" in ended.json["file"]
    assert ended.json["byte_offset"] == 0x13A


def test_a_tcb_that_no_line_has_names_the_report(cli: Cli, vectors: Path, tmp_path: Path) -> None:
    raw = bytearray((vectors / "milan-v3-oak" / "report.bin").read_bytes())
    raw[0x183] = 1  # reserved in Milan's TCB_VERSION
    report = tmp_path / "report.bin"
    report.write_bytes(raw)
    ended = cli("verify", "--report", report, "--offline", "--json")
    assert (ended.status, ended.json["file"]) == (2, str(report))


@pytest.mark.parametrize("name", ["leaf-truncated", "leaf-trailing-byte"])
def test_a_malformed_certificate_names_its_file(name: str, cli: Cli, vectors: Path) -> None:
    leaf = vectors / "negative" / f"milan-v3-oak--{name}" / "vcek.der"
    ended = cli(*options(vectors, "milan-v3-oak")[:4], "--certs", leaf, "--offline", "--json")
    assert ended.status == 2
    assert str(leaf) in ended.json["detail"]


def test_a_crl_that_is_none(cli: Cli, vectors: Path) -> None:
    leaf = vectors / "milan-v3-oak" / "vcek.der"
    ended = cli(*options(vectors, "milan-v3-oak"), "--crl", leaf)
    assert (ended.status, "not a CRL" in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the text is empty"),
        ("{", "not JSON"),
        ("[]", "evidence"),
        ("{}", "/report"),
        ('{"report": "AAAA", "binding": {"type": "merkle"}}', "/binding"),
        ('{"report": "A!AA"}', "/report"),
        ('{"report": "AAAA", "extra": 1}', "/extra"),
    ],
)
def test_evidence_that_is_none(text: str, said: str, cli: Cli) -> None:
    ended = cli("verify", "-", "--json", stdin=text.encode())
    assert ended.status == 2
    assert said in ended.json["detail"]
    assert ended.json["detail"].startswith("standard input")


def test_evidence_whose_table_is_malformed(cli: Cli, tmp_path: Path) -> None:
    document = json.loads(cli("attest").out)
    document["certificates"] = "AAAA"
    evidence = tmp_path / "evidence.json"
    evidence.write_text(json.dumps(document))
    ended = cli("verify", evidence, "--nonce", "ab" * 64, "--offline", "--json")
    assert (ended.status, ended.json["structure"]) == (2, "certificate table")
    assert ended.json["file"] == str(evidence)
