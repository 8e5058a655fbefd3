"""A folder of endorsements: VCEKs, the authorities above them, CRLs.

    vcek/<hwid>/bl02_tee00_snp06_ucode21_vcek.der          _fmc00 before _vcek on Turin
    vcek/<hwid>/vcek.der                                   read, never written
    ca/<common name>-<first 16 digits of its SHA-256>.der
    crl/<vcek or vlek>-<common name>-<the same of the root>.der

The layout below vcek/ is that of Trustee's offline store, so one folder serves both. Files are
written whole or not at all; a file that is not what its place promises is as good as absent.
The store does not judge trust: `intake` decides what enters, the chain is verified on every use.
"""

import os
import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import structlog

from app.errors import CertificateError
from app.trust.certificates import (
    MAX_CERTIFICATE_SIZE,
    MAX_CRL_SIZE,
    certificate_digest,
    der,
    load_certificate,
    load_crl,
)
from app.trust.names import VekKind, common_name
from app.trust.vek import Vek, read_vek

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from cryptography import x509

    from app.wire.product import ProductLine
    from app.wire.tcb import TcbVersion

_DIGEST_SHOWN = 16
_MAX_AUTHORITIES = 256
_FALLBACK = "vcek.der"
_UNSAFE = re.compile(r"[^A-Za-z0-9-]")
_PARTS = {"bootloader": "bl", "tee": "tee", "snp": "snp", "microcode": "ucode"}

_T = TypeVar("_T")
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEntry:
    """A file of the store: its path below the store, what it is, how long it is valid, what ails it.

    For a CRL the times are thisUpdate and nextUpdate. A damaged file has a problem and no times.
    """

    path: str
    what: str
    not_before: "datetime | None" = None
    not_after: "datetime | None" = None
    problem: str | None = None


class EndorsementStore:
    """The folder at `path`, which need not exist before something is written. All calls block."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def vcek(self, line: "ProductLine", hwid: bytes, tcb: "TcbVersion") -> "x509.Certificate | None":
        """The VCEK certificate of this chip at this TCB, if a sound file holds it."""
        folder = self._chip(hwid)
        for path in (folder / _vcek_name(tcb), folder / _FALLBACK):
            certificate = _load(path, MAX_CERTIFICATE_SIZE, load_certificate)
            if certificate is None:
                continue
            vek = read_vek(certificate)
            if (vek.kind, vek.line, vek.hwid, vek.tcb) == (VekKind.VCEK, line, hwid, tcb):
                return certificate
            if path.name != _FALLBACK:  # that name promises no TCB
                _ignore(path, "it is the certificate of another chip or TCB")
        return None

    def authorities(self) -> "tuple[x509.Certificate, ...]":
        """Every root and intermediate whose file is sound."""
        paths = sorted((self.path / "ca").glob("*.der"))[:_MAX_AUTHORITIES]
        return tuple(found for found in map(self._read_authority, paths) if found is not None)

    def crl(self, kind: VekKind, root: "x509.Certificate") -> "x509.CertificateRevocationList | None":
        """The CRL of this root for this kind of leaf, whether it is still current or not."""
        return _load(self._crl_path(kind, root), MAX_CRL_SIZE, load_crl)

    def keep_vcek(self, vek: Vek) -> Path:
        """Write a VCEK certificate.

        Raises:
            ValueError: the certificate does not say which chip or TCB it is of.
            OSError: the folder cannot be written.
        """
        if vek.hwid is None or vek.tcb is None:
            raise ValueError("a VCEK without chip or TCB has no place in the store")
        return _write(self._chip(vek.hwid) / _vcek_name(vek.tcb), der(vek.certificate))

    def keep_authority(self, certificate: "x509.Certificate") -> Path:
        """Write a root or an intermediate, unless it is there.

        Raises:
            OSError: the folder cannot be written.
        """
        path = self._authority_path(certificate)
        return path if path.exists() else _write(path, der(certificate))

    def keep_crl(
        self, crl: "x509.CertificateRevocationList", kind: VekKind, root: "x509.Certificate"
    ) -> Path:
        """Write the CRL of this root for this kind of leaf, in place of the one before.

        Raises:
            OSError: the folder cannot be written.
        """
        return _write(self._crl_path(kind, root), der(crl))

    def entry(self, path: Path) -> StoredEntry:
        """What one file of the store is."""
        name = str(path.relative_to(self.path))
        try:
            raw = _read(path, MAX_CRL_SIZE)
            if path.parent.name == "crl":
                crl = load_crl(raw, name)
                what = f"CRL of {common_name(crl.issuer)}"
                return StoredEntry(
                    path=name, what=what, not_before=crl.last_update_utc, not_after=crl.next_update_utc
                )
            certificate = load_certificate(raw, name)
        except (CertificateError, OSError) as error:
            return StoredEntry(path=name, what="unreadable", problem=str(error))
        return StoredEntry(
            path=name,
            what=_describe(certificate),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            problem=self._misfiling(path, certificate),
        )

    def entries(self) -> "Iterator[StoredEntry]":
        """Every file of the store, in the order of their paths."""
        patterns = ("ca/*.der", "crl/*.der", "vcek/*/*.der")
        return (self.entry(path) for pattern in patterns for path in sorted(self.path.glob(pattern)))

    def _misfiling(self, path: Path, certificate: "x509.Certificate") -> str | None:
        vek = read_vek(certificate)
        places = {self._authority_path(certificate)}
        if vek.hwid is not None and vek.tcb is not None:
            chip = self._chip(vek.hwid)
            places |= {chip / _vcek_name(vek.tcb), chip / _FALLBACK}
        return None if path in places else "its name promises another certificate"

    def _read_authority(self, path: Path) -> "x509.Certificate | None":
        certificate = _load(path, MAX_CERTIFICATE_SIZE, load_certificate)
        if certificate is not None and path != self._authority_path(certificate):
            _ignore(path, "its name promises another certificate")
            return None
        return certificate

    def _chip(self, hwid: bytes) -> Path:
        return self.path / "vcek" / hwid.hex()

    def _authority_path(self, certificate: "x509.Certificate") -> Path:
        return self.path / "ca" / f"{_identity(certificate)}.der"

    def _crl_path(self, kind: VekKind, root: "x509.Certificate") -> Path:
        return self.path / "crl" / f"{kind}-{_identity(root)}.der"


def _identity(certificate: "x509.Certificate") -> str:
    name = _UNSAFE.sub("_", common_name(certificate.subject) or "")
    return f"{name}-{certificate_digest(certificate)[:_DIGEST_SHOWN]}"


def _vcek_name(tcb: "TcbVersion") -> str:
    levels = tcb.components()
    name = "_".join(f"{short}{levels[part]:02}" for part, short in _PARTS.items())
    return f"{name}_vcek.der" if tcb.fmc is None else f"{name}_fmc{tcb.fmc:02}_vcek.der"


def _describe(certificate: "x509.Certificate") -> str:
    vek = read_vek(certificate)
    if vek.kind is None:
        return f"{common_name(certificate.subject)}"
    return f"{vek.kind.upper()} {vek.line or 'of an unknown line'}, {vek.tcb or 'no TCB'}"


def _ignore(path: Path, reason: str) -> None:
    _log.warning("store.ignored", path=str(path), reason=reason)


def _load(path: Path, limit: int, load: "Callable[[bytes, str], _T]") -> _T | None:
    try:
        return load(_read(path, limit), str(path))
    except FileNotFoundError:
        return None
    except (CertificateError, OSError) as error:
        _ignore(path, str(error))
        return None


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        return file.read(limit + 1)  # one too many is for the parser to refuse


def _write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        Path(temporary).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise
    _sync_folder(path.parent)
    return path


def _sync_folder(folder: Path) -> None:
    """Make the new name itself survive a crash."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
