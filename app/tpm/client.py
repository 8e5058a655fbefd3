"""A TPM's commands as methods, over one channel."""

from app.errors import TpmRefusedError
from app.tpm.keys import KeyCommands
from app.tpm.nv import NvCommands
from app.tpm.pcrs import PcrCommands
from app.tpm.sessions import SessionCommands
from app.tpm.transport import Transport


class Tpm(SessionCommands, KeyCommands, PcrCommands, NvCommands):
    """One user's view of a TPM. Blocks; not for two threads at once.

    Every method asks one command, or a few, and raises:

    - TpmRefusedError: the TPM's return code, by name;
    - TpmUnavailableError: the TPM did not answer in time, or not sensibly. The channel may be of no
      more use then.

    Nothing is retried but what the TPM itself asks to be sent again. Objects and sessions that a
    method loads are the caller's to flush: `transient` and the other context managers do it however
    their block ends.
    """


def emptied(transport: Transport, *, timeout_s: float = 5.0) -> Transport:
    """The same channel, once all that a predecessor left in the TPM is flushed.

    For the only user of a TPM that keeps what was loaded when its channel is closed: swtpm behind a
    socket, /dev/tpm0. Not for /dev/tpmrm0, where the kernel does it.

    Raises:
        TpmUnavailableError: as every command; the channel is closed then.
    """
    try:
        Tpm(transport, timeout_s=timeout_s).flush_all()
    except TpmRefusedError:
        pass  # not started up: nothing can be loaded
    except BaseException:
        transport.close()
        raise
    return transport
