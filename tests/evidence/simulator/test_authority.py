import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from app.errors import BackendError
from app.evidence.simulator.authority import CertificateAuthority, CrlRequest
from app.evidence.simulator.vault import Vault
from app.evidence.simulator.vek_profile import VekRequest
from app.trust.certificates import load_certificate, load_crl, serial_number
from app.trust.names import VekKind
from app.wire.product import ProductLine
from app.wire.tcb import TcbVersion

AuthorityOf = Callable[[ProductLine], CertificateAuthority]
AMD = "1.3.6.1.4.1.3704.1"
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEY = ec.derive_private_key(7, ec.SECP384R1()).public_key()
TCB = TcbVersion(bootloader=4, tee=0, snp=0x1D, microcode=0xDE)


def vek_request(kind: VekKind = VekKind.VCEK, line: ProductLine = ProductLine.MILAN) -> VekRequest:
    return VekRequest(
        kind=kind,
        public_key=KEY,
        tcb=TcbVersion(fmc=1, bootloader=4, tee=0, snp=0x1D, microcode=0xDE)
        if line is ProductLine.TURIN
        else TCB,
        hwid=bytes(range(line.hwid_size)) if kind is VekKind.VCEK else None,
        csp_id="CN=cc.simulated.invalid" if kind is VekKind.VLEK else None,
        not_before=NOW - timedelta(days=1),
        not_after=NOW + timedelta(days=300),
    )


def write_pem(path: Path, *certificates: x509.Certificate) -> Path:
    path.write_bytes(b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates))
    return path


def openssl(*arguments: str | Path, stdin: bytes = b"") -> str:
    run = subprocess.run(["openssl", *map(str, arguments)], input=stdin, capture_output=True, check=False)
    return (run.stdout + run.stderr).decode()


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (ProductLine.MILAN, VekKind.VCEK),
        (ProductLine.GENOA, VekKind.VCEK),
        (ProductLine.TURIN, VekKind.VCEK),
        (ProductLine.MILAN, VekKind.VLEK),
    ],
)
def test_openssl_accepts_the_chain_and_the_crl(
    authority_of: AuthorityOf, tmp_path: Path, line: ProductLine, kind: VekKind
) -> None:
    authority = authority_of(line)
    root = write_pem(tmp_path / "ark.pem", authority.ark)
    intermediate = write_pem(tmp_path / "intermediate.pem", authority.intermediate(kind))
    leaf = write_pem(tmp_path / "leaf.pem", authority.issue_vek(vek_request(kind, line)))
    at = str(int(NOW.timestamp()) + 86400 * 30)
    answer = openssl("verify", "-attime", at, "-CAfile", root, "-untrusted", intermediate, leaf)
    assert answer == f"{leaf}: OK\n"
    text = openssl("x509", "-in", leaf, "-noout", "-text")
    assert f"CN = SEV-{kind.upper()}" in text
    assert "rsassaPss" in text
    assert "ASN1 OID: secp384r1" in text

    crl = authority.issue_crl(CrlRequest(this_update=NOW, next_update=NOW + timedelta(days=47), revoked=(7,)))
    text = openssl("crl", "-CAfile", root, "-noout", "-text", stdin=crl.public_bytes(Encoding.PEM))
    assert "verify OK" in text
    assert "Serial Number: 07" in text
    assert f"CN = ARK-{line}" in text


def profile_of(certificate: x509.Certificate) -> dict[str, object]:
    """Everything about a CA certificate that does not differ between authorities of one profile."""
    key = certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    pss = certificate.signature_algorithm_parameters
    assert isinstance(pss, padding.PSS)
    sized: dict[x509.ObjectIdentifier, object] = {}
    for extension in certificate.extensions:
        value: object = extension.value
        if isinstance(extension.value, x509.SubjectKeyIdentifier):
            value = len(extension.value.digest)
        elif isinstance(extension.value, x509.AuthorityKeyIdentifier):
            assert extension.value.key_identifier is not None
            assert extension.value.authority_cert_issuer is None
            value = len(extension.value.key_identifier)
        elif isinstance(extension.value, x509.CRLDistributionPoints):
            (point,) = extension.value
            assert point.full_name is not None
            value = [str(name.value).partition(".")[2].partition("/")[2] for name in point.full_name]
        sized[extension.oid] = (extension.critical, value)
    return {
        "version": certificate.version,
        "serial": certificate.serial_number,
        "key": (key.key_size, key.public_numbers().e),
        "signature": certificate.signature_algorithm_oid,
        "hash": certificate.signature_hash_algorithm and certificate.signature_hash_algorithm.name,
        "salt": pss._salt_length,
        "mgf": pss._mgf._algorithm.name,
        "subject": [(a.oid, a._type) for a in certificate.subject],
        "issuer": [(a.oid, a._type) for a in certificate.issuer],
        "subject_cn": certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value,
        "issuer_cn": certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value,
        "years": round((certificate.not_valid_after_utc - certificate.not_valid_before_utc).days / 365.25, 1),
        "extensions": sized,
    }


@pytest.mark.parametrize(
    ("line", "role"),
    [(line, role) for line in ProductLine for role in ("ark", "ask")] + [(ProductLine.MILAN, "asvk")],
)
def test_authorities_have_amds_profile(
    authority_of: AuthorityOf, vectors: Path, line: ProductLine, role: str
) -> None:
    file = vectors / "ca" / f"{line.lower()}-{role}.der"
    real = profile_of(x509.load_der_x509_certificate(file.read_bytes()))
    assert profile_of(getattr(authority_of(line), role)) == real


REAL_LEAVES = {
    (ProductLine.MILAN, VekKind.VCEK): "milan-v5-gcp/vcek.der",
    (ProductLine.GENOA, VekKind.VCEK): "genoa-v5-a/vcek.der",
    (ProductLine.TURIN, VekKind.VCEK): "turin-v5-oak/vcek.der",
    (ProductLine.MILAN, VekKind.VLEK): "milan-vlek-v3-aws-us-east-2/vlek.der",
}


def leaf_profile(certificate: x509.Certificate) -> dict[str, object]:
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    extensions: list[tuple[str, bool, object]] = []
    for extension in certificate.extensions:
        assert isinstance(extension.value, x509.UnrecognizedExtension)
        name = extension.oid.dotted_string.removeprefix(AMD)
        raw = extension.value.value
        # SPLs and the provider's name differ in value, so only their ASN.1 type is compared
        known: object = raw if name in (".1", ".2") else len(raw) if name == ".4" else raw[0]
        extensions.append((name, extension.critical, known))
    pss = certificate.signature_algorithm_parameters
    assert isinstance(pss, padding.PSS)
    return {
        "version": certificate.version,
        "curve": key.curve.name,
        "signature": certificate.signature_algorithm_oid,
        "salt": pss._salt_length,
        "subject": [(a.oid, a._type) for a in certificate.subject],
        "subject_cn": certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value,
        "issuer_cn": certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value,
        "extensions": extensions,
    }


@pytest.mark.parametrize(("line", "kind"), REAL_LEAVES)
def test_leaves_have_amds_profile(
    authority_of: AuthorityOf, vectors: Path, line: ProductLine, kind: VekKind
) -> None:
    real = load_certificate((vectors / REAL_LEAVES[line, kind]).read_bytes(), "real leaf")
    ours = authority_of(line).issue_vek(vek_request(kind, line))
    assert leaf_profile(ours) == leaf_profile(real)
    # the one departure: cryptography's builder refuses AMD's serial number
    assert (serial_number(real), ours.serial_number) == (0, 1)


def test_leaf_values(milan: CertificateAuthority) -> None:
    leaf = milan.issue_vek(vek_request())

    def value(suffix: str) -> bytes:
        oid = x509.ObjectIdentifier(AMD + suffix)
        extension = leaf.extensions.get_extension_for_oid(oid).value
        assert isinstance(extension, x509.UnrecognizedExtension)
        return extension.value

    assert value(".1") == bytes.fromhex("020100")
    assert value(".2") == b"\x16\x08Milan-B0"
    assert value(".3.1") == bytes.fromhex("020104")
    assert value(".3.3") == bytes.fromhex("02011d")
    assert value(".3.8") == bytes.fromhex("020200de")  # from 128 on, DER needs another octet
    assert value(".4") == bytes(range(64))
    leaf = milan.issue_vek(vek_request(VekKind.VLEK))
    assert value(".2") == b"\x16\x05Milan"
    assert value(".5") == b"\x16\x17CN=cc.simulated.invalid"


def test_leaves_are_issued_by_the_intermediate_of_their_kind(milan: CertificateAuthority) -> None:
    vcek, vlek = milan.issue_vek(vek_request()), milan.issue_vek(vek_request(VekKind.VLEK))
    vcek.verify_directly_issued_by(milan.ask)
    vlek.verify_directly_issued_by(milan.asvk)
    milan.ask.verify_directly_issued_by(milan.ark)
    milan.asvk.verify_directly_issued_by(milan.ark)
    with pytest.raises(ValueError, match="does not match"):
        vcek.verify_directly_issued_by(milan.asvk)


def test_every_leaf_has_other_bytes_but_the_same_key(milan: CertificateAuthority) -> None:
    one, other = milan.issue_vek(vek_request()), milan.issue_vek(vek_request())
    assert one != other
    assert one.public_key() == other.public_key()


def test_everything_says_simulated(milan: CertificateAuthority) -> None:
    crl = milan.issue_crl(CrlRequest(this_update=NOW, next_update=NOW + timedelta(days=1)))
    leaf = milan.issue_vek(vek_request())
    for name in (milan.ark.subject, milan.ask.subject, milan.asvk.subject, leaf.subject, crl.issuer):
        assert name.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "svsm-attest SIMULATED"


def test_validity_counts_from_the_day_before(milan: CertificateAuthority) -> None:
    now = datetime.now(UTC)
    for certificate in (milan.ark, milan.ask, milan.asvk):
        start = certificate.not_valid_before_utc
        assert timedelta(days=1) <= now - start < timedelta(days=1, hours=1)
        assert certificate.not_valid_after_utc - start == timedelta(days=25 * 365 + 6)


def test_crl_profile(milan: CertificateAuthority, vectors: Path) -> None:
    real = load_crl((vectors / "crl" / "milan-vcek-crl-2023.der").read_bytes(), "real CRL")
    later = NOW + timedelta(days=1)
    ours = milan.issue_crl(CrlRequest(this_update=NOW, next_update=later, revoked=(0x10001, 0x10101)))
    assert ours.signature_algorithm_oid == real.signature_algorithm_oid
    assert [extension.oid for extension in ours.extensions] == [
        extension.oid for extension in real.extensions
    ]
    assert {extension.critical for extension in ours.extensions} == {False}
    identifier = ours.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert identifier == milan.ark.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert {revoked.serial_number for revoked in ours} == {0x10001, 0x10101}
    assert (ours.last_update_utc, ours.next_update_utc) == (NOW, later)
    key = milan.ark.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert ours.is_signature_valid(key)


def test_later_crls_have_higher_numbers(milan: CertificateAuthority) -> None:
    def number(at: datetime) -> int:
        crl = milan.issue_crl(CrlRequest(this_update=at, next_update=at + timedelta(days=1)))
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

    assert number(NOW) < number(NOW + timedelta(seconds=1))


def test_serials_are_those_of_the_intermediates(milan: CertificateAuthority) -> None:
    assert milan.intermediate_serials == (milan.ask.serial_number, milan.asvk.serial_number)


def test_the_certificates_outlive_the_process(milan: CertificateAuthority, vault: Vault) -> None:
    assert vault.directory is not None
    again = CertificateAuthority(ProductLine.MILAN, Vault(vault.directory))
    assert (again.ark, again.ask, again.asvk) == (milan.ark, milan.ask, milan.asvk)


def test_a_pkcs1_leaf_is_only_made_on_purpose(milan: CertificateAuthority) -> None:
    leaf = milan.issue_vek(replace(vek_request(), pss=False))
    assert isinstance(leaf.signature_algorithm_parameters, padding.PKCS1v15)
    leaf.verify_directly_issued_by(milan.ask)


def test_certificates_of_two_authorities_do_not_mix(
    milan: CertificateAuthority, authority_of: AuthorityOf, vault: Vault, tmp_path: Path
) -> None:
    assert vault.directory is not None
    genoa = authority_of(ProductLine.GENOA)
    write_pem(tmp_path / "SIMULATED-ARK-Milan.cert.pem", genoa.ark)
    write_pem(tmp_path / "SIMULATED-SEV-Milan.cert.pem", milan.ask)
    with pytest.raises(BackendError, match="not of this authority"):
        _ = CertificateAuthority(ProductLine.MILAN, Vault(tmp_path)).ask


def test_key_and_certificate_do_not_mix(milan: CertificateAuthority, vault: Vault, tmp_path: Path) -> None:
    assert vault.directory is not None
    for name, certificate in (("ARK-Milan", milan.ark), ("SEV-Milan", milan.ask)):
        write_pem(tmp_path / f"SIMULATED-{name}.cert.pem", certificate)
    key = (vault.directory / "SIMULATED-ARK-Milan.key.pem").read_bytes()
    (tmp_path / "SIMULATED-SEV-Milan.key.pem").write_bytes(key)
    with pytest.raises(BackendError, match="do not belong together"):
        CertificateAuthority(ProductLine.MILAN, Vault(tmp_path)).issue_vek(vek_request())
