"""`inspect` on certificates, revocation lists, bundles and certificate tables."""

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from app.wire import guid
from app.wire.certificate_table import CertificateEntry, CertificateTable
from tests.cli.command_line import Cli


def test_certificates_of_every_role(cli: Cli, vectors: Path) -> None:
    for file, role, said in (
        ("ca/genoa-ark.der", "ark", "AMD's root of Genoa"),
        ("ca/milan-ask.der", "ask", "issues VCEKs of Milan"),
        ("ca/turin-asvk.der", "asvk", "issues VLEKs of Turin"),
        ("turin-v5-oak/vcek.der", "vcek", "VCEK certificate of Turin"),
        ("milan-vlek-v3-aws-us-east-2/vlek.der", "vlek", "VLEK certificate of Milan"),
        ("synthetic/genoa/ark.der", "ark", "calls itself the root of Genoa"),
    ):
        ended = cli("inspect", vectors / file)
        assert said in ended.out.split("\n")[0]
        documented = cli("inspect", vectors / file, "--json").json["certificate"]
        assert documented["role"] == role
        assert documented["amd_root"] == (file == "ca/genoa-ark.der")


def test_a_leaf_says_whose_key_it_is(cli: Cli, vectors: Path) -> None:
    vcek = cli("inspect", vectors / "turin-v5-oak" / "vcek.der", "--json").json["certificate"]["vek"]
    chip = (vectors / "turin-v5-oak" / "report.bin").read_bytes()[0x1A0:0x1A8].hex()
    assert (vcek["product"], vcek["hwid"], vcek["csp_id"]) == ("Turin", chip, None)
    assert vcek["tcb"] == {"fmc": 0, "bootloader": 1, "tee": 0, "snp": 2, "microcode": 71}
    vlek = cli("inspect", vectors / "milan-vlek-v3-aws-us-east-2" / "vlek.der")
    assert "CN=cc-us-east-2.amazonaws.com  the cloud provider" in vlek.out
    assert "over since" in vlek.out


def test_departures_from_the_profile_are_listed(cli: Cli, vectors: Path) -> None:
    synthetic = vectors / "synthetic" / "genoa"
    for name, fault in (
        ("vcek-p256", "P-384"),
        ("vcek-rsa-key", "P-384"),
        ("spl-missing", "SPL of snp"),
        ("hwid-missing", "no HWID"),
        ("both-hwid-and-cspid", "csp_id"),
    ):
        ended = cli("inspect", synthetic / name / "vcek.der")
        assert "Departures from AMD's profile" in ended.out
        assert fault in ended.out
    ask = cli("inspect", synthetic / "ask-not-ca" / "ask.der")
    assert "certificate authority" in ask.out
    pkcs1 = cli("inspect", synthetic / "vcek-pkcs1v15" / "vcek.der")
    assert "OID 1.2.840.113549.1.1.12 with SHA384" in pkcs1.out


def test_a_bundle_and_its_chain(cli: Cli, vectors: Path, tmp_path: Path) -> None:
    ended = cli("inspect", vectors / "ca" / "turin-vcek-cert_chain.pem")
    assert "PEM bundle of 2 certificates" in ended.out
    assert "AMD's root of Turin" in ended.out
    leaf = base64.encodebytes((vectors / "turin-v5-oak" / "vcek.der").read_bytes()).decode()
    whole = tmp_path / "whole.pem"
    text = f"Explanatory text.\n-----BEGIN CERTIFICATE-----\n{leaf}-----END CERTIFICATE-----\n"
    whole.write_text(text + (vectors / "ca" / "turin-vcek-cert_chain.pem").read_text())
    chain = cli("inspect", whole, "--json").json
    assert chain["kind"] == "certificate-bundle"
    assert chain["chains"][0]["problems"] == []
    assert "SEV-VCEK <- SEV-Turin <- ARK-Turin" in cli("inspect", whole).out
    alone = tmp_path / "alone.pem"
    alone.write_text(text)
    assert cli("inspect", alone, "--json").json["kind"] == "certificate"


def test_a_certificate_of_somebody_else(cli: Cli, tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "somebody\x1b[31m")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2027, 1, 1, tzinfo=UTC))
        .sign(key, None)
    )
    file = tmp_path / "other.der"
    file.write_bytes(certificate.public_bytes(Encoding.DER))
    ended = cli("inspect", file)
    assert "none of AMD's for SEV-SNP" in ended.out
    assert "Ed25519PublicKey" in ended.out
    assert "\x1b" not in ended.out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "holds PUBLIC KEY"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n", "the block has no end"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "not a certificate"),
    ],
)
def test_pem_that_is_no_certificate(text: str, said: str, cli: Cli) -> None:
    ended = cli("inspect", "-", stdin=text.encode())
    assert (ended.status, said in ended.err) == (2, True)


def test_a_revocation_list(cli: Cli, vectors: Path, tmp_path: Path) -> None:
    ended = cli("inspect", vectors / "synthetic" / "genoa" / "crl" / "crl-revokes-ask.der", "--json")
    assert ended.json["crl"]["revoked_serial_numbers"] == ["0x20002"]
    assert "serial number 0x20002" in cli("inspect", vectors / "synthetic/genoa/crl/crl-revokes-ask.der").out
    real = vectors / "crl" / "milan-vcek-crl-2023.der"
    assert "no certificate is revoked" in cli("inspect", real).out
    pem = tmp_path / "crl.pem"
    body = base64.encodebytes(real.read_bytes()).decode()
    pem.write_text(f"-----BEGIN X509 CRL-----\n{body}-----END X509 CRL-----\n")
    assert cli("inspect", pem, "--json").json["crl"] == cli("inspect", real, "--json").json["crl"]


def test_a_list_that_revokes_much_is_cut_for_people_only(cli: Cli, tmp_path: Path) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "somebody")])
    builder = x509.CertificateRevocationListBuilder().issuer_name(name).last_update(moment)
    builder = builder.next_update(datetime(2030, 1, 1, tzinfo=UTC))
    for serial in range(1, 31):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(moment).build()
        builder = builder.add_revoked_certificate(entry)
    crl = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    file = tmp_path / "crl.der"
    file.write_bytes(crl.public_bytes(Encoding.DER))
    assert "and 10 more" in cli("inspect", file).out
    documented = cli("inspect", file, "--json").json["crl"]
    assert len(documented["revoked_serial_numbers"]) == 30
    assert documented["number"] is None


def test_certificate_tables(cli: Cli, vectors: Path) -> None:
    table = cli("inspect", vectors / "certtable" / "genoa-good-page-padded.bin", "--json").json
    assert [part["place"] for part in table["parts"]] == ["VCEK", "ASK or ASVK", "ARK"]
    assert table["chains"][0]["problems"] == []
    assert any("padding" in remark for remark in table["remarks"])
    for name in ("genoa-little-endian-guid", "genoa-vcek-pem", "genoa-unknown-guid-extra"):
        ended = cli("inspect", vectors / "certtable" / f"{name}.bin")
        assert ended.status == 0
        assert "holds  now, up to AMD's root" in ended.out
    only = cli("inspect", vectors / "certtable" / "genoa-vcek-only.bin")
    assert "no certificate of its issuer, SEV-Genoa, was offered" in only.out
    assert "The table is empty" in cli("inspect", vectors / "certtable" / "genoa-empty.bin").out


@pytest.mark.parametrize(
    "name", ["duplicate-vcek", "length-past-end", "no-terminator", "offset-into-header", "truncated-header"]
)
def test_a_malformed_table_is_nearest_to_a_table(name: str, cli: Cli, vectors: Path) -> None:
    ended = cli("inspect", vectors / "certtable" / f"genoa-{name}.bin", "--json")
    assert (ended.status, ended.json["structure"]) == (2, "certificate table")


def test_a_table_with_a_list_and_with_rubbish(cli: Cli, vectors: Path, tmp_path: Path) -> None:
    crl = (vectors / "crl" / "milan-vcek-crl-2023.der").read_bytes()
    entries = (CertificateEntry(guid.CRL, crl), CertificateEntry(guid.VCEK, b"rubbish"))
    file = tmp_path / "table"
    file.write_bytes(CertificateTable(entries).encode())
    parts = cli("inspect", file, "--json").json["parts"]
    assert [part["kind"] for part in parts] == ["crl", "unreadable"]
    assert "neither DER nor PEM" in cli("inspect", file).out
