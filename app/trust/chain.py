"""ARK -> ASK -> VCEK and ARK -> ASVK -> VLEK: is this leaf AMD's, at a given time?

Source: AMD 57230 (VCEK certificate and KDS interface); RFC 5280 sections 4 and 6.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from app.trust.authorities import intermediate_problems, root_problems
from app.trust.certificates import certificate_digest
from app.trust.issuance import issue_faults
from app.trust.memo import Memo, MemoInfo
from app.trust.names import common_name, intermediate_role, is_amd_organisation, is_simulated, root_line
from app.trust.problem import ChainFault, ChainProblem
from app.trust.vek import Vek, read_vek

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from cryptography import x509

    from app.trust.roots import TrustedRoot, TrustRoots
    from app.wire.product import ProductLine

__all__ = [
    "UNTIMELY",
    "ChainFault",
    "ChainProblem",
    "ChainStatus",
    "authority_problems",
    "chain_cache_info",
    "clear_chain_cache",
    "verify_chain",
]


UNTIMELY = frozenset({ChainFault.EXPIRED, ChainFault.NOT_YET_VALID})


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainStatus:
    """What became of a chain; it holds exactly when there are no problems.

    `root` is the trusted root it ends in, if any. `line` is the product line on which all three
    certificates agree by name, else None. `simulated`: a certificate, or the setting that trusts
    the root, says that this is a simulator's chain.
    """

    vek: Vek
    root: "TrustedRoot | None"
    line: "ProductLine | None"
    problems: tuple[ChainProblem, ...]
    simulated: bool


# Only chains without a fault are remembered: whoever brings the others pays for them each time,
# and cannot fill the memory. The key holds the certificates themselves and the roots in force.
_sound: "Memo[tuple[object, ...], ChainStatus]" = Memo(1024)


def verify_chain(
    leaf: "x509.Certificate",
    intermediate: "x509.Certificate | None",
    root: "x509.Certificate | None",
    roots: "TrustRoots",
    at: "datetime",
) -> ChainStatus:
    """Judge a chain at a time; every fault is in the result, none is raised.

    Signatures, names and profiles are judged once per chain and set of roots; validity periods,
    whose both ends are inclusive, on every call.

    Args:
        leaf: the VCEK or VLEK.
        intermediate: the ASK or ASVK, or None if none could be had.
        root: the ARK, or None if none could be had.
        roots: the roots in force.
        at: the time of the appraisal, with its time zone.
    """
    key = (leaf, intermediate, root, roots)
    status = _sound.get(key)
    if status is None:
        status = _judge(leaf, intermediate, root, roots)
        if not status.problems:
            _sound.put(key, status)
    certificates = (("root", root), ("intermediate", intermediate), ("leaf", leaf))
    untimely = tuple(
        problem
        for role, certificate in certificates
        if certificate is not None
        for problem in _validity_problems(certificate, role, at)
    )
    return replace(status, problems=status.problems + untimely) if untimely else status


def authority_problems(
    intermediate: "x509.Certificate", root: "x509.Certificate", roots: "TrustRoots"
) -> tuple[ChainProblem, ...]:
    """Everything but validity that is wrong with an intermediate and its root."""
    trusted = roots.match(root)
    amd = _must_be_amds(root, trusted)
    return (
        *_trust_problems(root, trusted),
        *root_problems(root, amd=amd),
        *intermediate_problems(intermediate, amd=amd),
        *_link_problems(intermediate, root, "intermediate"),
    )


def chain_cache_info() -> MemoInfo:
    """How often a chain was found already judged."""
    return _sound.info()


def clear_chain_cache() -> None:
    """Forget every chain."""
    _sound.clear()


def _judge(
    leaf: "x509.Certificate",
    intermediate: "x509.Certificate | None",
    root: "x509.Certificate | None",
    roots: "TrustRoots",
) -> ChainStatus:
    vek = read_vek(leaf)
    trusted = None if root is None else roots.match(root)
    amd = root is None or _must_be_amds(root, trusted)
    problems: list[ChainProblem] = []
    if root is not None:
        problems += [*_trust_problems(root, trusted), *root_problems(root, amd=amd)]
    if intermediate is not None:
        problems += intermediate_problems(intermediate, amd=amd)
        problems += _link_problems(intermediate, root, "intermediate")
    problems += vek.problems
    if amd and not is_amd_organisation(leaf.subject):
        problems.append(
            ChainProblem(ChainFault.PROFILE, "leaf", "the organisation in its subject is not AMD's")
        )
    problems += _link_problems(leaf, intermediate, "leaf")
    certificates = [certificate for certificate in (leaf, intermediate, root) if certificate is not None]
    return ChainStatus(
        vek=vek,
        root=trusted,
        line=_agreed_line(vek, intermediate, root),
        problems=tuple(problems),
        simulated=(trusted is not None and trusted.simulated)
        or any(is_simulated(certificate.subject) for certificate in certificates),
    )


def _must_be_amds(root: "x509.Certificate", trusted: "TrustedRoot | None") -> bool:
    """Only an operator's own root, or one that says it is a simulator's, may name another organisation."""
    return trusted.origin == "amd" if trusted is not None else not is_simulated(root.subject)


def _trust_problems(root: "x509.Certificate", trusted: "TrustedRoot | None") -> "Iterator[ChainProblem]":
    if trusted is None:
        name = common_name(root.subject)
        why = f"{name} with SHA-256 {certificate_digest(root)} is not a root that is trusted here"
        yield ChainProblem(ChainFault.UNKNOWN_ROOT, "root", why)


def _link_problems(
    certificate: "x509.Certificate", issuer: "x509.Certificate | None", role: str
) -> "Iterator[ChainProblem]":
    return (ChainProblem(fault, role, why) for fault, why in issue_faults(certificate, issuer))


def _agreed_line(
    vek: Vek, intermediate: "x509.Certificate | None", root: "x509.Certificate | None"
) -> "ProductLine | None":
    role = None if intermediate is None else intermediate_role(intermediate.subject)
    last = None if root is None else root_line(root.subject)
    return last if role is not None and vek.line is role[1] is last else None


def _validity_problems(
    certificate: "x509.Certificate", role: str, at: "datetime"
) -> "Iterator[ChainProblem]":
    if at < certificate.not_valid_before_utc:
        why = f"it is valid from {certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}"
        yield ChainProblem(ChainFault.NOT_YET_VALID, role, why)
    if at > certificate.not_valid_after_utc:
        why = f"it was valid until {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
        yield ChainProblem(ChainFault.EXPIRED, role, why)
