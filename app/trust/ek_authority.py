"""Whoever vouches for endorsement keys: a key, and the certificate that relying parties hold.

The key is as powerful as that of a TPM manufacturer for whoever trusts the certificate. It signs with
ECDSA on P-256 or P-384, or RSASSA-PKCS1-v1_5: what every reader of EK certificates verifies, which
Keylime does not for RSASSA-PSS and Ed25519.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Self, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID, PublicKeyAlgorithmOID, SignatureAlgorithmOID

from app.errors import CertificateError
from app.trust.certificates import extensions_of, load_certificate
from app.trust.names import common_name

if TYPE_CHECKING:
    from collections.abc import Iterator

SIMULATED = "SIMULATED"
_MIN_RSA_BITS = 2048
_CURVES: "dict[str, _Hash]" = {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384()}
_BACKDATING = timedelta(minutes=5)

_Hash: TypeAlias = hashes.SHA256 | hashes.SHA384
_Key: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class CaAlgorithm(StrEnum):
    """What kind of key a new authority gets."""

    P384 = "p384"
    P256 = "p256"
    RSA3072 = "rsa3072"

    def new_key(self) -> _Key:
        """A fresh key. RSA takes up to a second."""
        if self is CaAlgorithm.RSA3072:
            return rsa.generate_private_key(65537, 3072)
        return ec.generate_private_key(ec.SECP384R1() if self is CaAlgorithm.P384 else ec.SECP256R1())


@dataclass(frozen=True, slots=True)
class EkAuthority:
    """A certificate authority for EKs, whose key and certificate fit each other and the purpose."""

    certificate: x509.Certificate
    _key: _Key = field(repr=False)

    @property
    def name(self) -> str:
        """The common name, or the whole name where there is none."""
        subject = self.certificate.subject
        return common_name(subject) or subject.rfc4514_string()

    @property
    def simulated(self) -> bool:
        """Is it for simulated evidence, and for nothing else? Its name begins with SIMULATED."""
        return self.name.startswith(SIMULATED)

    def __str__(self) -> str:
        return f"{self.name}, valid until {self.certificate.not_valid_after_utc:%Y-%m-%d}"

    def is_valid(self, at: datetime) -> bool:
        """Is the certificate valid at that time?"""
        return self.certificate.not_valid_before_utc <= at <= self.certificate.not_valid_after_utc

    @classmethod
    def create(
        cls, *, name: str | None, simulated: bool, algorithm: CaAlgorithm, at: datetime, lifetime: timedelta
    ) -> Self:
        """A new key with a certificate that it signs itself.

        Args:
            name: the common name, of at most 64 characters with the word SIMULATED; None makes one that
                no other authority has, so that an old one and its successor can be told apart.
            simulated: have the name begin with SIMULATED.
            algorithm: of the key.
            at: the time from which it is valid (less five minutes).
            lifetime: until it is not.

        Raises:
            ValueError: a name that is too long.
        """
        key = algorithm.new_key()
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        name = name or f"svsm-attest EK CA {identifier.digest[:4].hex()}"
        subject = x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, f"{SIMULATED} {name}" if simulated else name)]
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(at - _BACKDATING)
            .not_valid_after(at + lifetime)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_signs_certificates(), critical=True)
            .add_extension(identifier, critical=False)
        )
        return cls(builder.sign(key, _hash_of(key)), key)

    @classmethod
    def load(cls, certificate: bytes, key: bytes, *, certificate_source: str, key_source: str) -> Self:
        """Read one certificate (PEM or DER) and its key (PEM, PKCS #8 or older, not encrypted).

        Args:
            certificate: the bytes of the certificate's file.
            key: those of the key's.
            certificate_source: what errors call the one.
            key_source: what errors call the other.

        Raises:
            CertificateError: not what they are to be, not of each other, of an algorithm that readers of
                EK certificates do not verify, or a certificate that may not sign others.
        """
        found = load_certificate(certificate, certificate_source)
        faults = "; ".join(_faults(found))
        if faults:
            raise CertificateError(certificate_source, faults)
        private = _load_key(key, key_source)
        if private.public_key() != found.public_key():
            raise CertificateError(key_source, f"it is not the key of {certificate_source}")
        return cls(found, private)

    def key_pem(self) -> bytes:
        """The key, PKCS #8, not encrypted: for a file that nobody else can read."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        """The certificate that lacked only its issuer."""
        certificate = (
            builder.issuer_name(self.certificate.subject)
            .add_extension(self._key_identifier(), critical=False)
            .sign(self._key, _hash_of(self._key))
        )
        certificate.verify_directly_issued_by(self.certificate)
        return certificate

    def _key_identifier(self) -> x509.AuthorityKeyIdentifier:
        for extension in extensions_of(self.certificate):
            if isinstance(extension.value, x509.SubjectKeyIdentifier):
                return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(extension.value)
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())


def _hash_of(key: _Key) -> _Hash:
    return _CURVES[key.curve.name] if isinstance(key, ec.EllipticCurvePrivateKey) else hashes.SHA256()


def _load_key(raw: bytes, source: str) -> _Key:
    try:
        key = serialization.load_pem_private_key(raw, password=None)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(source, "not a private key in PEM") from error
    except TypeError as error:
        raise CertificateError(source, "the key is encrypted; want it bare, in a file of its own") from error
    if not isinstance(key, _Key):
        raise CertificateError(source, "neither an EC nor an RSA key")
    return key


def _faults(certificate: x509.Certificate) -> "Iterator[str]":
    """Everything that keeps this certificate from being an EK authority's."""
    if not certificate.subject.rdns:
        yield "it has no subject, so that nothing could name it as issuer"
    oids = (certificate.public_key_algorithm_oid, certificate.signature_algorithm_oid)
    if oids[0] == PublicKeyAlgorithmOID.RSASSA_PSS or oids[1] == SignatureAlgorithmOID.RSASSA_PSS:
        yield "it is for RSASSA-PSS, which not every reader of EK certificates verifies"
    else:
        yield from _key_faults(certificate)
    try:
        extensions = extensions_of(certificate)
    except ValueError as error:
        yield str(error)
        return
    values = {type(extension.value): extension.value for extension in extensions}
    constraints = values.get(x509.BasicConstraints)
    if not (isinstance(constraints, x509.BasicConstraints) and constraints.ca):
        yield "it is no CA certificate (basicConstraints)"
    usage = values.get(x509.KeyUsage)
    if not (isinstance(usage, x509.KeyUsage) and usage.key_cert_sign):
        yield "it may not sign certificates (keyUsage)"


def _key_faults(certificate: x509.Certificate) -> "Iterator[str]":
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        yield f"its key cannot be read: {error}"
        return
    match key:
        case ec.EllipticCurvePublicKey():
            if key.curve.name not in _CURVES:
                yield f"its key is on {key.curve.name}, want P-256 or P-384"
        case rsa.RSAPublicKey():
            if key.key_size < _MIN_RSA_BITS:
                yield f"its key is RSA-{key.key_size}, want RSA-{_MIN_RSA_BITS} or longer"
        case _:
            yield "its key is neither EC nor RSA, which not every reader of EK certificates verifies"


def _signs_certificates() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
