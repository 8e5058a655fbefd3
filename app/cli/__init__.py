"""The command line: `svsm-attest`."""

import sys

from app.cli.application import run

__all__ = ["main"]


def main() -> None:
    """Run the command that the arguments name and exit with its code."""
    sys.exit(run(sys.argv[1:]))
