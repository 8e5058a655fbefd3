"""The certificate of a vTPM's endorsement key, as a manufacturer gives one to a TPM it made.

An SVSM makes its vTPM's EK itself, so no manufacturer vouches for it. Whoever has verified the report
that binds the EK can do so instead.
Source: TCG EK Credential Profile for TPM Family 2.0, certificate fields, as swtpm_cert writes them.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat import asn1

from app.trust.tpm_key import public_key
from app.wire.tpm import algorithms as alg

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from app.wire.tpm.public import TpmtPublic

EK_USAGE = x509.ObjectIdentifier("2.23.133.8.1")  # tcg-kp-EKCertificate
TPM_MANUFACTURER = x509.ObjectIdentifier("2.23.133.2.1")
TPM_MODEL = x509.ObjectIdentifier("2.23.133.2.2")
TPM_VERSION = x509.ObjectIdentifier("2.23.133.2.3")
TPM_SPECIFICATION = x509.ObjectIdentifier("2.23.133.2.16")
_SUBJECT_DIRECTORY_ATTRIBUTES = x509.ObjectIdentifier("2.5.29.9")
_FAMILY = "2.0"
_LEVEL = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmModel:
    """What the issuer calls the TPM. Nothing here comes from the TPM itself or from its guest."""

    manufacturer: str  # `id:` and TPM_PT_MANUFACTURER, eight hexadecimal digits
    model: str
    version: str  # `id:` and the firmware version, eight hexadecimal digits
    revision: int  # of the TPM 2.0 Library specification, times a hundred: 164 is 1.64


@dataclass(frozen=True, slots=True, kw_only=True)
class EkStatement:
    """What an EK certificate is to say."""

    ek: "TpmtPublic"
    tpm: TpmModel
    not_before: "datetime"
    not_after: "datetime"


def ek_certificate_builder(statement: EkStatement) -> x509.CertificateBuilder:
    """The certificate but for issuer and signature: a random serial number of 20 bytes, an empty subject.

    Raises:
        WireError: the EK is no public key, which `TpmtPublic.parse` refuses already.
    """
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .public_key(public_key(statement.ek))
        .serial_number(x509.random_serial_number())
        .not_valid_before(statement.not_before)
        .not_valid_after(statement.not_after)
    )
    for extension, critical in _extensions(statement):
        builder = builder.add_extension(extension, critical=critical)
    return builder


def _extensions(statement: EkStatement) -> "Iterator[tuple[x509.ExtensionType, bool]]":
    """Each extension with its critical flag."""
    yield x509.BasicConstraints(ca=False, path_length=None), True
    yield _key_usage(statement.ek), True
    yield x509.ExtendedKeyUsage([EK_USAGE]), False
    # With no subject, this is the only name: RFC 5280, 4.2.1.6 wants it critical.
    yield x509.SubjectAlternativeName([x509.DirectoryName(_name(statement.tpm))]), True
    attributes = asn1.encode_der(_attributes(statement.tpm))
    yield x509.UnrecognizedExtension(_SUBJECT_DIRECTORY_ATTRIBUTES, attributes), False


def _name(tpm: TpmModel) -> x509.Name:
    parts = ((TPM_MANUFACTURER, tpm.manufacturer), (TPM_MODEL, tpm.model), (TPM_VERSION, tpm.version))
    # Three names of one attribute each, not one name of three; all of them are UTF8String.
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def _key_usage(ek: "TpmtPublic") -> x509.KeyUsage:
    """An RSA EK deciphers a seed, an ECC EK agrees on one."""
    is_rsa = ek.key.type == alg.RSA
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=is_rsa,
        data_encipherment=False,
        key_agreement=not is_rsa,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


@asn1.sequence
class _Specification:
    """TPMSpecification."""

    family: str
    level: int
    revision: int


@asn1.sequence
class _Attribute:
    """Attribute (RFC 5280, appendix A)."""

    type: x509.ObjectIdentifier
    values: asn1.SetOf[_Specification]


@asn1.sequence
class _Attributes:
    """SubjectDirectoryAttributes (RFC 5280, 4.2.1.8), with the one attribute that there is."""

    tpm_specification: _Attribute


def _attributes(tpm: TpmModel) -> _Attributes:
    specification = _Specification(family=_FAMILY, level=_LEVEL, revision=tpm.revision)
    attribute = _Attribute(type=TPM_SPECIFICATION, values=asn1.SetOf([specification]))
    return _Attributes(tpm_specification=attribute)
