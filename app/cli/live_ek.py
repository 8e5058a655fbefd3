"""Is the EK that the SVSM vouched for the one that the live TPM has?

An EK is derived from the TPM's seed, so a TPM that is asked for it again gives the same one.
Asked through tpm2-tools, where they are; the resource manager gives the transient slot back.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

from app.attester.endorsement_key import endorsement_key
from app.errors import WireError
from app.wire.tpm.public import TpmtPublic

TOOL = "tpm2_createek"
_TIMEOUT_S = 60.0
# Template -> what the tool calls the algorithm; it makes keys by the low-range templates.
_ALGORITHMS = {"L-1": "rsa", "L-2": "ecc"}


class NotComparedError(Exception):
    """The live TPM was not asked; the message says why."""


def live_ek(attested: TpmtPublic, tcti: str) -> TpmtPublic:
    """The EK that the TPM has, of the same template as the attested one. Blocks up to a minute.

    Args:
        attested: the EK in the manifest.
        tcti: how tpm2-tools reach the TPM, such as `device:/dev/tpmrm0`.

    Raises:
        NotComparedError: no tool, another template, or a TPM that refuses.
    """
    program = shutil.which(TOOL)
    if program is None:
        raise NotComparedError(f"{TOOL} (tpm2-tools) is not installed")
    algorithm = _ALGORITHMS.get(attested.template or "")
    if algorithm is None:
        raise NotComparedError(f"{TOOL} knows no template {attested.template}")
    with tempfile.TemporaryDirectory(prefix="svsm-attest-") as folder:
        public = Path(folder, "ek.pub")
        command = [program, "-T", tcti, "-G", algorithm, "-c", f"{folder}/ek.ctx", "-u", str(public)]
        try:
            done = subprocess.run(  # noqa: S603 (a fixed program with fixed arguments)
                command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotComparedError(f"{TOOL} did not finish: {error}") from error
        if done.returncode:
            said = " ".join(done.stderr.split())[-200:]
            raise NotComparedError(f"{TOOL} failed: {said}")
        try:
            return TpmtPublic.from_tpm2b(public.read_bytes())
        except (OSError, WireError) as error:
            raise NotComparedError(f"{TOOL} gave no public area: {error}") from error


def device_tcti(device: Path) -> str:
    """How tpm2-tools reach a TPM device.

    Raises:
        NotComparedError: there is no such device.
    """
    if not device.exists():
        raise NotComparedError(f"there is no {device}")
    return f"device:{device}"


def attested_ek(manifest: bytes) -> TpmtPublic:
    """The EK in a manifest.

    Raises:
        NotComparedError: there is none.
    """
    ek = endorsement_key(manifest)
    if ek is None:
        raise NotComparedError("the manifest holds no EK")
    return ek
