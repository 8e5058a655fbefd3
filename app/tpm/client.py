"""A TPM's commands as methods, over one channel."""

from app.tpm.keys import KeyCommands
from app.tpm.nv import NvCommands
from app.tpm.pcrs import PcrCommands
from app.tpm.sessions import SessionCommands


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
