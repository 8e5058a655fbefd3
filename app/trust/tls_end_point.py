"""The channel binding that a TLS server's certificate gives.

Whoever holds the private key of that certificate is the end of the channel: a client that binds its
session to the certificate it sees, and evidence that is bound to the certificate the attester serves,
agree only where nobody sits between the two.
Source: RFC 5929, 4.1 (tls-server-end-point).
"""

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from app.errors import CertificateError
from app.wire.session import Channel, ChannelType

_REPLACED = {"md5", "sha1"}
_SOURCE = "TLS certificate"


def server_end_point(pem: bytes) -> Channel:
    """The channel of a server that presents the first certificate of a PEM file.

    The digest is by the hash of the certificate's signature, and by SHA-256 where that is MD5 or SHA-1.

    Raises:
        CertificateError: no certificate, or one whose signature has no hash of its own (Ed25519,
            Ed448), for which the RFC defines no binding.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        algorithm = certificate.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(_SOURCE, f"not a certificate in PEM: {error}") from error
    if algorithm is None:
        raise CertificateError(
            _SOURCE, "its signature has no hash of its own, so that RFC 5929 defines no end point for it"
        )
    if algorithm.name in _REPLACED:
        algorithm = hashes.SHA256()
    return Channel(ChannelType.TLS_SERVER_END_POINT, certificate.fingerprint(algorithm))
