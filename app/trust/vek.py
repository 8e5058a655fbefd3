"""What a VCEK or VLEK certificate says: which chip or provider, which TCB, which product line.

Source: AMD 57230 (VCEK certificate profile); the extensions lie under 1.3.6.1.4.1.3704.1 and are
found by OID, because their order differs between product lines.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec

from app.trust.certificates import extensions_of
from app.trust.names import VekKind, common_name, intermediate_role, leaf_kind, root_line
from app.trust.problem import ChainFault, ChainProblem
from app.wire.product import ProductLine
from app.wire.tcb import TcbLayout, TcbVersion

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Vek", "VekKind", "read_vek"]

_AMD = "1.3.6.1.4.1.3704.1"
_STRUCT_VERSION = f"{_AMD}.1"
_PRODUCT_NAME = f"{_AMD}.2"
_SPL = {
    "bootloader": f"{_AMD}.3.1",
    "tee": f"{_AMD}.3.2",
    "snp": f"{_AMD}.3.3",
    "microcode": f"{_AMD}.3.8",
    "fmc": f"{_AMD}.3.9",
}
_HWID = f"{_AMD}.4"
_CSP_ID = f"{_AMD}.5"
_CRITICAL_ALLOWED = {_STRUCT_VERSION, _PRODUCT_NAME, _HWID, _CSP_ID, *_SPL.values()}

_STRUCT_VERSIONS = {ProductLine.MILAN: 0, ProductLine.GENOA: 0, ProductLine.TURIN: 1}
_SPL_MAX = 255
_OCTET_STRING_HEADER = 2

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vek:
    """A leaf certificate, read. A field that is absent or unreadable is None, and a problem says so.

    `kind` is the subject's word and `line` the issuer's; neither is proven before the chain is.
    `hwid` has 64 bytes, or 8 on Turin.
    """

    certificate: x509.Certificate
    kind: VekKind | None
    line: ProductLine | None
    struct_version: int | None
    product_name: str | None
    tcb: TcbVersion | None
    hwid: bytes | None
    csp_id: str | None
    problems: tuple[ChainProblem, ...]


@lru_cache(maxsize=128)
def read_vek(certificate: x509.Certificate) -> Vek:
    """Read a leaf; every departure from AMD's profile is a problem in the result, never an exception.

    Results are remembered by certificate, so asking twice costs nothing.
    """
    reader = _Reader(certificate)
    kind, line = reader.names()
    reader.version_and_key()
    return Vek(
        certificate=certificate,
        kind=kind,
        line=line,
        struct_version=reader.struct_version(line),
        product_name=reader.product_name(),
        tcb=reader.tcb(line),
        hwid=reader.hwid(kind, line),
        csp_id=reader.csp_id(kind),
        problems=tuple(reader.problems),
    )


@dataclass
class _Reader:
    certificate: x509.Certificate
    problems: list[ChainProblem] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.extensions = self._extensions()

    def _fault(self, why: str, fault: ChainFault = ChainFault.PROFILE) -> None:
        self.problems.append(ChainProblem(fault, "leaf", why))

    def _extensions(self) -> "Mapping[str, bytes]":
        values: dict[str, bytes] = {}
        try:
            extensions = extensions_of(self.certificate)
        except ValueError as error:
            self._fault(str(error))
            return values
        for extension in extensions:
            oid = extension.oid.dotted_string
            if isinstance(extension.value, x509.UnrecognizedExtension):
                values[oid] = extension.value.value
            if extension.critical and oid not in _CRITICAL_ALLOWED:
                self._fault(f"its critical extension {oid} is unknown to this profile")
        return values

    def names(self) -> tuple[VekKind | None, ProductLine | None]:
        """Kind of leaf by its subject, product line by its issuer."""
        subject, issuer = self.certificate.subject, self.certificate.issuer
        kind, role = leaf_kind(subject), intermediate_role(issuer)
        if kind is None:
            self._fault(f"its subject CN is {common_name(subject)!r}, want SEV-VCEK or SEV-VLEK")
        if role is None:
            what = "the root itself" if root_line(issuer) else repr(common_name(issuer))
            self._fault(f"its issuer is {what}, want SEV-<line> or SEV-VLEK-<line>")
            return kind, None
        if kind is not None and kind is not role[0]:
            self._fault(
                f"it is a {kind.upper()}, but its issuer {common_name(issuer)} signs a {role[0].upper()}"
            )
        return kind, role[1]

    def version_and_key(self) -> None:
        """X.509 version 3 and a key on P-384."""
        if self.certificate.version is not x509.Version.v3:
            self._fault(f"it is an X.509 {self.certificate.version.name} certificate, want v3")
        try:
            key = self.certificate.public_key()
        except (ValueError, UnsupportedAlgorithm) as error:
            self._fault(f"its key cannot be read: {error}", ChainFault.ALGORITHM)
            return
        if not (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1)):
            self._fault("its key is not on the curve P-384", ChainFault.ALGORITHM)

    def struct_version(self, line: ProductLine | None) -> int | None:
        """The version of this set of extensions: 0 before Turin, 1 on Turin."""
        version = self._decode(int, _STRUCT_VERSION, "structVersion")
        if version is not None and line is not None and version != _STRUCT_VERSIONS[line]:
            self._fault(f"its structVersion is {version}, {line} has {_STRUCT_VERSIONS[line]}")
        return version

    def product_name(self) -> str | None:
        """Shown, not judged: certificates with a wrong name have been issued."""
        name = self._decode(asn1.IA5String, _PRODUCT_NAME, "productName")
        return None if name is None else name.as_str()

    def tcb(self, line: ProductLine | None) -> TcbVersion | None:
        """The security patch levels that this key is derived from."""
        turin = line is not None and line.tcb_layout is TcbLayout.TURIN
        if _SPL["fmc"] in self.extensions and not turin:
            self._fault(f"it has an fmcSPL, which {line or 'its unknown line'} has not")
            return None
        parts: dict[str, int] = {}
        names = _SPL if turin else _SPL.keys() - {"fmc"}
        for name in sorted(names):
            level = self._decode(int, _SPL[name], f"SPL of {name}")
            if level is not None and not 0 <= level <= _SPL_MAX:
                self._fault(f"its SPL of {name} is {level}, want 0 to {_SPL_MAX}")
            elif level is not None:
                parts[name] = level
        return TcbVersion(**parts) if len(parts) == len(names) else None

    def hwid(self, kind: VekKind | None, line: ProductLine | None) -> bytes | None:
        """The chip, on a VCEK: raw bytes, or wrapped in an OCTET STRING."""
        raw = self.extensions.get(_HWID)
        if raw is None:
            if kind is VekKind.VCEK:
                self._fault("it has no HWID")
            return None
        if kind is VekKind.VLEK:
            self._fault("it has a HWID, which no VLEK has")
        if line is None:
            return None
        # The length decides: a chip id may itself begin with the tag of an OCTET STRING.
        if len(raw) == line.hwid_size:
            return raw
        if len(raw) == line.hwid_size + _OCTET_STRING_HEADER:
            return self._decode(bytes, _HWID, "HWID")
        self._fault(f"its HWID has {len(raw)} bytes, {line} has {line.hwid_size}")
        return None

    def csp_id(self, kind: VekKind | None) -> str | None:
        """The cloud provider, on a VLEK."""
        if _CSP_ID not in self.extensions and kind is not VekKind.VLEK:
            return None
        if kind is VekKind.VCEK:
            self._fault("it has a csp_id, which no VCEK has")
        name = self._decode(asn1.IA5String, _CSP_ID, "csp_id")
        return None if name is None else name.as_str()

    def _decode(self, kind: type[_T], oid: str, what: str) -> _T | None:
        raw = self.extensions.get(oid)
        if raw is None:
            self._fault(f"it has no {what}")
            return None
        try:
            return asn1.decode_der(kind, raw)
        except ValueError as error:
            self._fault(f"its {what} cannot be read: {error}")
            return None
