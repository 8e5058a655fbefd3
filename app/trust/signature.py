"""The signature of an attestation report: ECDSA on P-384 with SHA-384 over its first 672 bytes.

Source: AMD 56860 (SEV-SNP Firmware ABI), ATTESTATION_REPORT and its SIGNATURE.
"""

from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

if TYPE_CHECKING:
    from cryptography import x509

    from app.wire.report import AttestationReport


def verify_report_signature(report: "AttestationReport", leaf: "x509.Certificate") -> bool:
    """Did the key of this leaf sign this report?

    False for every other kind of key and for an R or S that P-384 has no room for. Neither the
    512 bytes of the signature nor a digest of the whole report identify a report: (R, n-S) is a
    second valid signature.
    """
    try:
        key = leaf.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False
    if not (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1)):
        return False
    signature = utils.encode_dss_signature(report.signature.r, report.signature.s)
    try:
        key.verify(signature, report.signed_bytes, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return True
