"""Certificates with serial number 0, should `cryptography` one day refuse to read them.

Every VCEK and VLEK has serial number 0. cryptography 50 reads them with a warning and announces
that a later release will not. This is the way out: a stand-in with serial number 1 is parsed for
its fields, while everything that depends on the bytes (digests, equality, the signed part) uses
the original, so that what is verified is what was signed.
"""

import contextlib
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes, serialization

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import rsa


@asn1.sequence
class _TbsCertificate:
    """RFC 5280, 4.1: the signed part of a version 3 certificate without unique identifiers."""

    version: Annotated[int, asn1.Explicit(0)]
    serial_number: int
    signature: asn1.TLV
    issuer: asn1.TLV
    validity: asn1.TLV
    subject: asn1.TLV
    subject_public_key_info: asn1.TLV
    extensions: Annotated[asn1.TLV, asn1.Explicit(3)]


@asn1.sequence
class _Certificate:
    tbs_certificate: _TbsCertificate
    signature_algorithm: asn1.TLV
    signature: asn1.BitString


class SerialZeroCertificate:
    """Stands where an `x509.Certificate` stands, for DER with serial number 0.

    Raises:
        ValueError: on construction, if this is no version 3 certificate with serial number 0.
    """

    serial_number = 0

    def __init__(self, der: bytes) -> None:
        parsed = asn1.decode_der(_Certificate, der)
        if parsed.tbs_certificate.serial_number != 0:
            raise ValueError("the serial number is not 0")
        self.tbs_certificate_bytes = asn1.encode_der(parsed.tbs_certificate)
        renumbered = replace(parsed, tbs_certificate=replace(parsed.tbs_certificate, serial_number=1))
        self._stand_in = x509.load_der_x509_certificate(asn1.encode_der(renumbered))
        self._der = der

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stand_in, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SerialZeroCertificate) and self._der == other._der

    def __hash__(self) -> int:
        return hash(self._der)

    def public_bytes(self, encoding: serialization.Encoding) -> bytes:
        """The original bytes, as DER or PEM."""
        if encoding is serialization.Encoding.PEM:
            return ssl.DER_cert_to_PEM_cert(self._der).encode("ascii")
        return self._der

    def fingerprint(self, algorithm: hashes.HashAlgorithm) -> bytes:
        """The digest of the original DER."""
        digest = hashes.Hash(algorithm)
        digest.update(self._der)
        return digest.finalize()

    def verify_directly_issued_by(self, issuer: x509.Certificate) -> None:
        """As in `x509.Certificate`, for an issuer with an RSA key.

        Raises:
            ValueError: the names or the two signature algorithms do not agree.
            InvalidSignature: the issuer did not sign the original bytes.
        """
        with contextlib.suppress(InvalidSignature):  # nobody signed the stand-in
            self._stand_in.verify_directly_issued_by(issuer)  # judges names and algorithms first
        key: rsa.RSAPublicKey = issuer.public_key()  # type: ignore[assignment]
        key.verify(
            self._stand_in.signature,
            self.tbs_certificate_bytes,
            self._stand_in.signature_algorithm_parameters,  # type: ignore[arg-type]
            self._stand_in.signature_hash_algorithm,  # type: ignore[arg-type]
        )
