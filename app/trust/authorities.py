"""What AMD's roots (ARK) and intermediates (ASK for VCEKs, ASVK for VLEKs) look like.

Source: AMD 57230 (VCEK certificate profile); RFC 5280 for what the extensions mean.
"""

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from app.trust.certificates import extensions_of
from app.trust.issuance import issue_faults, key_fault
from app.trust.names import common_name, intermediate_role, is_amd_organisation, root_line
from app.trust.problem import ChainFault, ChainProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

_UNDERSTOOD = {
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    ExtensionOID.CRL_DISTRIBUTION_POINTS,
}


def root_problems(root: x509.Certificate, *, amd: bool) -> tuple[ChainProblem, ...]:
    """Departures from an ARK's profile, its signature by itself included.

    Args:
        root: the certificate to judge.
        amd: demand AMD's organisational attributes; another root need only bear an ARK's CN.
    """
    problems = [ChainProblem(fault, "root", why) for fault, why in _root_faults(root, amd=amd)]
    return tuple(problems)


def intermediate_problems(intermediate: x509.Certificate, *, amd: bool) -> tuple[ChainProblem, ...]:
    """Departures from an ASK's or ASVK's profile; who signed it is another question."""
    faults = _intermediate_faults(intermediate, amd=amd)
    return tuple(ChainProblem(fault, "intermediate", why) for fault, why in faults)


def _root_faults(root: x509.Certificate, *, amd: bool) -> "Iterator[tuple[ChainFault, str]]":
    if root_line(root.subject) is None:
        yield ChainFault.PROFILE, f"its subject CN is {common_name(root.subject)!r}, want ARK-<line>"
    yield from _authority_faults(root, amd=amd, may_sign_crls=True)
    yield from issue_faults(root, root)


def _intermediate_faults(intermediate: x509.Certificate, *, amd: bool) -> "Iterator[tuple[ChainFault, str]]":
    subject, issuer = intermediate.subject, intermediate.issuer
    role = intermediate_role(subject)
    if role is None:
        found = repr(common_name(subject))
        yield ChainFault.PROFILE, f"its subject CN is {found}, want SEV-<line> or SEV-VLEK-<line>"
    elif root_line(issuer) is not role[1]:
        yield ChainFault.PROFILE, f"its issuer CN is {common_name(issuer)!r}, want ARK-{role[1]}"
    yield from _authority_faults(intermediate, amd=amd, may_sign_crls=False)


def _authority_faults(
    certificate: x509.Certificate, *, amd: bool, may_sign_crls: bool
) -> "Iterator[tuple[ChainFault, str]]":
    if certificate.version is not x509.Version.v3:
        yield ChainFault.PROFILE, f"it is an X.509 {certificate.version.name} certificate, want v3"
    if amd and not is_amd_organisation(certificate.subject):
        yield ChainFault.PROFILE, "the organisation in its subject is not AMD's"
    why = key_fault(certificate)
    if why is not None:
        yield ChainFault.ALGORITHM, why
    try:
        extensions = extensions_of(certificate)
    except ValueError as error:
        yield ChainFault.PROFILE, str(error)
        return
    for extension in extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            oid = extension.oid.dotted_string
            yield ChainFault.PROFILE, f"its critical extension {oid} is unknown to this profile"
    for why in (
        _constraints_fault(extensions, is_root=may_sign_crls),
        _usage_fault(extensions, may_sign_crls=may_sign_crls),
    ):
        if why is not None:
            yield ChainFault.PROFILE, why


def _constraints_fault(extensions: x509.Extensions, *, is_root: bool) -> str | None:
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return "it has no basic constraints, so it is no certificate authority"
    if not constraints.ca:
        return "its basic constraints say that it is no certificate authority"
    limit = constraints.path_length
    if is_root and limit == 0:
        return "its path length 0 leaves no room for an intermediate"
    if not is_root and limit != 0:
        return f"its path length is {'unlimited' if limit is None else limit}, want 0"
    return None


def _usage_fault(extensions: x509.Extensions, *, may_sign_crls: bool) -> str | None:
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return "it has no key usage"
    if not usage.key_cert_sign:
        return "its key usage does not let it sign certificates"
    if may_sign_crls and not usage.crl_sign:
        return "its key usage does not let it sign CRLs"
    return None
