"""A certificate table, as the GHCB and configfs-tsm (auxblob) hand it out."""

from app.cli.inspection.certificate import certificate_sheet, chain_documents, chain_sections, crl_sheet
from app.cli.inspection.sheet import Row, Section, Sheet
from app.errors import CertificateError
from app.trust.certificates import load_certificates, load_crl
from app.trust.offered import OfferedEndorsements
from app.wire import guid
from app.wire.certificate_table import CertificateEntry, CertificateTable

_CERTIFICATES = {guid.VCEK, guid.VLEK, guid.ASK, guid.ARK}


def table_sheet(table: CertificateTable, size: int) -> Sheet:
    """Lay a table open, with every certificate in it."""
    parts = tuple((_name(entry), sheet) for entry in table.entries for sheet in _entry_sheets(entry))
    rows = tuple(
        Row(name=_name(entry), value=str(entry.guid), note=f"{len(entry.data)} bytes, {_form(entry.data)}")
        for entry in table.entries
    )
    used = len(table.encode())
    remarks = [] if rows else ["The table is empty: the host handed out no certificates."]
    if used < size:
        remarks.append(f"{size - used} bytes belong to no entry (padding).")
    offered = table_endorsements(table)
    return Sheet(
        kind="certificate-table",
        title=f"Certificate table: {len(rows)} entries",
        size=size,
        remarks=tuple(remarks),
        sections=((Section("Entries", rows),) if rows else ()) + chain_sections(offered),
        parts=parts,
        document={
            "entries": [
                {"guid": str(entry.guid), "name": _name(entry), "size": len(entry.data)}
                for entry in table.entries
            ],
            "chains": chain_documents(offered),
        },
    )


def table_endorsements(table: CertificateTable) -> OfferedEndorsements:
    """The certificates of a table by role; none where one of them is unreadable."""
    try:
        return OfferedEndorsements().with_table(table)
    except CertificateError:
        return OfferedEndorsements()


def _entry_sheets(entry: CertificateEntry) -> list[Sheet]:
    name = _name(entry)
    try:
        if entry.guid in _CERTIFICATES:
            return [certificate_sheet(one) for one in load_certificates(entry.data, name)]
        if entry.guid == guid.CRL:
            return [crl_sheet(load_crl(entry.data, name))]
    except CertificateError as error:
        row = Row(name="unreadable", value=error.reason, alarming=True)
        return [
            Sheet(
                kind="unreadable",
                title="Not the certificate or CRL that its GUID promises",
                size=len(entry.data),
                sections=(Section("Fault", (row,)),),
                document={"reason": error.reason},
            )
        ]
    return []


def _name(entry: CertificateEntry) -> str:
    return guid.NAMES.get(entry.guid, "unknown")


def _form(data: bytes) -> str:
    if data.lstrip().startswith(b"-----BEGIN"):
        return "PEM"
    return "DER" if data.startswith(b"\x30") else "neither DER nor PEM"
