"""Which keys and certificates may vouch for EKs, and which are refused for their own reason."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from app.errors import CertificateError
from app.trust.certificates import extensions_of
from app.trust.ek_authority import CaAlgorithm, EkAuthority
from app.trust.ek_certificate import ek_certificate_builder
from tests.trust.ek_ca import NOW, authority, issue, pem_file, run, statement
from tests.trust.pki import constraints, ec_key, rsa_key, usage
from tests.wire.samples import SWTPM_EK

NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "EK CA")])
CA = ((constraints(), True), (usage(crls=True), True))


def key_pem(key: Any) -> bytes:
    raw: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return raw


def self_signed(
    key: Any,
    *,
    subject: x509.Name = NAME,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = CA,
    digest: Any = None,
    pad: Any = None,
) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else digest or hashes.SHA256()
    return builder.sign(key, digest, rsa_padding=pad).public_bytes(Encoding.PEM)


def load(certificate: bytes, key: bytes) -> EkAuthority:
    return EkAuthority.load(certificate, key, certificate_source="ca.pem", key_source="ca.key")


@pytest.mark.parametrize("algorithm", CaAlgorithm)
@pytest.mark.parametrize("simulated", [False, True])
def test_what_was_made_can_be_loaded_and_signs(algorithm: CaAlgorithm, *, simulated: bool) -> None:
    made = authority(algorithm, simulated=simulated)
    loaded = load(made.certificate.public_bytes(Encoding.PEM), made.key_pem())
    assert loaded.certificate == made.certificate
    assert loaded.simulated is simulated
    assert loaded.name.startswith("SIMULATED ") is simulated
    issue(SWTPM_EK, loaded).verify_directly_issued_by(made.certificate)


@pytest.mark.parametrize("algorithm", CaAlgorithm)
def test_openssl_takes_a_new_authority_for_one(tmp_path: Path, algorithm: CaAlgorithm) -> None:
    ca = pem_file(tmp_path, "ca.pem", authority(algorithm).certificate)
    verify = ("openssl", "verify", "-x509_strict", "-check_ss_sig", "-CAfile", ca, ca)
    assert run(tmp_path, *verify).stdout == f"{ca}: OK\n"
    shown = run(tmp_path, "openssl", "x509", "-in", ca, "-noout", "-purpose").stdout
    assert "Any Purpose CA : Yes" in shown
    text = run(tmp_path, "openssl", "x509", "-in", ca, "-noout", "-text").stdout
    assert "CA:TRUE, pathlen:0" in text


def test_two_authorities_never_have_one_name_unless_told() -> None:
    how: dict[str, Any] = {"simulated": False, "algorithm": CaAlgorithm.P256, "at": NOW}
    lifetime = timedelta(days=1)
    names = {EkAuthority.create(name=None, lifetime=lifetime, **how).name for _ in range(20)}
    assert len(names) == 20
    assert EkAuthority.create(name="Mine", lifetime=lifetime, **how).name == "Mine"


def test_a_certificate_is_valid_from_its_first_to_its_last_second() -> None:
    made, month = authority(), timedelta(days=30)
    assert made.is_valid(NOW)
    assert made.is_valid(NOW - timedelta(minutes=5))
    assert not made.is_valid(NOW - timedelta(minutes=5, seconds=1))
    assert made.is_valid(NOW + month)
    assert not made.is_valid(NOW + month + timedelta(seconds=1))


def test_the_key_is_not_shown() -> None:
    made = authority()
    assert "PRIVATE" not in repr(made)
    assert str(made).startswith(f"{made.name}, valid until ")


ED25519 = ed25519.Ed25519PrivateKey.generate()
SMALL_RSA = rsa.generate_private_key(65537, 1024)  # noqa: S505 (that is the point)
EC_KEY = ec_key("ek-ca", ec.SECP256R1)
RSA_KEY = rsa_key("ek-ca", 2048)
PSS = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
NO_CA = ((constraints(ca=False), True), (usage(), True))

P256_OID = bytes.fromhex("06082a8648ce3d030107")


def on_no_curve() -> bytes:
    """A certificate whose key says it is on a curve with an object identifier that nobody gave away."""
    raw = x509.load_pem_x509_certificate(self_signed(EC_KEY)).public_bytes(Encoding.DER)
    assert raw.count(P256_OID) == 1
    return raw.replace(P256_OID, P256_OID[:-1] + b"\x7f")


REFUSED: dict[str, tuple[Callable[[], bytes], Any, str]] = {
    "Ed25519": (lambda: self_signed(ED25519), ED25519, "neither EC nor RSA"),
    "RSASSA-PSS signature": (lambda: self_signed(RSA_KEY, pad=PSS), RSA_KEY, "RSASSA-PSS"),
    "P-521": (
        lambda: self_signed(ec_key("ek-ca", ec.SECP521R1)),
        ec_key("ek-ca", ec.SECP521R1),
        "on secp521r1, want P-256 or P-384",
    ),
    "RSA-1024": (lambda: self_signed(SMALL_RSA), SMALL_RSA, "RSA-1024, want RSA-2048 or longer"),
    "no CA": (lambda: self_signed(EC_KEY, extensions=NO_CA), EC_KEY, "no CA certificate"),
    "no basicConstraints": (lambda: self_signed(EC_KEY, extensions=CA[1:]), EC_KEY, "no CA certificate"),
    "no keyUsage": (lambda: self_signed(EC_KEY, extensions=CA[:1]), EC_KEY, "may not sign certificates"),
    "keyUsage without certificates": (
        lambda: self_signed(EC_KEY, extensions=(CA[0], (usage(certificates=False, crls=True), True))),
        EC_KEY,
        "may not sign certificates",
    ),
    "no subject": (lambda: self_signed(EC_KEY, subject=x509.Name([])), EC_KEY, "has no subject"),
    "another key": (
        lambda: self_signed(EC_KEY),
        ec_key("other", ec.SECP256R1),
        "ca.key: it is not the key of ca.pem",
    ),
    "a key of another kind": (lambda: self_signed(EC_KEY), RSA_KEY, "ca.key: it is not the key of ca.pem"),
    "an Ed25519 key": (lambda: self_signed(EC_KEY), ED25519, "neither an EC nor an RSA key"),
    "a curve that nobody knows": (on_no_curve, EC_KEY, "its key cannot be read"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    certificate, key, reason = REFUSED[case]
    with pytest.raises(CertificateError, match=reason):
        load(certificate(), key_pem(key))


def test_a_key_that_is_only_for_pss_is_refused(tmp_path: Path) -> None:
    # cryptography cannot make one: its SubjectPublicKeyInfo itself says id-RSASSA-PSS.
    made = run(tmp_path, "openssl", "genpkey", "-algorithm", "RSA-PSS", "-out", "ca.key")
    assert made.returncode == 0, made.stderr
    request = ("openssl", "req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=x", "-out", "ca.pem")
    assert run(tmp_path, *request).returncode == 0
    with pytest.raises(CertificateError, match="RSASSA-PSS"):
        load((tmp_path / "ca.pem").read_bytes(), (tmp_path / "ca.key").read_bytes())


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(CertificateError) as refused:
        load(self_signed(SMALL_RSA, extensions=()), key_pem(SMALL_RSA))
    assert refused.value.source == "ca.pem"
    assert refused.value.reason.count(";") == 2


def test_what_is_no_certificate_or_no_key() -> None:
    good, key = self_signed(EC_KEY), key_pem(EC_KEY)
    with pytest.raises(CertificateError, match=r"ca\.pem: 2 certificates, want one"):
        load(good + good, key)
    with pytest.raises(CertificateError, match=r"ca\.pem: not a certificate"):
        load(b"nothing", key)
    with pytest.raises(CertificateError, match=r"ca\.pem: holds a PRIVATE KEY"):
        load(key + good, key)
    for nothing in (b"", b"nothing", good, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"):
        with pytest.raises(CertificateError, match=r"ca\.key: not a private key in PEM"):
            load(good, nothing)
    encrypted = EC_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    with pytest.raises(CertificateError, match=r"ca\.key: the key is encrypted"):
        load(good, encrypted)


def test_an_extension_that_cannot_be_read_is_a_fault() -> None:
    broken = (*CA, (x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.14"), b"\xff"), False))
    with pytest.raises(CertificateError, match="its extensions cannot be read"):
        load(self_signed(EC_KEY, extensions=broken), key_pem(EC_KEY))


def test_without_a_key_identifier_of_its_own_the_key_tells_it() -> None:
    loaded = load(self_signed(EC_KEY), key_pem(EC_KEY))
    assert not [one for one in extensions_of(loaded.certificate) if one.oid.dotted_string == "2.5.29.14"]
    leaf = loaded.sign(ek_certificate_builder(statement(SWTPM_EK)))
    named = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert named.key_identifier == x509.SubjectKeyIdentifier.from_public_key(EC_KEY.public_key()).digest


def test_an_authority_without_a_common_name_has_a_name() -> None:
    organisation = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SIMULATED Ltd")])
    loaded = load(self_signed(EC_KEY, subject=organisation), key_pem(EC_KEY))
    assert loaded.name == "O=SIMULATED Ltd"
    assert not loaded.simulated
