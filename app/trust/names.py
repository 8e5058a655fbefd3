"""Names in AMD's certificates, and what they tell: role, product line, kind of leaf.

Every name has the same five organisational attributes and one common name:
ARK-<line> for a root, SEV-<line> (ASK) or SEV-VLEK-<line> (ASVK) for an intermediate,
SEV-VCEK or SEV-VLEK for a leaf. Source: AMD 57230 (VCEK certificate and KDS interface).
"""

from enum import StrEnum
from typing import TYPE_CHECKING

from cryptography.x509.oid import NameOID

from app.wire.product import ProductLine

if TYPE_CHECKING:
    from cryptography import x509


class VekKind(StrEnum):
    """VCEK: derived from chip and TCB. VLEK: from a secret that AMD gave to a cloud provider, and TCB."""

    VCEK = "vcek"
    VLEK = "vlek"


_ROOTS = {f"ARK-{line}": line for line in ProductLine}
_INTERMEDIATES = {f"SEV-{line}": (VekKind.VCEK, line) for line in ProductLine} | {
    f"SEV-VLEK-{line}": (VekKind.VLEK, line) for line in ProductLine
}
_LEAVES = {"SEV-VCEK": VekKind.VCEK, "SEV-VLEK": VekKind.VLEK}
_ORGANISATION = sorted(
    (oid.dotted_string, value)
    for oid, value in (
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "Engineering"),
        (NameOID.COUNTRY_NAME, "US"),
        (NameOID.LOCALITY_NAME, "Santa Clara"),
        (NameOID.STATE_OR_PROVINCE_NAME, "CA"),
        (NameOID.ORGANIZATION_NAME, "Advanced Micro Devices"),
    )
)
_SIMULATED = "simulated"


def common_name(name: "x509.Name") -> str | None:
    """The common name, or None where there is not exactly one."""
    values = [attribute.value for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return str(values[0]) if len(values) == 1 else None


def root_line(name: "x509.Name") -> ProductLine | None:
    """The product line whose root (ARK) this name is."""
    return _ROOTS.get(common_name(name) or "")


def intermediate_role(name: "x509.Name") -> tuple[VekKind, ProductLine] | None:
    """What the intermediate (ASK or ASVK) of this name issues: kind of leaf and product line."""
    return _INTERMEDIATES.get(common_name(name) or "")


def leaf_kind(name: "x509.Name") -> VekKind | None:
    """The kind of leaf that bears this name."""
    return _LEAVES.get(common_name(name) or "")


def is_amd_organisation(name: "x509.Name") -> bool:
    """Are the attributes beside the common name AMD's, each exactly once?"""
    others = (attribute for attribute in name if attribute.oid != NameOID.COMMON_NAME)
    return (
        sorted((attribute.oid.dotted_string, str(attribute.value)) for attribute in others) == _ORGANISATION
    )


def is_simulated(name: "x509.Name") -> bool:
    """Does any attribute say that this certificate belongs to a simulator?"""
    return any(_SIMULATED in str(attribute.value).lower() for attribute in name)
