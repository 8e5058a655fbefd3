"""Faults of a certificate chain, as values: a chain that does not hold is a finding, not an exception."""

from dataclasses import dataclass
from enum import StrEnum


class ChainFault(StrEnum):
    """The kinds of fault, each of which calls for another reaction."""

    UNKNOWN_ROOT = "unknown-root"  # the self-signed certificate is not among the roots in force
    ISSUER = "issuer"  # a certificate is missing, or is not the issuer by name
    SIGNATURE = "signature"  # a certificate was not signed by the key of its issuer
    ALGORITHM = "algorithm"  # a key or signature algorithm other than AMD's
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    PROFILE = "profile"  # names, extensions or constraints other than AMD's


@dataclass(frozen=True, slots=True)
class ChainProblem:
    """One fault: its kind, the certificate it is in ("leaf", "intermediate", "root"), and one sentence."""

    fault: ChainFault
    certificate: str
    why: str

    def __str__(self) -> str:
        return f"{self.certificate}: {self.why}"
