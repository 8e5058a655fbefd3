"""Is a report within reach? Found out without asking the device for one.

Making an entry and listing it is all it takes: the kernel shows the attributes that reach an
SVSM only where there is one. Blocking; meant for a worker thread.
"""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from app.errors import BackendError
from app.evidence.backend import ProbeCheck
from app.evidence.configfs_sequence import (
    Step,
    StepFailedError,
    at,
    demand_sev_guest,
    dialect_of,
    fresh_entry,
)
from app.evidence.diagnosis import Circumstances, diagnose, diagnose_directory

CHECKS = ("configfs", "entry", "provider", "svsm", "permission")


def probe_directory(directory: Path) -> tuple[ProbeCheck, ...]:
    """One check for each name in CHECKS; those behind the first that fails were not reached, and fail."""
    checks: list[ProbeCheck] = []
    try:
        for name, detail in zip(CHECKS, _findings(directory), strict=True):
            checks.append(ProbeCheck(name=name, ok=True, detail=detail))
    except (StepFailedError, BackendError) as failure:
        error = failure
        if isinstance(error, StepFailedError):
            error = diagnose(error, Circumstances(directory=directory))
        blocker, *unreached = CHECKS[len(checks) :]
        checks.append(ProbeCheck(name=blocker, ok=False, detail=error.reason, remedy=error.remedy))
        checks += [
            ProbeCheck(name=name, ok=False, detail=f"not reached: {blocker} comes first")
            for name in unreached
        ]
    return tuple(checks)


def _findings(directory: Path) -> Iterator[str]:
    """The detail of each check in turn, until one raises."""
    if (missing := diagnose_directory(directory)) is not None:
        raise missing
    yield f"{directory} is there"
    with fresh_entry(directory) as entry, at(Step.INSPECT):
        yield "report entries can be made"
        provider = entry.text("provider")
        demand_sev_guest(provider)
        yield f"reports come from {provider}"
        dialect = dialect_of(entry.attributes())
        floor = entry.number("privlevel_floor")
        yield f"an SVSM can be asked ({dialect.select}); this guest runs at VMPL {floor}"
        for attribute in (dialect.select, "service_guid", "inblob"):
            if not os.access(entry.path / attribute, os.W_OK, effective_ids=True):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        yield "requests can be written"
