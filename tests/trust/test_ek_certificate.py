"""EK certificates, read by everybody but the code that wrote them."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtensionOID

from app.trust.ek_authority import CaAlgorithm
from app.trust.ek_certificate import TpmModel, ek_certificate_builder
from tests.trust.ek_ca import NOW, authority, issue, pem_file, run, statement
from tests.wire.samples import LEADING_ZERO_SCALARS, SWTPM_EK, p256_ek, p384_ek

EKS = {"rsa2048": SWTPM_EK, "p256": p256_ek(), "p384": p384_ek()}
# The whole extension as the profile's example has it: family "2.0", level 0, revision 164.
SPECIFICATION = bytes.fromhex("3019301706056781050210310e300c0c03322e30020100020200a4")


def extension(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> tuple[bool, bytes]:
    """Criticality and DER of an extension."""
    found = certificate.extensions.get_extension_for_oid(oid)
    return found.critical, found.value.public_bytes()


@pytest.fixture(params=EKS)
def ek(request: pytest.FixtureRequest) -> bytes:
    return EKS[request.param]


@pytest.mark.parametrize("algorithm", CaAlgorithm)
def test_openssl_and_gnutls_accept_it(tmp_path: Path, ek: bytes, algorithm: CaAlgorithm) -> None:
    ca = pem_file(tmp_path, "ca.pem", authority(algorithm).certificate)
    leaf = pem_file(tmp_path, "ek.pem", issue(ek, authority(algorithm)))
    for options in ((), ("-x509_strict",)):
        assert run(tmp_path, "openssl", "verify", *options, "-CAfile", ca, leaf).stdout == f"{leaf}: OK\n"
    verify = ("certtool", "--verify", "--verify-profile", "medium")
    done = run(tmp_path, *verify, "--load-ca-certificate", ca, "--infile", leaf)
    assert done.returncode == 0, done.stderr
    assert "The certificate is trusted" in done.stdout


def test_it_is_good_for_nothing_else(tmp_path: Path, ek: bytes) -> None:
    ca = pem_file(tmp_path, "ca.pem", authority().certificate)
    leaf = pem_file(tmp_path, "ek.pem", issue(ek))
    for purpose in ("sslclient", "sslserver", "smimesign"):
        done = run(tmp_path, "openssl", "verify", "-purpose", purpose, "-CAfile", ca, leaf)
        assert "unsuitable certificate purpose" in done.stderr


def test_what_it_says(ek: bytes) -> None:
    certificate = issue(ek)
    assert certificate.version is x509.Version.v3
    assert certificate.subject.public_bytes() == b"\x30\x00"
    assert certificate.issuer == authority().certificate.subject
    assert certificate.not_valid_before_utc == NOW - timedelta(minutes=5)
    assert certificate.not_valid_after_utc == NOW + timedelta(hours=24)
    certificate.verify_directly_issued_by(authority().certificate)
    critical = {found.oid.dotted_string for found in certificate.extensions if found.critical}
    assert critical == {"2.5.29.17", "2.5.29.19", "2.5.29.15"}
    values = certificate.extensions
    assert values.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(
        ca=False, path_length=None
    )
    assert [oid.dotted_string for oid in values.get_extension_for_class(x509.ExtendedKeyUsage).value] == [
        "2.23.133.8.1"
    ]
    own = authority().certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    named = values.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert named.key_identifier == own.digest


def test_key_usage_is_that_of_the_kind_of_key(ek: bytes) -> None:
    usage = issue(ek).extensions.get_extension_for_class(x509.KeyUsage).value
    is_rsa = ek is SWTPM_EK
    assert (usage.key_encipherment, usage.key_agreement) == (is_rsa, not is_rsa)
    others = (usage.digital_signature, usage.content_commitment, usage.data_encipherment)
    assert not any((*others, usage.key_cert_sign, usage.crl_sign))


@pytest.mark.parametrize(
    "ek", [*EKS.values(), *(p256_ek(LEADING_ZERO_SCALARS["P-256", part]) for part in "xy")]
)
def test_the_key_is_the_manifest_s_to_the_byte(ek: bytes) -> None:
    spki = issue(ek).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if ek is SWTPM_EK:
        assert ek[-256:] in spki
        assert spki.endswith(b"\x02\x03\x01\x00\x01")
        return
    size = 32 if len(ek) == 122 else 48
    x, y = ek[-2 * size - 2 : -size - 2], ek[-size:]
    assert spki.endswith(b"\x04" + x + y)


def test_serial_numbers_are_random_and_long() -> None:
    serials = {issue(p256_ek()).serial_number for _ in range(64)}
    assert len(serials) == 64
    assert all(0 < serial < 1 << 159 for serial in serials)
    assert max(serials).bit_length() > 152  # 64 numbers below this would be a miracle


def test_openssl_reads_the_names(tmp_path: Path) -> None:
    leaf = pem_file(tmp_path, "ek.pem", issue(SWTPM_EK))
    shown = run(tmp_path, "openssl", "x509", "-in", leaf, "-noout", "-text").stdout
    text = re.sub(r"\s+", " ", shown)
    assert (
        "X509v3 Subject Alternative Name: critical"
        " DirName:/2.23.133.2.1=id:00001014/2.23.133.2.2=swtpm/2.23.133.2.3=id:20191023" in text
    )
    assert "X509v3 Extended Key Usage: 2.23.133.8.1" in text
    assert "X509v3 Key Usage: critical Key Encipherment" in text
    assert "X509v3 Basic Constraints: critical CA:FALSE" in text


def test_the_names_are_three_of_one_attribute_each() -> None:
    certificate = issue(SWTPM_EK)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (directory,) = names.get_values_for_type(x509.DirectoryName)
    assert [[(one.oid.dotted_string, one.value) for one in part] for part in directory.rdns] == [
        [("2.23.133.2.1", "id:00001014")],
        [("2.23.133.2.2", "swtpm")],
        [("2.23.133.2.3", "id:20191023")],
    ]


def test_the_specification_is_the_profile_s_example() -> None:
    found = extension(issue(SWTPM_EK), ExtensionOID.SUBJECT_DIRECTORY_ATTRIBUTES)
    assert found == (False, SPECIFICATION)


@pytest.mark.parametrize(
    "tpm",
    [
        TpmModel(manufacturer="id:00001014", model="swtpm", version="id:20191023", revision=164),
        TpmModel(manufacturer="id:414D4400", model="SVSM vTPM", version="id:00000000", revision=183),
    ],
)
@pytest.mark.parametrize("ek", [SWTPM_EK, p256_ek(), p384_ek()], ids=["rsa2048", "p256", "p384"])
def test_every_extension_is_that_of_swtpm_cert(tmp_path: Path, tpm: TpmModel, ek: bytes) -> None:
    ours = authority(CaAlgorithm.RSA3072).sign(ek_certificate_builder(statement(ek, tpm=tpm)))
    theirs = swtpm_cert(tmp_path, ours, tpm)
    assert theirs.subject == ours.subject
    assert theirs.public_key() == ours.public_key()
    assert {one.oid for one in theirs.extensions} == {one.oid for one in ours.extensions}
    for oid in {one.oid for one in ours.extensions}:
        assert extension(ours, oid) == extension(theirs, oid), oid


def swtpm_cert(folder: Path, model: x509.Certificate, tpm: TpmModel) -> x509.Certificate:
    """The certificate that swtpm_cert makes of the same key and values, under the same authority."""
    by = authority(CaAlgorithm.RSA3072)
    pem_file(folder, "ca.pem", by.certificate)
    (folder / "ca.key").write_bytes(by.key_pem())
    done = run(
        folder,
        *("swtpm_cert", "--type", "ek", "--tpm2", "--decryption", "--pem", "--days", "1"),
        *("--signkey", "ca.key", "--issuercert", "ca.pem", "--out-cert", "theirs.pem"),
        *("--tpm-manufacturer", tpm.manufacturer, "--tpm-model", tpm.model, "--tpm-version", tpm.version),
        *("--tpm-spec-family", "2.0", "--tpm-spec-level", "0", "--tpm-spec-revision", str(tpm.revision)),
        *key_options(model),
    )
    assert done.returncode == 0, done.stderr
    return x509.load_pem_x509_certificate((folder / "theirs.pem").read_bytes())


def key_options(certificate: x509.Certificate) -> tuple[str, ...]:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return ("--modulus", f"{key.public_numbers().n:x}")
    assert isinstance(key, ec.EllipticCurvePublicKey)
    point, size = key.public_numbers(), key.key_size // 4
    coordinates = ("--ecc-x", f"{point.x:0{size}x}", "--ecc-y", f"{point.y:0{size}x}")
    return (*coordinates, "--ecc-curveid", key.curve.name)
