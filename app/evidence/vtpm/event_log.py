"""The firmware's event log, as the kernel shows it.

Source: Linux, drivers/char/tpm/eventlog/common.c; the file is readable by root alone.
"""

import os
from pathlib import Path

from app.errors import BackendError
from app.evidence.vtpm.refusal import VtpmCause

EVENT_LOG = Path("/sys/kernel/security/tpm0/binary_bios_measurements")
# Firmware reserves 64 KiB to 256 KiB. In base64 this still fits the body that a verifier takes.
MAX_SIZE = 1 << 19
_ELSEWHERE = "ask for the quote without its event log"


def read_event_log(path: Path) -> bytes:
    """The log as it is, unparsed: 1 byte to 512 KiB. Blocks.

    Raises:
        BackendError: no such file, no permission, nothing in it, or too much.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            log = file.read(MAX_SIZE + 1)
    except FileNotFoundError as error:
        raise _unavailable(
            f"there is no event log at {path}",
            f"Mount securityfs, and look whether the firmware hands a log to the kernel; or {_ELSEWHERE}",
        ) from error
    except PermissionError as error:
        raise _unavailable(
            f"the event log {path} may not be read",
            f"Only root may: run the attester as root, or give it a copy with SVSM_ATTEST_TPM_EVENT_LOG;"
            f" or {_ELSEWHERE}",
        ) from error
    except OSError as error:
        raise _unavailable(
            f"the event log {path} cannot be read: {error.strerror}", f"Look at the file; or {_ELSEWHERE}"
        ) from error
    if not log or len(log) > MAX_SIZE:
        raise _unavailable(
            f"the event log {path} has {'no' if not log else f'more than {MAX_SIZE}'} bytes",
            _ELSEWHERE.capitalize(),
        )
    return log


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe that was put in the file's place


def _unavailable(reason: str, remedy: str) -> BackendError:
    return BackendError(VtpmCause.EVENT_LOG, reason, remedy)
