"""Replay the table on a real tsm/report directory. Python 3.11 is enough; no package is needed.

As root, from the top of the repository, with the provider of tests/kernel loaded:

    SVSM_ATTEST_TSM_REPORT=/sys/kernel/config/tsm/report python3 -m tests.evidence.replay

Optional variables:

    SVSM_ATTEST_TSM_CONTROL   the provider's parameters (/sys/module/svsm_standin/parameters)
    SVSM_ATTEST_TSM_UNLOAD    command that unloads the provider, such as `rmmod svsm_standin`
    SVSM_ATTEST_TSM_LOAD      command that loads it, such as `insmod svsm_standin.ko`; gets `vmpl=N`

Without the last two, sections that need a missing provider are skipped. `--destructive` adds
the null pointer after which a kernel has to be restarted.

Exit code: 0 all as recorded, 1 a difference, 2 usage.
"""

# ruff: noqa: T201  # its output is what it is for

import argparse
import os
import sys

from tests.evidence.replay.bench import REPORT_VARIABLE, Bench, NotAvailableError
from tests.evidence.replay.table import SECTIONS


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.evidence.replay", description=__doc__.partition("\n")[0])
    parser.add_argument("--destructive", action="store_true", help="also what a kernel does not survive")
    arguments = parser.parse_args()
    if REPORT_VARIABLE not in os.environ:
        parser.error(f"{REPORT_VARIABLE} is not set")
    bench = Bench.from_environment()
    differences = 0
    for section in SECTIONS:
        if section.destructive and not arguments.destructive:
            continue
        try:
            for action, expected, shown in section.compare(bench):
                same = shown == expected
                differences += not same
                print(f"{'same' if same else 'DIFFERS'}  {section.name}: {action!r} -> {shown!r}", flush=True)
                if not same:
                    print(f"         recorded: {expected!r}", flush=True)
        except NotAvailableError as lack:
            print(f"skipped  {section.name}: {lack}", flush=True)
    print(f"{differences} differences")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
