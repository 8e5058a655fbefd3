"""How a command ends when it cannot do its work: an exit code, and a message or a problem document.

Problem documents follow RFC 9457, with the types and members that the HTTP service uses.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from app import errors
from app.wire.report import STRUCTURE as REPORT

URN = "urn:svsm-attest:problem:"


class ExitCode(IntEnum):
    """What the exit status of every command means."""

    DONE = 0  # affirming, or done
    NOT_AFFIRMING = 1  # appraised, and something else
    UNUSABLE = 2  # usage, or input that is not what it claims to be
    ENDORSEMENTS = 3  # endorsements or CRL unavailable
    BACKEND = 4  # backend unavailable or refused
    INTERNAL = 70  # a fault of this program (sysexits.h: EX_SOFTWARE)
    INTERRUPTED = 130  # Ctrl-C: 128 + SIGINT
    PIPE_CLOSED = 141  # the reader went away: 128 + SIGPIPE


class InputError(errors.AttestError):
    """A file or option value that cannot be used; `place` is its name."""

    def __init__(self, place: str, reason: str, remedy: str | None = None) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason
        self.remedy = remedy


class InFileError(errors.AttestError):
    """An error that a file's content caused, with the file's name."""

    def __init__(self, file: str, cause: errors.AttestError, remedy: str | None = None) -> None:
        said = cause.reason if isinstance(cause, InputError) else cause
        super().__init__(f"{file}: {said}")
        self.file = file
        self.cause = cause
        self.remedy = remedy


class ServiceError(errors.AttestError):
    """Another svsm-attest service did not do as asked: `problem` is its own document, if it sent one."""

    def __init__(self, url: str, reason: str, problem: dict[str, Any] | None = None) -> None:
        super().__init__(f"{url}: {reason}")
        self.url = url
        self.reason = reason
        self.problem = problem or {}


# Those of the service, and some of a command's own; one title for each type (RFC 9457, 3.1.3).
_TITLES = {
    "malformed-request": "The request cannot be understood",
    "nonce-invalid": "The nonce cannot be used",
    "policy-invalid": "The policy cannot be used",
    "evidence-malformed": "The evidence is not what it claims to be",
    "report-version-unsupported": "The report has an unknown version",
    "rate-limited": "Too many requests",
    "backend-unavailable": "The platform gave no evidence",
    "collateral-unavailable": "An endorsement could not be had",
    "configuration-invalid": "A setting cannot be used",
    "input-unusable": "The input cannot be used",
    "service-unavailable": "The service did not answer as it should",
    "usage": "The command line cannot be understood",
    "system": "The system refused",
    "internal": "A fault of this program",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An error as its reader gets it."""

    exit_code: ExitCode
    type: str  # without the URN prefix
    detail: str
    remedy: str | None = None
    title: str | None = None  # of a type that only another service knows
    members: dict[str, Any] = field(default_factory=dict)

    def problem(self) -> dict[str, Any]:
        """The problem document; members that are None are left out."""
        document = {
            "type": URN + self.type,
            "title": _TITLES.get(self.type, self.title),
            "detail": self.detail,
            "exit_code": int(self.exit_code),
            "remedy": self.remedy,
            **self.members,
        }
        return {name: value for name, value in document.items() if value is not None}


@contextmanager
def about(file: str, remedy: str | None = None) -> Iterator[None]:
    """Name the file in whatever its content causes.

    Raises:
        InFileError: in place of every AttestError.
    """
    try:
        yield
    except errors.AttestError as error:
        raise InFileError(file, error, remedy) from error


def failure_of(error: errors.AttestError) -> Failure:
    """What an error means to whoever ran the command."""
    match error:
        case InFileError():
            inner = failure_of(error.cause)
            return Failure(
                exit_code=inner.exit_code,
                type=inner.type,
                detail=str(error),
                remedy=inner.remedy or error.remedy,
                members={"file": error.file, **inner.members},
            )
        case ServiceError():
            return _of_service(error)
        case errors.CollateralUnavailableError():
            return _of_collateral(error)
        case errors.BackendError():
            return Failure(
                exit_code=ExitCode.BACKEND,
                type="backend-unavailable",
                detail=error.reason,
                remedy=error.remedy,
                members={"cause": str(error.cause), "errno": error.errno},
            )
        case errors.RateLimitedError():
            return Failure(
                exit_code=ExitCode.BACKEND,
                type="rate-limited",
                detail=error.reason,
                members={"retry_after_s": error.retry_after_s},
            )
    return _of_input(error)


def _of_input(error: errors.AttestError) -> Failure:
    kind, members = "malformed-request", dict[str, Any]()
    remedy = None
    match error:
        case errors.WireError():
            kind = "evidence-malformed"
            members = {"structure": error.structure, "byte_offset": error.offset, "reason": error.reason}
            if isinstance(error, errors.UnsupportedVersionError):
                members |= {"version": error.version, "supported": list(error.supported)}
                if error.structure == REPORT:
                    kind = "report-version-unsupported"
        case errors.CertificateError():
            kind, members = "evidence-malformed", {"source": error.source, "reason": error.reason}
        case errors.EvidenceError():
            kind, members = "evidence-malformed", {"pointer": error.pointer, "reason": error.reason}
        case errors.NonceError():
            kind = "nonce-invalid"
        case errors.PolicyError():
            kind, members = "policy-invalid", {"place": error.place, "reason": error.reason}
        case errors.ConfigError():
            kind = "configuration-invalid"
        case InputError():
            kind, members = "input-unusable", {"place": error.place, "reason": error.reason}
            remedy = error.remedy
    return Failure(exit_code=ExitCode.UNUSABLE, type=kind, detail=str(error), remedy=remedy, members=members)


def _of_collateral(error: errors.CollateralUnavailableError) -> Failure:
    return Failure(
        exit_code=ExitCode.ENDORSEMENTS,
        type="collateral-unavailable",
        detail=str(error),
        remedy="Give the certificates with --certs (and CRLs with --crl), import them into the store with"
        " `svsm-attest certs import`, or let this machine reach the KDS. This says nothing about trust.",
        members={
            "source": error.source,
            "upstream_status": error.upstream_status,
            "product": error.product and str(error.product),
            "chip_id_masked": error.chip_id_masked,
            "retry_after_s": error.retry_after_s,
        },
    )


# What the service calls a problem -> what it is to the caller; every other is the request's own fault.
_SERVICE_EXITS = {
    "not-affirmed": ExitCode.NOT_AFFIRMING,
    "collateral-unavailable": ExitCode.ENDORSEMENTS,
    "backend-unavailable": ExitCode.BACKEND,
    "rate-limited": ExitCode.BACKEND,
    "internal": ExitCode.BACKEND,
}
_SERVER_FAULT = 500


def _of_service(error: ServiceError) -> Failure:
    problem = error.problem
    kind = str(problem.get("type", "")).removeprefix(URN)
    if not kind or kind == "about:blank":
        return Failure(
            exit_code=ExitCode.BACKEND,
            type="service-unavailable",
            detail=str(error),
            remedy="Check the URL, and that an svsm-attest service with this role listens there.",
            members={"url": error.url},
        )
    status = problem.get("status")
    is_fault = isinstance(status, int) and status >= _SERVER_FAULT
    default = ExitCode.BACKEND if is_fault else ExitCode.UNUSABLE
    known = {"type", "title", "detail", "remedy", "exit_code"}
    remedy = problem.get("remedy")
    return Failure(
        exit_code=_SERVICE_EXITS.get(kind, default),
        type=kind,
        title=str(problem.get("title", "The service refused")),
        detail=str(error),
        remedy=remedy if isinstance(remedy, str) else None,
        members={"url": error.url} | {name: value for name, value in problem.items() if name not in known},
    )
