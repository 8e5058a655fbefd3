"""Endorsements that came along: with the evidence, or named on the command line.

They are read here and sorted by what they say they are; nothing is trusted yet.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import structlog

from app.errors import CertificateError, WireError
from app.trust.certificates import MAX_BUNDLE_SIZE, is_crl_pem, is_pem, load_certificates, load_crl
from app.trust.names import common_name, leaf_kind
from app.wire import guid
from app.wire.certificate_table import CertificateTable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from cryptography import x509

MAX_FILES = 256
_SUFFIXES = {".pem", ".der", ".crt", ".cer", ".cert", ".crl"}
_SEQUENCE = b"\x30"  # the first byte of every DER certificate and CRL

_Role = Literal["leaves", "intermediates", "roots"]
_SLOTS: "dict[UUID, _Role]" = {
    guid.VCEK: "leaves",
    guid.VLEK: "leaves",
    guid.ASK: "intermediates",
    guid.ARK: "roots",
}

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class OfferedEndorsements:
    """Certificates and CRLs by role, in the order they were offered, each once."""

    leaves: "tuple[x509.Certificate, ...]" = ()
    intermediates: "tuple[x509.Certificate, ...]" = ()
    roots: "tuple[x509.Certificate, ...]" = ()
    crls: "tuple[x509.CertificateRevocationList, ...]" = ()

    def __add__(self, other: "OfferedEndorsements") -> "OfferedEndorsements":
        # Not a dict: CRLs have no hash.
        merged = {}
        for role in (field.name for field in fields(self)):
            mine = getattr(self, role)
            merged[role] = (*mine, *(one for one in getattr(other, role) if one not in mine))
        return OfferedEndorsements(**merged)

    def with_table(self, table: CertificateTable, source: str = "certificate table") -> "OfferedEndorsements":
        """These and those of a certificate table, whose entries are DER or PEM.

        A certificate is what its name says; where the name says nothing, the entry decides.
        Entries that are no endorsement of ours are ignored.

        Raises:
            CertificateError: an entry that is not what its GUID promises.
        """
        offered = self
        for entry in table.entries:
            place = f"{source}, {guid.NAMES.get(entry.guid, entry.guid)}"
            if entry.guid in _SLOTS:
                certificates = load_certificates(entry.data, place)
                offered += OfferedEndorsements.sort(certificates, otherwise=_SLOTS[entry.guid])
            elif entry.guid == guid.CRL:
                offered += OfferedEndorsements(crls=(load_crl(entry.data, place),))
        return offered

    @classmethod
    def from_table(cls, raw: bytes) -> "OfferedEndorsements":
        """Read a raw GHCB certificate table (configfs: auxblob).

        Raises:
            WireError: not a certificate table.
            CertificateError: as `with_table`.
        """
        return cls().with_table(CertificateTable.parse(raw))

    @classmethod
    def from_bytes(cls, raw: bytes, source: str) -> "OfferedEndorsements":
        """Read PEM certificates, a PEM CRL, a DER certificate, a DER CRL, or a certificate table.

        Raises:
            CertificateError: none of these.
        """
        if is_pem(raw) or raw.startswith(_SEQUENCE):
            return cls._from_x509(raw, source)
        try:
            return cls.from_table(raw)
        except WireError as error:
            reason = f"neither PEM, nor DER, nor a certificate table ({error})"
            raise CertificateError(source, reason) from error

    @classmethod
    def from_paths(cls, paths: "Iterable[Path]") -> "OfferedEndorsements":
        """Read files, as `from_bytes` does, and folders.

        Of a folder (not of those in it), every file is read whose name ends in .pem, .der, .crt,
        .cer, .cert or .crl; there may be 256 of them, of 1 MiB each.

        Raises:
            CertificateError: a file that cannot be read or is none of these.
        """
        offered = cls()
        for path in paths:
            try:
                if path.is_dir():
                    for file in _certificate_files(path):
                        offered += cls._from_x509(_read(file), str(file))
                else:
                    offered += cls.from_bytes(_read(path), str(path))
            except OSError as error:
                raise CertificateError(str(path), error.strerror or str(error)) from error
        return offered

    @classmethod
    def sort(cls, certificates: "Iterable[x509.Certificate]", *, otherwise: _Role | None = None) -> Self:
        """Sort certificates by what their names say; `otherwise` takes those that say nothing."""
        roles: dict[_Role, list[x509.Certificate]] = {"leaves": [], "intermediates": [], "roots": []}
        for certificate in certificates:
            role = _role(certificate) or otherwise
            if role is None:
                _log.info("endorsements.ignored", subject=common_name(certificate.subject))
            else:
                roles[role].append(certificate)
        leaves, intermediates, roots = (tuple(dict.fromkeys(found)) for found in roles.values())
        return cls(leaves, intermediates, roots)

    @classmethod
    def _from_x509(cls, raw: bytes, source: str) -> "OfferedEndorsements":
        if is_crl_pem(raw):
            return cls(crls=(load_crl(raw, source),))
        try:
            return cls.sort(load_certificates(raw, source))
        except CertificateError as error:
            try:
                return cls(crls=(load_crl(raw, source),))
            except CertificateError:
                raise error from None


def _role(certificate: "x509.Certificate") -> _Role | None:
    if leaf_kind(certificate.subject):
        return "leaves"
    name = common_name(certificate.subject) or ""
    if name.startswith("ARK-"):
        return "roots"
    if name.startswith("SEV-"):
        return "intermediates"
    return "leaves" if (common_name(certificate.issuer) or "").startswith("SEV-") else None


def _certificate_files(folder: Path) -> list[Path]:
    files = [path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and path.is_file()]
    if len(files) > MAX_FILES:
        raise CertificateError(str(folder), f"{len(files)} certificate files, at most {MAX_FILES}")
    return sorted(files)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        raw = file.read(MAX_BUNDLE_SIZE + 1)
    if len(raw) > MAX_BUNDLE_SIZE:
        raise CertificateError(str(path), f"more than {MAX_BUNDLE_SIZE} bytes")
    return raw
