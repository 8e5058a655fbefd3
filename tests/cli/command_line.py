"""What the tests of the command line share: a command's end, and how to come by it."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens, and nothing leaves this machine
COMMAND = str(Path(sys.executable).with_name("svsm-attest"))


@dataclass(frozen=True)
class Ended:
    """What a command came to."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)


Cli = Callable[..., Ended]
Program = Callable[..., subprocess.CompletedProcess[bytes]]
