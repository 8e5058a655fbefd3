"""A TPM's public area as a key that other software can use."""

from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.errors import WireError
from app.wire.tpm import algorithms as alg
from app.wire.tpm.public import EXPONENT, STRUCTURE, EccKey
from app.wire.tpm.signature import EcdsaSignature, RsaSignature

if TYPE_CHECKING:
    from app.wire.tpm.public import TpmtPublic
    from app.wire.tpm.signature import TpmtSignature

HASHES: dict[int, hashes.HashAlgorithm] = {
    alg.SHA256: hashes.SHA256(),
    alg.SHA384: hashes.SHA384(),
    alg.SHA512: hashes.SHA512(),
}
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


def verify_attest(public: "TpmtPublic", signature: "TpmtSignature", message: bytes) -> bool:
    """Did this key sign this message, with the scheme and hash that are its own?

    False for a key without a scheme, and for a signature of another kind: the key's public area says
    how it signs, and nobody else may choose.

    Raises:
        WireError: as `public_key`.
    """
    if (signature.scheme, signature.hash_alg) != (public.scheme, public.scheme_hash):
        return False
    key, hashed = public_key(public), HASHES[signature.hash_alg]
    try:
        if isinstance(key, rsa.RSAPublicKey) and isinstance(signature, RsaSignature):
            key.verify(signature.signature, message, _rsa_padding(signature, hashed), hashed)
            return True
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(signature, EcdsaSignature):
            r, s = (int.from_bytes(part, "big") for part in (signature.r, signature.s))
            key.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(hashed))
            return True
    except InvalidSignature:
        pass
    return False


def _rsa_padding(signature: RsaSignature, hashed: hashes.HashAlgorithm) -> padding.PKCS1v15 | padding.PSS:
    if signature.scheme == alg.RSASSA:
        return padding.PKCS1v15()
    # TPMs differ in the length of the salt: as much as fits, or as much as the hash has
    return padding.PSS(padding.MGF1(hashed), padding.PSS.AUTO)
