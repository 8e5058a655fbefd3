"""What the simulated firmware and operating system tell the vTPM around the guest's own commands.

Source: TCG TPM 2.0 Library, Part 3, TPM2_Startup, TPM2_Shutdown, TPM2_PCR_Allocate, TPM2_PCR_Extend; EDK2
SecurityPkg/Tcg, which leaves only those banks allocated that it measures into.
"""

from app.errors import TpmRefusedError
from app.evidence.simulator.measured_boot import BANKS
from app.evidence.simulator.swtpm import ANSWERS_WITHIN_S, Swtpm
from app.tpm import codes
from app.tpm.client import Tpm
from app.tpm.transport import Transport
from app.wire.event_log import EventLog
from app.wire.tpm import algorithms as alg

# As platform, with the empty password: a list of banks with a bitmap of registers each.
_ALLOCATE = "8002 00000037 0000012b 4000000c 00000009 40000009 0000 00 0000 00000004"
_SHUTDOWN = bytes.fromhex("8001 0000000c 00000145 0000")
_ALL, _NONE = "03 ffffff", "03 000000"
_POSSIBLE_BANKS = (alg.SHA1, *alg.HASH_NAMES)


def manufacture(swtpm: Swtpm) -> bytes:
    """The state of a TPM that has just those banks which are measured into; off and on to be used.

    Raises:
        TpmRefusedError, TpmUnavailableError: the TPM will not have it.
    """
    start_up(swtpm.transport)
    banks = (f"{bank:04x} {_ALL if bank in BANKS else _NONE}" for bank in _POSSIBLE_BANKS)
    _tell(swtpm.transport, "TPM2_PCR_Allocate", bytes.fromhex(_ALLOCATE + "".join(banks)))
    shut_down(swtpm.transport)
    return swtpm.state()


def start_up(transport: Transport) -> None:
    """TPM2_Startup(CLEAR). Raises as `manufacture`."""
    Tpm(transport, timeout_s=ANSWERS_WITHIN_S).startup()


def measure(transport: Transport, log: EventLog) -> None:
    """Extend what the log says. Raises as `manufacture`."""
    tpm = Tpm(transport, timeout_s=ANSWERS_WITHIN_S)
    for event in log.events:
        if event.extends:
            tpm.pcr_extend(event.pcr, event.digests)


def shut_down(transport: Transport) -> None:
    """TPM2_Shutdown(CLEAR): a TPM that is switched off without counts it against whoever tries keys.

    Raises as `manufacture`.
    """
    _tell(transport, "TPM2_Shutdown", _SHUTDOWN)


def _tell(transport: Transport, name: str, command: bytes) -> None:
    answer = transport.exchange(command, timeout_s=ANSWERS_WITHIN_S)
    code = int.from_bytes(answer[6:10], "big")
    if code != codes.SUCCESS:
        raise TpmRefusedError(name, code, codes.name(code))
