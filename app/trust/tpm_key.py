"""A TPM's public area as a key that other software can use."""

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.errors import WireError
from app.wire.tpm.public import EXPONENT, STRUCTURE, EccKey

if TYPE_CHECKING:
    from app.wire.tpm.public import TpmtPublic

_CURVES: dict[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1()}


def public_key(tpmt: "TpmtPublic") -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    """The key in a parsed TPMT_PUBLIC.

    Raises:
        WireError: numbers that are no key, which `TpmtPublic.parse` refuses already.
    """
    key = tpmt.key
    try:
        if isinstance(key, EccKey):
            return ec.EllipticCurvePublicNumbers(key.x, key.y, _CURVES[key.curve.name]).public_key()
        return rsa.RSAPublicNumbers(EXPONENT, key.modulus).public_key()
    except ValueError as error:
        raise WireError(STRUCTURE, 0, f"not a public key: {error}") from error


def spki(tpmt: "TpmtPublic") -> bytes:
    """The key as a SubjectPublicKeyInfo, DER (RFC 5280, 4.1.2.7).

    Raises:
        WireError: as `public_key`.
    """
    return public_key(tpmt).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def pem(tpmt: "TpmtPublic") -> str:
    """The key as PEM ("PUBLIC KEY", RFC 7468).

    Raises:
        WireError: as `public_key`.
    """
    return public_key(tpmt).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")
