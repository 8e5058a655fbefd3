"""Certificates that were given beside the evidence, put into its certificate table."""

from collections.abc import Iterable
from dataclasses import replace
from uuid import UUID

from cryptography import x509

from app.trust.certificates import der
from app.trust.endorsements import OfferedEndorsements
from app.trust.issuance import find_issuer
from app.trust.names import VekKind, common_name
from app.trust.signature import verify_report_signature
from app.trust.vek import read_vek
from app.wire import guid
from app.wire.certificate_table import CertificateEntry, CertificateTable
from app.wire.evidence import Evidence
from app.wire.report import AttestationReport


def merged_table(evidence: Evidence, offered: OfferedEndorsements) -> Evidence:
    """The evidence with a table in which what was offered comes before what was there.

    A table has one place for each kind of certificate: of several the chain of this report's leaf
    is taken.

    Raises:
        WireError: the evidence's own table is malformed.
    """
    entries = _entries(AttestationReport.parse(evidence.report), offered)
    if not entries:
        return evidence
    own = CertificateTable.parse(evidence.certificates).entries if evidence.certificates else ()
    replaced = _LEAVES if _LEAVES & entries.keys() else set()
    kept = [entry for entry in own if entry.guid not in entries and entry.guid not in replaced]
    new = [CertificateEntry(name, data) for name, data in entries.items()]
    return replace(evidence, certificates=CertificateTable((*new, *kept)).encode())


def signing_leaf(report: AttestationReport, offered: OfferedEndorsements) -> x509.Certificate | None:
    """The offered leaf whose key signed this report."""
    return next((one for one in offered.leaves if verify_report_signature(report, one)), None)


_LEAVES = {guid.VCEK, guid.VLEK}


def _entries(report: AttestationReport, offered: OfferedEndorsements) -> dict[UUID, bytes]:
    leaf = signing_leaf(report, offered) or _first(offered.leaves)
    intermediate = (find_issuer(leaf, offered.intermediates) if leaf else None) or _first(
        offered.intermediates
    )
    root = (find_issuer(intermediate, offered.roots) if intermediate else None) or _first(offered.roots)
    issuer = common_name(root.subject) if root else None
    # The root's own before any other. (A list that revokes nothing is false: no `or` here.)
    crl = next(iter(sorted(offered.crls, key=lambda one: common_name(one.issuer) != issuer)), None)
    entries: dict[UUID, bytes] = {}
    if leaf is not None:
        entries[guid.VLEK if read_vek(leaf).kind is VekKind.VLEK else guid.VCEK] = der(leaf)
    for name, signed in ((guid.ASK, intermediate), (guid.ARK, root), (guid.CRL, crl)):
        if signed is not None:
            entries[name] = der(signed)
    return entries


def _first(certificates: Iterable[x509.Certificate]) -> x509.Certificate | None:
    return next(iter(certificates), None)
