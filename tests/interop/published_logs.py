"""Event logs of real machines with the PCR values that their TPMs had, as go-eventlog publishes them.

They come through the Go module proxy, at the version and with the checksum that event_log_driver's
go.sum pins, into Go's module cache; nothing of them is kept here.
"""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.interop.peers.builds import PeerAbsentError

DRIVER = Path(__file__).resolve().parent / "event_log_driver"
_MODULE = "github.com/google/go-eventlog"
_DOWNLOAD_TIMEOUT_S = 300.0

# In the module's test: `var Name = eventLog{RawLog: testdata.Variable, Banks: ...}`
_CASE = re.compile(
    r"^var (\w+) = eventLog\{\n\s+RawLog:\s+testdata\.(\w+),\n(.*?)^\}", re.MULTILINE | re.DOTALL
)
_BANK = re.compile(r"MakePCRBank\(pb\.HashAlgo_(\w+), map\[uint32\]\[\]byte\{(.*?)\}\)", re.DOTALL)
_REGISTER = re.compile(r'(\d+):\s+decodeHex\("([0-9a-f]+)"\)')
_FILE = re.compile(r"//go:embed (\S+)\n\s+(\w+) \[\]byte")


@dataclass(frozen=True, slots=True)
class PublishedLog:
    """A log, and by bank what its machine's TPM held."""

    name: str
    raw: bytes
    banks: dict[str, dict[int, bytes]]


def published_logs() -> dict[str, PublishedLog]:
    """All of them by name.

    Raises:
        PeerAbsentError: no Go, or the module cannot be had.
    """
    folder = _module()
    data = folder / "testdata"
    files = {variable: path for path, variable in _FILE.findall((data / "eventlog_data.go").read_text())}
    source = (folder / "tpmeventlog" / "replay_test.go").read_text()
    found = {}
    for name, variable, body in _CASE.findall(source):
        banks = {
            bank.lower(): {int(pcr): bytes.fromhex(value) for pcr, value in _REGISTER.findall(registers)}
            for bank, registers in _BANK.findall(body)
        }
        found[name] = PublishedLog(name, (data / files[variable]).read_bytes(), banks)
    return found


def _module() -> Path:
    if shutil.which("go") is None:
        raise PeerAbsentError("no go to fetch published event logs with")
    command = ("go", "-C", str(DRIVER), "mod", "download", "-json", _MODULE)
    try:
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_S
        )
    except subprocess.CalledProcessError as error:
        raise PeerAbsentError(f"published event logs cannot be had: {_reason(error)}") from error
    except subprocess.TimeoutExpired as error:
        raise PeerAbsentError(
            f"published event logs were not fetched within {error.timeout:.0f} s"
        ) from error
    return Path(json.loads(done.stdout)["Dir"])


def _reason(error: subprocess.CalledProcessError) -> str:
    """What `go` wrote: an object with its error, or a line."""
    if error.stdout.startswith("{"):
        return str(json.loads(error.stdout).get("Error"))
    return str((error.stderr.strip() or "no message").splitlines()[-1])
