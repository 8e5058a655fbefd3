"""The two conversations with configfs-tsm: a report through the SVSM, and a plain one.

Both make an entry, write, read the blobs and prove by `generation` that nobody else wrote in
between. Blocking; meant for a worker thread.

Source: Linux sev-guest sev_report_new() and sev_svsm_report_new(); svsm protocols/attest.rs.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from app.errors import BackendBusyError, BackendError
from app.evidence.backend import Cause
from app.evidence.configfs_entry import ReportEntry
from app.wire.evidence import Service

PROVIDER = "sev_guest"
MAX_PRIVLEVEL = 3


class Step(StrEnum):
    """What was being done when the kernel said no."""

    CREATE = "making a report entry"
    INSPECT = "reading what the entry offers"
    SELECT_SVSM = "selecting the SVSM"
    SELECT_SERVICE = "selecting the service"
    SELECT_VERSION = "selecting the manifest version"
    SELECT_PRIVLEVEL = "selecting the VMPL"
    NONCE = "handing over the nonce"
    SVSM_REPORT = "getting the report through the SVSM"
    PLAIN_REPORT = "getting a report for its certificates"


class StepFailedError(Exception):
    """The kernel's errno, and the step that met it; diagnosis.py makes a cause of the two."""

    def __init__(self, step: Step, error: OSError) -> None:
        super().__init__(f"{step}: {error}")
        self.step = step
        self.error = error


@dataclass(frozen=True, slots=True, kw_only=True)
class Blobs:
    """What one report entry gave, all of one and the same report."""

    report: bytes
    manifest: bytes
    certificates: bytes | None  # None: larger than the kernel would hand out


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a kernel names the attributes that reach an SVSM."""

    select: str
    select_value: bytes
    version: str

    @property
    def required(self) -> frozenset[str]:
        """Attributes without which no SVSM can be asked."""
        return frozenset({self.select, "service_guid", "manifestblob"})


MAINLINE = Dialect("service_provider", b"svsm", "service_manifest_version")  # Linux 6.11 and later
DEVELOPMENT = Dialect("svsm", b"1", "service_version")  # AMD's and COCONUT's trees of 6.8 to 6.10


def dialect_of(attributes: frozenset[str]) -> Dialect:
    """The dialect in which an entry with these attributes is asked.

    Raises:
        BackendError: neither is complete: no SVSM, or a kernel that cannot ask it.
    """
    for dialect in (MAINLINE, DEVELOPMENT):
        if dialect.required <= attributes:
            return dialect
    missing = ", ".join(sorted(MAINLINE.required - attributes))
    raise BackendError(
        Cause.NO_SVSM,
        f"the kernel offers no way to ask an SVSM (missing: {missing})",
        "Boot the VM through an SVSM, so that Linux runs at VMPL 1 or above, with Linux 6.11 or later",
    )


def demand_sev_guest(provider: str) -> None:
    """Accept the one provider whose reports this project knows.

    Raises:
        BackendError: any other.
    """
    if provider != PROVIDER:
        raise BackendError(
            Cause.WRONG_PROVIDER,
            f"reports come from {provider[:40]!r}, not from {PROVIDER}",
            "Run the service in an AMD SEV-SNP VM with the sev-guest driver",
        )


def request_svsm_report(directory: Path, nonce: bytes, service: Service, manifest_version: int) -> Blobs:
    """One report with its manifest, asked of the SVSM.

    Raises:
        StepFailedError: the kernel refused a step.
        BackendBusyError: somebody else wrote to the entry or removed it.
        BackendError: the wrong provider, or no SVSM to ask.
    """
    with fresh_entry(directory) as entry:
        with at(Step.INSPECT):
            attributes = entry.attributes()
            demand_sev_guest(entry.text("provider"))
            generation = entry.number("generation")
        dialect = dialect_of(attributes)
        with at(Step.SELECT_SVSM):
            entry.write(dialect.select, dialect.select_value)
        if service is not Service.ALL:  # all of them are what a null GUID asks for, and a new entry's is null
            with at(Step.SELECT_SERVICE):
                entry.write("service_guid", str(service.guid).encode("ascii"))
        if manifest_version:
            _demand_version_attribute(attributes, dialect)
            with at(Step.SELECT_VERSION):
                entry.write(dialect.version, str(manifest_version).encode("ascii"))
        with at(Step.NONCE):
            entry.write("inblob", nonce)
        with _undisturbed(entry, generation), at(Step.SVSM_REPORT):
            return Blobs(
                report=entry.blob("outblob"),
                manifest=entry.blob("manifestblob"),
                certificates=_certificates(entry),
            )


def request_plain_report(directory: Path) -> Blobs:
    """One report without the SVSM, at the lowest VMPL open to this guest: for its certificates.

    Raises:
        StepFailedError, BackendBusyError, BackendError: as above.
    """
    with fresh_entry(directory) as entry:
        with at(Step.INSPECT):
            demand_sev_guest(entry.text("provider"))
            generation = entry.number("generation")
            level = entry.number("privlevel_floor")
        with at(Step.SELECT_PRIVLEVEL):
            entry.write("privlevel", str(level).encode("ascii"))
        with at(Step.NONCE):
            entry.write("inblob", bytes(64))  # the report itself is of no further use
        with _undisturbed(entry, generation), at(Step.PLAIN_REPORT):
            return Blobs(report=entry.blob("outblob"), manifest=b"", certificates=_certificates(entry))


@contextlib.contextmanager
def at(step: Step) -> Iterator[None]:
    """Name the step that an OSError inside belongs to."""
    try:
        yield
    except OSError as error:
        raise StepFailedError(step, error) from error


@contextlib.contextmanager
def fresh_entry(directory: Path) -> Iterator[ReportEntry]:
    """An entry that is removed in the end; StepFailedError where none can be made."""
    with contextlib.ExitStack() as stack:
        with at(Step.CREATE):
            entry = stack.enter_context(ReportEntry.fresh(directory))
        yield entry


@contextlib.contextmanager
def _undisturbed(entry: ReportEntry, generation: int) -> Iterator[None]:
    """Whatever the reads inside gave, or failed with, counts only if nobody else wrote meanwhile."""
    try:
        yield
    except StepFailedError as failure:
        if _generation(entry) != generation + entry.writes:
            raise _interference() from failure
        raise
    if _generation(entry) != generation + entry.writes:
        raise _interference()


def _demand_version_attribute(attributes: frozenset[str], dialect: Dialect) -> None:
    if dialect.version not in attributes:
        raise BackendError(
            Cause.NO_SVSM,
            f"the kernel offers no way to ask for a manifest version (missing: {dialect.version})",
            "Ask for version 0, or use Linux 6.11 or later",
        )


def _generation(entry: ReportEntry) -> int | None:
    try:
        return entry.number("generation")
    except OSError:  # removed under our hands: as telling as another number
        return None


def _interference() -> BackendBusyError:
    return BackendBusyError(
        Cause.INTERFERENCE,
        "another process wrote to this request's report entry or removed it, so the answer may not be ours",
        "Ask again, and find out which process touches entries named svsm-attest-*",
    )


def _certificates(entry: ReportEntry) -> bytes | None:
    try:
        return entry.blob("auxblob")
    except OSError:
        return None  # certificates are a convenience: the report stands without them
