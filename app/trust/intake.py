"""What may enter the endorsement store: that which verifies, and nothing else.

Validity is not asked for: an appraisal may be of a time at which a certificate was valid.
"""

from typing import TYPE_CHECKING

from app.errors import CertificateError, ConfigError
from app.trust.chain import UNTIMELY, authority_problems, verify_chain
from app.trust.crl import crl_fault
from app.trust.issuance import find_issuer
from app.trust.names import VekKind, common_name
from app.trust.vek import read_vek

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography import x509

    from app.trust.offered import OfferedEndorsements
    from app.trust.roots import TrustRoots
    from app.trust.store import EndorsementStore, StoredEntry


def import_endorsements(
    store: "EndorsementStore", offered: "OfferedEndorsements", roots: "TrustRoots", at: "datetime"
) -> "tuple[StoredEntry, ...]":
    """Put certificates and CRLs into the store: all of them, or none if one does not verify.

    The authorities that they need may be among them or in the store already.

    Raises:
        CertificateError: one that does not lead to a root in force, a CRL of another issuer, or a
            VLEK certificate, which has no place in a store: it comes with the evidence.
        ConfigError: the store cannot be written.
    """
    known = (*offered.roots, *offered.intermediates, *roots.certificates, *store.authorities())
    trusted = tuple(one for one in dict.fromkeys(known) if roots.match(one))
    for root in offered.roots:
        if root not in trusted:
            raise CertificateError(_name(root), "it is not a root that is trusted here")
    for intermediate in offered.intermediates:
        _demand_authority(intermediate, trusted, roots)
    for leaf in offered.leaves:
        _demand_vcek(leaf, known, roots, at)
    signers = [_signer(crl, trusted) for crl in offered.crls]
    try:
        paths = [store.keep_authority(one) for one in (*offered.roots, *offered.intermediates)]
        paths += [store.keep_vcek(read_vek(leaf)) for leaf in offered.leaves]
        for crl, root in zip(offered.crls, signers, strict=True):
            # A list does not say whether it was published for VCEKs or for VLEKs.
            paths += [store.keep_crl(crl, kind, root) for kind in VekKind]
    except OSError as error:
        raise ConfigError(f"endorsement store {store.path} cannot be written: {error.strerror}") from error
    return tuple(store.entry(path) for path in paths)


def _demand_authority(
    intermediate: "x509.Certificate", trusted: "tuple[x509.Certificate, ...]", roots: "TrustRoots"
) -> None:
    root = find_issuer(intermediate, trusted)
    if root is None:
        reason = f"no trusted certificate of its issuer, {common_name(intermediate.issuer)}, is at hand"
        raise CertificateError(_name(intermediate), reason)
    problems = authority_problems(intermediate, root, roots)
    if problems:
        raise CertificateError(_name(intermediate), "; ".join(map(str, problems)))


def _demand_vcek(
    leaf: "x509.Certificate", known: "tuple[x509.Certificate, ...]", roots: "TrustRoots", at: "datetime"
) -> None:
    if read_vek(leaf).kind is VekKind.VLEK:
        raise CertificateError("VLEK", "a VLEK certificate comes with the evidence and is not stored")
    intermediate = find_issuer(leaf, known)
    root = None if intermediate is None else find_issuer(intermediate, known)
    status = verify_chain(leaf, intermediate, root, roots, at)
    problems = [problem for problem in status.problems if problem.fault not in UNTIMELY]
    if problems:
        raise CertificateError("VCEK", "; ".join(map(str, problems)))


def _signer(
    crl: "x509.CertificateRevocationList", trusted: "tuple[x509.Certificate, ...]"
) -> "x509.Certificate":
    root = next((one for one in trusted if one.subject == crl.issuer), None)
    if root is None:
        raise CertificateError(
            "CRL", f"no trusted certificate of its issuer, {common_name(crl.issuer)}, is at hand"
        )
    fault = crl_fault(crl, root)
    if fault:
        raise CertificateError("CRL", fault)
    return root


def _name(certificate: "x509.Certificate") -> str:
    return f"certificate {common_name(certificate.subject)}"
