"""The exception hierarchy.

An unreadable input is an exception; a failed check is a value (a finding).
Every exception carries typed fields and has one message form, so that the
edges (HTTP, command line) can say where and why without parsing text.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class AttestError(Exception):
    """The root of everything this package raises on purpose."""


class ConfigError(AttestError):
    """A setting that cannot be used; it stops the start."""


class WireError(AttestError):
    """Bytes that are not the structure they claim to be.

    `pointer` is the JSON Pointer of the member that held them, where structure alone does not tell.
    """

    pointer: str | None = None

    def __init__(self, structure: str, offset: int, reason: str) -> None:
        super().__init__(f"{structure} at 0x{offset:x}: {reason}")
        self.structure = structure
        self.offset = offset
        self.reason = reason


@contextmanager
def member(pointer: str) -> Iterator[None]:
    """Name the member of a request or document in a WireError that its bytes cause."""
    try:
        yield
    except WireError as error:
        error.pointer = pointer
        raise


class UnsupportedVersionError(WireError):
    """A well-known structure in a version that this code does not know."""

    def __init__(self, structure: str, offset: int, version: int, supported: tuple[int, ...]) -> None:
        known = ", ".join(str(number) for number in supported)
        super().__init__(structure, offset, f"version {version} is not supported (known: {known})")
        self.version = version
        self.supported = supported


class CertificateError(AttestError):
    """Bytes that are not the certificate or CRL they claim to be."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason


class EvidenceError(AttestError):
    """An evidence document whose members do not fit its profile."""

    def __init__(self, pointer: str, reason: str) -> None:
        super().__init__(f"evidence{pointer}: {reason}")
        self.pointer = pointer
        self.reason = reason


class NonceError(AttestError):
    """A nonce that no report can be bound to."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"nonce: {reason}")
        self.reason = reason


class PolicyError(AttestError):
    """An appraisal policy that cannot be used; `place` is a path into the document."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"policy at {place}: {reason}")
        self.place = place
        self.reason = reason


class CollateralUnavailableError(AttestError):
    """An endorsement or CRL could not be had. This says nothing about trust."""

    def __init__(
        self,
        what: str,
        reason: str,
        *,
        source: str | None = None,
        upstream_status: int | None = None,
        product: str | None = None,
        chip_id_masked: bool | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{what} could not be had: {reason}")
        self.what = what
        self.reason = reason
        self.source = source
        self.upstream_status = upstream_status
        self.product = product
        self.chip_id_masked = chip_id_masked
        self.retry_after_s = retry_after_s


class BackendError(AttestError):
    """The platform gave no evidence; `cause` is a stable word, `remedy` what to do."""

    def __init__(self, cause: str, reason: str, remedy: str, *, errno: int | None = None) -> None:
        super().__init__(f"{reason}. {remedy}")
        self.cause = cause
        self.reason = reason
        self.remedy = remedy
        self.errno = errno


class BackendBusyError(BackendError):
    """Another user of the platform interfered; the request is safe to repeat."""


class TpmUnavailableError(BackendError):
    """The TPM could not be asked, did not answer in time, or answered with something that is no answer."""


class TpmRefusedError(AttestError):
    """The TPM answered a command with a return code: `code` as sent, `name` as the TCG calls it."""

    def __init__(self, command: str, code: int, name: str) -> None:
        super().__init__(f"{command} answered 0x{code:x} {name}")
        self.command = command
        self.code = code
        self.name = name


class ChallengeRefusedError(AttestError):
    """A well-formed challenge that this TPM does not answer; `remedy` says what to do."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"challenge: {reason}")
        self.reason = reason
        self.remedy = remedy


class RateLimitedError(AttestError):
    """Too many requests wait already; the caller may come back after `retry_after_s` seconds."""

    def __init__(self, reason: str, retry_after_s: float) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


class NotAffirmedError(AttestError):
    """Evidence was appraised and does not suffice for what was asked; `verdict` is the whole document."""

    def __init__(self, reason: str, verdict: dict[str, Any]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.verdict = verdict


class IssuerUnavailableError(AttestError):
    """A certificate authority of this service cannot issue at present. This says nothing about trust."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
