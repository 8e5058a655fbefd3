"""Reading certificates and CRLs: bytes in, an X.509 object or one CertificateError out.

This is the one place that deals with the serial number 0 of every AMD leaf: cryptography warns
about it (silenced here, and only here) and announces to refuse it (`serial_zero` is the way out).
"""

import base64
import binascii
import re
import warnings
from contextlib import contextmanager
from functools import lru_cache
from hashlib import sha256
from threading import Lock
from typing import TYPE_CHECKING, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from app.errors import CertificateError
from app.trust.memo import Memo
from app.trust.serial_zero import SerialZeroCertificate

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_CERTIFICATE_SIZE = 64 * 1024
MAX_CRL_SIZE = 1024 * 1024
MAX_BUNDLE_SIZE = 1024 * 1024
MAX_BUNDLE_CERTIFICATES = 64

_PEM_PREFIX = b"-----BEGIN"
_PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----([A-Za-z0-9+/=\s]*)-----END \1-----")
_CERTIFICATE_LABEL = b"CERTIFICATE"
_CRL_LABEL = b"X509 CRL"
# TypeError: a BIT STRING inside a name, which cryptography takes for a caller's mistake.
_UNREADABLE = (ValueError, TypeError, x509.InvalidVersion)

# Parsed objects keep what they decoded, so the same bytes are not decoded twice. AMD's certificates
# have less than 2 KiB: larger ones are somebody else's and are not worth remembering.
_REMEMBERED_SIZE = 4096
_parsed: Memo[bytes, x509.Certificate] = Memo(256)

_warning_filters = Lock()


@contextmanager
def _without_warnings() -> "Iterator[None]":
    # cryptography warns of serial number 0 and of lengths in names, both of which are judged here.
    # The list of warning filters belongs to the process: one thread at a time may exchange it.
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load_certificate(raw: bytes, source: str) -> x509.Certificate:
    """Read exactly one certificate, DER or PEM, of at most 64 KiB.

    Args:
        raw: the bytes; PEM is told by its first characters.
        source: where the bytes came from, for the error.

    Raises:
        CertificateError: not a certificate, more than one, or anything beside it.
    """
    _demand_size(raw, MAX_CERTIFICATE_SIZE, source)
    if not is_pem(raw):
        return _load_der(raw, source)
    blocks = _pem_blocks(raw, _CERTIFICATE_LABEL, source)
    if len(blocks) != 1:
        raise CertificateError(source, f"{len(blocks)} certificates, want one")
    return _load_der(blocks[0], source)


def load_certificates(raw: bytes, source: str) -> tuple[x509.Certificate, ...]:
    """Read one DER certificate, or a PEM bundle of at most 64 certificates and 1 MiB.

    Raises:
        CertificateError: not certificates, or anything beside them.
    """
    if not is_pem(raw):
        return (load_certificate(raw, source),)
    _demand_size(raw, MAX_BUNDLE_SIZE, source)
    blocks = _pem_blocks(raw, _CERTIFICATE_LABEL, source)
    if len(blocks) > MAX_BUNDLE_CERTIFICATES:
        raise CertificateError(source, f"{len(blocks)} certificates, at most {MAX_BUNDLE_CERTIFICATES}")
    return tuple(_load_der(block, f"{source}, certificate {n}") for n, block in enumerate(blocks, start=1))


def load_crl(raw: bytes, source: str) -> x509.CertificateRevocationList:
    """Read exactly one CRL, DER or PEM, of at most 1 MiB.

    Raises:
        CertificateError: not a CRL, or anything beside it.
    """
    _demand_size(raw, MAX_CRL_SIZE, source)
    if is_pem(raw):
        blocks = _pem_blocks(raw, _CRL_LABEL, source)
        if len(blocks) != 1:
            raise CertificateError(source, f"{len(blocks)} CRLs, want one")
        raw = blocks[0]
    try:
        with _without_warnings():
            crl = x509.load_der_x509_crl(raw)
            _ = (crl.issuer, crl.last_update_utc, crl.next_update_utc, crl.extensions)
    except (*_UNREADABLE, x509.DuplicateExtension) as error:
        raise CertificateError(source, f"not a CRL: {error}") from error
    return crl


def is_pem(raw: bytes) -> bool:
    """Is this text with PEM blocks in it (RFC 7468), rather than DER?"""
    return raw.lstrip().startswith(_PEM_PREFIX)


def is_crl_pem(raw: bytes) -> bool:
    """Does this text say that it is a CRL?"""
    return raw.lstrip().startswith(b"-----BEGIN " + _CRL_LABEL)


def serial_number(certificate: x509.Certificate) -> int:
    """The serial number; 0 for every AMD leaf, which cryptography would warn about."""
    with _without_warnings():
        return certificate.serial_number


def extensions_of(certificate: x509.Certificate) -> x509.Extensions:
    """The extensions, each of which occurs once.

    Raises:
        ValueError: one occurs twice or cannot be read; the message is a clause about the certificate.
    """
    try:
        with _without_warnings():
            return certificate.extensions
    except x509.DuplicateExtension as error:
        raise ValueError(f"its extension {error.oid.dotted_string} occurs twice") from error
    except _UNREADABLE as error:
        raise ValueError(f"its extensions cannot be read: {error}") from error


def der(signed: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    """The DER encoding."""
    return signed.public_bytes(serialization.Encoding.DER)


@lru_cache(maxsize=256)
def certificate_digest(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER encoding, in hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def crl_digest(crl: x509.CertificateRevocationList) -> str:
    """SHA-256 of the DER encoding, in hex."""
    return crl.fingerprint(hashes.SHA256()).hex()


@lru_cache(maxsize=256)
def key_digest(certificate: x509.Certificate) -> str:
    """SHA-256 of the SubjectPublicKeyInfo, in hex.

    Raises:
        ValueError, cryptography.exceptions.UnsupportedAlgorithm: a key that cannot be read.
    """
    spki = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return sha256(spki).hexdigest()


def _load_der(raw: bytes, source: str) -> x509.Certificate:
    _demand_size(raw, MAX_CERTIFICATE_SIZE, source)
    key = sha256(raw).digest()
    certificate = _parsed.get(key)
    if certificate is None:
        try:
            with _without_warnings():
                certificate = _parse(raw)
                # These are decoded when first asked for; what cannot be decoded is no certificate.
                _ = (certificate.subject, certificate.issuer)
                _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
        except _UNREADABLE as error:
            raise CertificateError(source, f"not a certificate: {error}") from error
        if len(raw) <= _REMEMBERED_SIZE:
            _parsed.put(key, certificate)
    return certificate


def _parse(raw: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(raw)
    except ValueError as refusal:
        try:
            return cast("x509.Certificate", SerialZeroCertificate(raw))
        except _UNREADABLE:
            raise refusal from None


def _pem_blocks(raw: bytes, label: bytes, source: str) -> list[bytes]:
    """The contents of the PEM blocks (RFC 7468), which must be all there is."""
    blocks = []
    for match in _PEM_BLOCK.finditer(raw):
        if match[1] != label:
            raise CertificateError(source, f"holds a {match[1].decode()}, want {label.decode()}")
        try:
            blocks.append(base64.b64decode(b"".join(match[2].split()), validate=True))
        except binascii.Error as error:
            raise CertificateError(source, f"PEM with invalid base64: {error}") from error
    if _PEM_BLOCK.sub(b"", raw).strip():
        raise CertificateError(source, "text beside the PEM blocks, or a block without its end")
    return blocks


def _demand_size(raw: bytes, limit: int, source: str) -> None:
    if len(raw) > limit:
        raise CertificateError(source, f"{len(raw)} bytes, at most {limit}")
