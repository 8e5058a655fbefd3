"""Certificate revocation lists: has AMD withdrawn the intermediate?

AMD's lists name intermediates (ASK, ASVK) by serial number and are signed by the root; every leaf
has serial number 0, so no list can name one. Source: AMD 57230 (KDS interface); RFC 5280 section 5.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from cryptography import x509

from app.trust.certificates import crl_digest, serial_number
from app.trust.issuance import algorithm_fault, key_fault
from app.trust.memo import Memo
from app.trust.names import common_name

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric import rsa


class RevocationState(StrEnum):
    """CLEAR is the only good one; ABSENT says that there was no list to look at."""

    CLEAR = "clear"
    REVOKED = "revoked"
    INVALID = "invalid"
    STALE = "stale"
    NOT_YET_VALID = "not-yet-valid"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationStatus:
    """What a list says about an intermediate, and which list it was (`sha256` of its DER, in hex)."""

    state: RevocationState
    why: str
    number: int | None = None
    this_update: "datetime | None" = None
    next_update: "datetime | None" = None
    sha256: str | None = None


# (CRL digest, root) -> the signature's fault, "" for none
_judged: Memo[tuple[str, x509.Certificate], str] = Memo(64)


def check_revocation(
    crl: x509.CertificateRevocationList | None,
    intermediate: x509.Certificate | None,
    root: x509.Certificate | None,
    at: "datetime",
    *,
    absent_why: str = "no CRL is at hand",
) -> RevocationStatus:
    """Judge a CRL, and by it the intermediate, at a time.

    A serial number that a rightly signed list names stays revoked even where the list is out of
    date: AMD does not take certificates back into use.

    Args:
        crl: the list, or None.
        intermediate: the ASK or ASVK in question.
        root: the ARK that must have signed the list.
        at: the time of the appraisal, with its time zone; thisUpdate <= at < nextUpdate.
        absent_why: what to say where there is no list.
    """
    if crl is None:
        return RevocationStatus(state=RevocationState.ABSENT, why=absent_why)
    state, why = _state(crl, intermediate, root, at)
    return RevocationStatus(
        state=state,
        why=why,
        number=_number(crl),
        this_update=crl.last_update_utc,
        next_update=crl.next_update_utc,
        sha256=crl_digest(crl),
    )


def crl_fault(crl: x509.CertificateRevocationList, root: x509.Certificate) -> str:
    """Why this is not a CRL of this root, in one sentence; empty if it is."""
    key = (crl_digest(crl), root)
    fault = _judged.get(key)
    if fault is None:
        fault = _judge(crl, root)
        _judged.put(key, fault)
    return fault


def _state(
    crl: x509.CertificateRevocationList,
    intermediate: x509.Certificate | None,
    root: x509.Certificate | None,
    at: "datetime",
) -> tuple[RevocationState, str]:
    if intermediate is None or root is None:
        return RevocationState.INVALID, "there is no complete chain that it could be about"
    fault = crl_fault(crl, root)
    if fault:
        return RevocationState.INVALID, fault
    name = common_name(intermediate.subject)
    serial = serial_number(intermediate)
    if crl.get_revoked_certificate_by_serial_number(serial) is not None:
        return RevocationState.REVOKED, f"it lists serial number {serial:#x}, which is {name}"
    untimely = _untimeliness(crl, at)
    return untimely or (RevocationState.CLEAR, f"it does not list {name} (serial number {serial:#x})")


def _untimeliness(crl: x509.CertificateRevocationList, at: "datetime") -> tuple[RevocationState, str] | None:
    if crl.next_update_utc is None:
        return RevocationState.INVALID, "it does not say until when it is valid"
    if at < crl.last_update_utc:
        return RevocationState.NOT_YET_VALID, f"it is valid from {crl.last_update_utc:%Y-%m-%dT%H:%M:%SZ}"
    if at >= crl.next_update_utc:
        return RevocationState.STALE, f"it was valid until {crl.next_update_utc:%Y-%m-%dT%H:%M:%SZ}"
    return None


def _judge(crl: x509.CertificateRevocationList, root: x509.Certificate) -> str:
    name = common_name(root.subject)
    if crl.issuer.public_bytes() != root.subject.public_bytes():
        return f"its issuer is {common_name(crl.issuer)}, not {name}"
    why = algorithm_fault(crl)
    if why is not None:
        return why
    for extension in crl.extensions:
        if extension.critical:
            return f"its critical extension {extension.oid.dotted_string} is unknown to this profile"
    why = key_fault(root)
    if why is not None:
        return f"the root cannot have signed it: {why}"
    signer: rsa.RSAPublicKey = root.public_key()  # type: ignore[assignment]  # key_fault has looked
    return "" if crl.is_signature_valid(signer) else f"it was not signed by the key of {name}"


def _number(crl: x509.CertificateRevocationList) -> int | None:
    try:
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return None
