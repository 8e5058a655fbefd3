"""Certificates and revocation lists, and how they hang together.

Names and extensions: AMD 57230 (VCEK certificate profile).
"""

from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from app.cli.inspection.sheet import Row, Section, Sheet
from app.trust.authorities import intermediate_problems, root_problems
from app.trust.certificates import certificate_digest, crl_digest, der, key_digest, serial_number
from app.trust.chain import ChainProblem, verify_chain
from app.trust.issuance import algorithm_fault, find_issuer
from app.trust.names import VekKind, common_name, intermediate_role, is_simulated, leaf_kind, root_line
from app.trust.offered import OfferedEndorsements
from app.trust.roots import TrustRoots
from app.trust.vek import Vek, read_vek

_MAX_SHOWN = 20
SIMULATED = "SIMULATED: made by software, proves nothing about hardware."


def certificate_sheet(certificate: x509.Certificate) -> Sheet:
    """Lay a certificate open."""
    vek = read_vek(certificate) if leaf_kind(certificate.subject) else None
    role, title = _role(certificate)
    problems = vek.problems if vek else _authority_problems(certificate, role)
    sections = [Section("Certificate", _certificate_rows(certificate, role))]
    if vek:
        sections.append(Section("What the key stands for", _vek_rows(vek)))
    if problems:
        rows = tuple(Row(name=p.fault.value, value=p.why, alarming=True) for p in problems)
        sections.append(Section("Departures from AMD's profile", rows))
    return Sheet(
        kind="certificate",
        title=title,
        size=len(der(certificate)),
        remarks=(SIMULATED,) if _is_simulated(certificate) else (),
        sections=tuple(sections),
        document={"certificate": _certificate_document(certificate, role, vek, problems)},
    )


def crl_sheet(crl: x509.CertificateRevocationList) -> Sheet:
    """Lay a revocation list open."""
    serials = [entry.serial_number for entry in crl]
    number = _crl_number(crl)
    until = crl.next_update_utc
    rows = [
        Row(name="issuer", value=common_name(crl.issuer) or crl.issuer.rfc4514_string()),
        Row(name="number", value="absent" if number is None else str(number)),
        Row(name="this update", value=_time(crl.last_update_utc)),
        Row(name="next update", value=_time(until), note=_remaining(until)),
        Row(name="signature", value=_algorithm(crl)),
        Row(name="SHA-256", value=crl_digest(crl)),
        Row(name="revoked", value=str(len(serials)), note="" if serials else "no certificate is revoked"),
    ]
    rows += [Row(name="", value=f"serial number 0x{serial:x}") for serial in serials[:_MAX_SHOWN]]
    if len(serials) > _MAX_SHOWN:
        rows.append(Row(name="", value=f"and {len(serials) - _MAX_SHOWN} more"))
    return Sheet(
        kind="crl",
        title=f"Certificate revocation list of {common_name(crl.issuer)}",
        size=len(der(crl)),
        sections=(Section("Revocation list", tuple(rows)),),
        document={
            "crl": {
                "issuer": crl.issuer.rfc4514_string(),
                "number": number,
                "this_update": _time(crl.last_update_utc),
                "next_update": _time(until),
                "sha256": crl_digest(crl),
                "revoked_serial_numbers": [f"0x{serial:x}" for serial in serials],
            }
        },
    )


def bundle_sheet(certificates: tuple[x509.Certificate, ...], size: int) -> Sheet:
    """Lay a PEM bundle open."""
    offered = OfferedEndorsements.sort(certificates)
    parts = tuple((f"certificate {n}", certificate_sheet(one)) for n, one in enumerate(certificates, 1))
    return Sheet(
        kind="certificate-bundle",
        title=f"PEM bundle of {len(certificates)} certificates",
        size=size,
        sections=chain_sections(offered),
        parts=parts,
        document={"chains": chain_documents(offered)},
    )


def chain_sections(offered: OfferedEndorsements) -> tuple[Section, ...]:
    """How each leaf leads to a root, now, under AMD's roots."""
    sections = []
    for leaf, intermediate, root, problems in _chains(offered):
        present = [one for one in (leaf, intermediate, root) if one is not None]
        path = " <- ".join(common_name(one.subject) or "?" for one in present)
        rows = [Row(name="chain", value=path)]
        if problems:
            rows += [Row(name=p.fault.value, value=str(p), alarming=True) for p in problems]
        else:
            rows.append(Row(name="holds", value="now, up to AMD's root as it is pinned here"))
        sections.append(Section("Chain", tuple(rows)))
    return tuple(sections)


def chain_documents(offered: OfferedEndorsements) -> list[dict[str, Any]]:
    """As `chain_sections`, for programs."""
    return [
        {
            "leaf_sha256": certificate_digest(leaf),
            "intermediate_sha256": intermediate and certificate_digest(intermediate),
            "root_sha256": root and certificate_digest(root),
            "problems": _problem_documents(problems),
        }
        for leaf, intermediate, root, problems in _chains(offered)
    ]


_Chain = tuple[x509.Certificate, x509.Certificate | None, x509.Certificate | None, tuple[ChainProblem, ...]]


def _chains(offered: OfferedEndorsements) -> list[_Chain]:
    chains: list[_Chain] = []
    for leaf in offered.leaves:
        intermediate = find_issuer(leaf, offered.intermediates)
        root = None if intermediate is None else find_issuer(intermediate, offered.roots)
        status = verify_chain(leaf, intermediate, root, TrustRoots.amd(), datetime.now(UTC))
        chains.append((leaf, intermediate, root, status.problems))
    return chains


def _role(certificate: x509.Certificate) -> tuple[str, str]:
    kind = leaf_kind(certificate.subject)
    if kind is not None:
        line = read_vek(certificate).line
        return kind.value, f"{kind.upper()} certificate{f' of {line}' if line else ''}"
    line = root_line(certificate.subject)
    if line is not None:
        if TrustRoots.amd().match(certificate):
            return "ark", f"ARK certificate: AMD's root of {line}"
        return "ark", f"ARK certificate that calls itself the root of {line}"
    role = intermediate_role(certificate.subject)
    if role is not None:
        name = "ASK" if role[0] is VekKind.VCEK else "ASVK"
        return name.lower(), f"{name} certificate: issues {role[0].upper()}s of {role[1]}"
    return "other", "X.509 certificate, none of AMD's for SEV-SNP by its name"


def _authority_problems(certificate: x509.Certificate, role: str) -> tuple[ChainProblem, ...]:
    amd = not is_simulated(certificate.subject)
    if role == "ark":
        return root_problems(certificate, amd=amd)
    if role in {"ask", "asvk"}:
        return intermediate_problems(certificate, amd=amd)
    return ()


def _certificate_rows(certificate: x509.Certificate, role: str) -> tuple[Row, ...]:
    until = certificate.not_valid_after_utc
    rows = [
        Row(name="subject", value=certificate.subject.rfc4514_string()),
        Row(name="issuer", value=certificate.issuer.rfc4514_string()),
        Row(name="serial number", value=f"0x{serial_number(certificate):x}"),
        Row(name="valid from", value=_time(certificate.not_valid_before_utc)),
        Row(
            name="valid until", value=_time(until), note=_remaining(until), alarming=until < datetime.now(UTC)
        ),
        Row(name="key", value=_key(certificate)),
        Row(name="signature", value=_algorithm(certificate)),
        Row(name="SHA-256", value=certificate_digest(certificate)),
    ]
    if role == "ark":
        root = TrustRoots.amd().match(certificate)
        value = "AMD's, as pinned here" if root else "not one that is trusted by default"
        rows.append(Row(name="root", value=value, alarming=root is None))
    return tuple(rows)


def _vek_rows(vek: Vek) -> tuple[Row, ...]:
    tcb = "unreadable"
    if vek.tcb is not None:
        tcb = "  ".join(f"{part} {level}" for part, level in vek.tcb.components().items())
    rows = [
        Row(name="product line", value=str(vek.line or "unknown"), note="by its issuer"),
        Row(name="productName", value=vek.product_name or "absent"),
        Row(name="structVersion", value="absent" if vek.struct_version is None else str(vek.struct_version)),
        Row(name="TCB", value=tcb),
    ]
    if vek.kind is VekKind.VCEK or vek.hwid is not None:
        rows.append(Row(name="HWID", value=vek.hwid.hex() if vek.hwid else "absent", note="the chip"))
    if vek.kind is VekKind.VLEK or vek.csp_id is not None:
        rows.append(Row(name="csp_id", value=vek.csp_id or "absent", note="the cloud provider"))
    return tuple(rows)


def _certificate_document(
    certificate: x509.Certificate, role: str, vek: Vek | None, problems: tuple[ChainProblem, ...]
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "role": role,
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "serial_number": f"0x{serial_number(certificate):x}",
        "not_before": _time(certificate.not_valid_before_utc),
        "not_after": _time(certificate.not_valid_after_utc),
        "key": _key(certificate),
        "signature_algorithm": _algorithm(certificate),
        "sha256": certificate_digest(certificate),
        "key_sha256": _key_digest(certificate),
        "simulated": _is_simulated(certificate),
        "amd_root": bool(role == "ark" and TrustRoots.amd().match(certificate)),
        "problems": _problem_documents(problems),
    }
    if vek is not None:
        document["vek"] = {
            "kind": vek.kind and vek.kind.value,
            "product": vek.line and vek.line.value,
            "product_name": vek.product_name,
            "struct_version": vek.struct_version,
            "tcb": vek.tcb and vek.tcb.components(),
            "hwid": vek.hwid and vek.hwid.hex(),
            "csp_id": vek.csp_id,
        }
    return document


def _problem_documents(problems: tuple[ChainProblem, ...]) -> list[dict[str, str]]:
    return [{"fault": p.fault.value, "certificate": p.certificate, "why": p.why} for p in problems]


def _is_simulated(certificate: x509.Certificate) -> bool:
    return is_simulated(certificate.subject) or is_simulated(certificate.issuer)


def _key(certificate: x509.Certificate) -> str:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        return f"unreadable: {error}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"ECC {key.curve.name}"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size} bits"
    return type(key).__name__


def _key_digest(certificate: x509.Certificate) -> str | None:
    try:
        return key_digest(certificate)
    except (ValueError, UnsupportedAlgorithm):
        return None


def _algorithm(signed: x509.Certificate | x509.CertificateRevocationList) -> str:
    fault = algorithm_fault(signed)
    if fault is None:
        return "RSASSA-PSS with SHA-384, as AMD signs"
    try:
        digest = signed.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        digest = None
    named = f" with {digest.name.upper()}" if digest else ""
    return f"OID {signed.signature_algorithm_oid.dotted_string}{named}"


def _crl_number(crl: x509.CertificateRevocationList) -> int | None:
    try:
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return None


def _time(moment: datetime | None) -> str:
    return "absent" if moment is None else f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _remaining(until: datetime | None) -> str:
    if until is None:
        return ""
    days = (until - datetime.now(UTC)).days
    return f"{days} days left" if days >= 0 else f"over since {-days} days"
