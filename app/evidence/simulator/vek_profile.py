"""What a VCEK or VLEK certificate says, in AMD's extensions.

Source: AMD 57230 (VCEK certificate and KDS interface), certificate extensions; which of them a
line has, and in what order, is taken from published certificates.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec

from app.trust.names import VekKind
from app.wire.product import ProductLine
from app.wire.tcb import TcbVersion

LIFETIMES = {VekKind.VCEK: timedelta(days=7 * 365 + 2), VekKind.VLEK: timedelta(days=365)}

_ARC = "1.3.6.1.4.1.3704.1."
_STRUCT_VERSIONS = {ProductLine.MILAN: 0, ProductLine.GENOA: 0, ProductLine.TURIN: 1}
_VCEK_PRODUCT_NAMES = {
    ProductLine.MILAN: "Milan-B0",
    ProductLine.GENOA: "Genoa",
    ProductLine.TURIN: "Turin",
}
# SPL extensions in certificate order: last arc and TCB component; None for one that is always zero.
_PRE_TURIN_SPLS = (
    (1, "bootloader"),
    (2, "tee"),
    (4, None),
    (5, None),
    (6, None),
    (7, None),
    (3, "snp"),
    (8, "microcode"),
)
_SPLS = {
    ProductLine.MILAN: _PRE_TURIN_SPLS,
    ProductLine.GENOA: _PRE_TURIN_SPLS,
    ProductLine.TURIN: (
        (9, "fmc"),
        (1, "bootloader"),
        (2, "tee"),
        (3, "snp"),
        (5, None),
        (6, None),
        (7, None),
        (8, "microcode"),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VekRequest:
    """Everything a leaf certificate is to say."""

    kind: VekKind
    public_key: ec.EllipticCurvePublicKey
    tcb: TcbVersion
    hwid: bytes | None  # VCEK: 64 bytes, 8 on Turin
    csp_id: str | None  # VLEK
    not_before: datetime
    not_after: datetime
    pss: bool = True  # False signs with PKCS #1 v1.5, which AMD never does


def vek_extensions(line: ProductLine, request: VekRequest) -> tuple[x509.UnrecognizedExtension, ...]:
    """AMD's extensions, none of them critical, in the order of real leaves."""
    name = _VCEK_PRODUCT_NAMES[line] if request.kind is VekKind.VCEK else str(line)
    parts = request.tcb.components()
    extensions = [
        _extension("1", asn1.encode_der(_STRUCT_VERSIONS[line])),
        _extension("2", asn1.encode_der(asn1.IA5String(name))),
    ]
    for arc, component in _SPLS[line]:
        number = 0 if component is None else parts[component]
        extensions.append(_extension(f"3.{arc}", asn1.encode_der(number)))
    if request.hwid is not None:
        extensions.append(_extension("4", request.hwid))  # raw, in no DER wrapper, as in every real leaf
    if request.csp_id is not None:
        extensions.append(_extension("5", asn1.encode_der(asn1.IA5String(request.csp_id))))
    return tuple(extensions)


def _extension(suffix: str, value: bytes) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(_ARC + suffix), value)
