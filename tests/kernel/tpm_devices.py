"""The guest's two TPM devices, and who can do what to the TPM behind them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from app.tpm import handles
from app.tpm.client import Tpm
from app.tpm.transport import DeviceTransport
from tests.kernel.rig.tpm import LINE

BARE, MANAGED = Path("/dev/tpm0"), Path("/dev/tpmrm0")
TIMEOUT_S = 60.0
# TPM2_CreatePrimary as COCONUT-SVSM sends it: the endorsement hierarchy, an empty password, template L-1 of
# the TCG EK Credential Profile.
CREATE_EK = (
    bytes.fromhex("8002 00000163 00000131 4000000b 00000009 40000009 0000 01 0000 0004 0000 0000 013a")
    + bytes.fromhex("0001 000b 000300b2")
    + bytes.fromhex("0020 837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
    + bytes.fromhex("0006 0080 0043 0010 0800 00000000 0100")
    + bytes(256)
    + bytes.fromhex("0000 00000000")
)
_PORTS = Path("/sys/class/virtio-ports")


@contextlib.contextmanager
def tpm(device: Path) -> Iterator[Tpm]:
    """Our client on a device."""
    with contextlib.closing(DeviceTransport(device)) as channel:
        yield Tpm(channel, timeout_s=TIMEOUT_S)


def loaded() -> tuple[int, ...]:
    """Every key and session in the TPM: the resource manager would hide those of others."""
    with tpm(BARE) as client:
        kinds = (handles.TRANSIENT, handles.LOADED_SESSIONS, handles.POLICY_SESSIONS)
        return sum((client.handles(kind) for kind in kinds), ())


class Host:
    """The host of this guest, as far as it does something to the TPM when it is asked."""

    def __init__(self) -> None:
        (port,) = (port for port in _PORTS.iterdir() if (port / "name").read_text().strip() == LINE)
        self._port = Path("/dev", port.name)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The TPM takes commands while the block runs, or until it is thawed, and answers none."""
        self._ask("freeze")
        try:
            yield
        finally:
            self.thaw()

    def thaw(self) -> None:
        """The TPM goes on where it was."""
        self._ask("thaw")

    def end_tpm(self) -> None:
        """The TPM is gone for good."""
        self._ask("end")

    def _ask(self, word: str) -> None:
        with self._port.open("r+b", buffering=0) as line:
            line.write(f"{word}\n".encode())
            assert line.readline() == f"{word}\n".encode()
