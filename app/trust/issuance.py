"""Who signed this, and with AMD's algorithm? For certificates and CRLs alike.

AMD's roots and intermediates sign with RSASSA-PSS with SHA-384, MGF1 with SHA-384 and 48 bytes
of salt, under RSA keys of 4096 bits with exponent 65537. The trailer field of the parameters is
written out in older certificates and left to its default in newer ones; both mean the same.
Source: AMD 57230 (VCEK certificate profile).
"""

from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import SignatureAlgorithmOID

from app.trust.certificates import der
from app.trust.names import common_name
from app.trust.problem import ChainFault

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

KEY_BITS = 4096
EXPONENT = 65537
SALT_SIZE = 48
_PARAMETERS = padding.PSS(padding.MGF1(hashes.SHA384()), SALT_SIZE)


@asn1.sequence
class _Signed:
    """What a certificate and a CRL have in common (RFC 5280, 4.1 and 5.1)."""

    content: asn1.TLV
    signature_algorithm: asn1.TLV
    signature: asn1.BitString


def key_fault(certificate: x509.Certificate) -> str | None:
    """What is wrong with this certificate's key, if it is to be an AMD authority's; None if nothing is."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        return f"its key cannot be read: {error}"
    if not isinstance(key, rsa.RSAPublicKey):
        return "its key is not an RSA key"
    if key.key_size != KEY_BITS or key.public_numbers().e != EXPONENT:
        return f"its key is RSA-{key.key_size}, want RSA-{KEY_BITS} with exponent {EXPONENT}"
    return None


def algorithm_fault(signed: x509.Certificate | x509.CertificateRevocationList) -> str | None:
    """What is wrong with the algorithm this was signed with; None if it is AMD's."""
    if signed.signature_algorithm_oid != SignatureAlgorithmOID.RSASSA_PSS:
        return "it is not signed with RSASSA-PSS"
    try:
        digest, parameters = signed.signature_hash_algorithm, signed.signature_algorithm_parameters
    except (ValueError, UnsupportedAlgorithm) as error:
        return f"its signature algorithm cannot be read: {error}"
    if not isinstance(digest, hashes.SHA384) or parameters != _PARAMETERS:
        return f"it is not signed with SHA-384, MGF1 with SHA-384 and {SALT_SIZE} bytes of salt"
    if asn1.decode_der(_Signed, der(signed)).signature.padding_bits():
        # No signature covers the count of unused bits: accepting one would let the bytes be altered.
        return "its signature is not a whole number of bytes"
    return None


def issue_faults(
    certificate: x509.Certificate, issuer: x509.Certificate | None
) -> "Iterator[tuple[ChainFault, str]]":
    """Every reason why this certificate is not known to be signed by this issuer; empty if it is.

    Judges names, algorithms and the signature; neither validity nor what the issuer may do.
    """
    algorithm = algorithm_fault(certificate)
    if algorithm is not None:
        yield ChainFault.ALGORITHM, algorithm
    named = common_name(certificate.issuer)
    if issuer is None:
        yield ChainFault.ISSUER, f"no certificate of its issuer, {named}, was offered"
        return
    if certificate.issuer.public_bytes() != issuer.subject.public_bytes():
        yield ChainFault.ISSUER, f"its issuer is {named}, but {common_name(issuer.subject)} was offered"
        return
    key = key_fault(issuer)
    if key is not None:
        yield ChainFault.SIGNATURE, "its signature cannot be checked with the key of its issuer"
    if algorithm is not None or key is not None:
        return
    try:
        certificate.verify_directly_issued_by(issuer)
    except InvalidSignature:
        yield ChainFault.SIGNATURE, f"it was not signed by the key of {named}"
    except ValueError:  # the names are equal, so it is the other thing that is compared
        yield ChainFault.ALGORITHM, "the signature algorithm inside it is not the one outside"


@lru_cache(maxsize=256)
def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Do names, algorithm and signature all hold? Remembers its last answers."""
    return not any(issue_faults(certificate, issuer))


def find_issuer(
    certificate: x509.Certificate, candidates: "Iterable[x509.Certificate]"
) -> x509.Certificate | None:
    """The candidate that issued it; else the first that has its issuer's name; else None.

    There may be several of a name: AMD withdrew an ASK and issued another one under the same name.
    """
    named = [candidate for candidate in candidates if candidate.subject == certificate.issuer]
    if len(named) <= 1:
        return named[0] if named else None
    return next((one for one in named if is_issued_by(certificate, one)), named[0])
