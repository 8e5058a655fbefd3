"""The form of the table: sections of actions, and of what each must show.

Where FUSE cannot answer as the kernel does, UNAVOIDABLE says what the emulation shows instead,
and why.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.evidence.replay.bench import Bench, generation, write

Perform = Callable[[Bench, list[Any]], Iterator[object]]

NONCE = bytes(range(64))


@dataclass(frozen=True)
class Section:
    """Actions, what each must show, and the function that performs them in order."""

    name: str
    table: tuple[tuple[Any, object], ...]
    perform: Perform
    destructive: bool = False  # leaves a kernel that only a restart heals

    def compare(self, bench: Bench) -> Iterator[tuple[object, object, object]]:
        """Each action, what it must show, and what it showed.

        Raises:
            NotAvailableError: this rig lacks a knob or a hook that the section needs.
        """
        seen = self.perform(bench, [action for action, _ in self.table])
        try:
            for (action, expected), shown in zip(self.table, seen, strict=True):
                if bench.emulated and (known := UNAVOIDABLE.get((self.name, action))):
                    yield action, known[0], shown
                else:
                    yield action, expected, shown
        finally:
            bench.knobs.restore()


def section(*table: tuple[Any, object], destructive: bool = False) -> Callable[[Perform], Section]:
    """Make a Section of a function that yields what each action of `table` showed."""

    def build(perform: Perform) -> Section:
        return Section(perform.__name__, table, perform, destructive)

    return build


NO_EMPTY_WRITE = "a zero-length write() never reaches a FUSE server"
NO_SEEK_ERROR = "FUSE has no file that can be read at an offset but not sought in"
NO_KILL = "the emulation kills the reader but lets everybody else go on"

UNAVOIDABLE: dict[tuple[str, object], tuple[object, str]] = {
    ("privlevel", b""): (([0], 0), NO_EMPTY_WRITE),
    ("service_provider", b""): (([0], 0, "report"), NO_EMPTY_WRITE),
    ("service_guid", b""): (([0], 0, "table"), NO_EMPTY_WRITE),
    ("service_manifest_version", b""): (([0], 0, "EINVAL"), NO_EMPTY_WRITE),
    ("inblob", (b"",)): (([0], 0, "EINVAL"), NO_EMPTY_WRITE),
    ("descriptors", "seek in inblob"): (0, NO_SEEK_ERROR),
    ("descriptors", "seek in outblob"): (0, NO_SEEK_ERROR),
    ("stale_certificates", "another entry afterwards"): ("answers", NO_KILL),
}


def written(entry: Path, attribute: str, *chunks: bytes) -> tuple[list[object], int]:
    """The result of each write, and by how much the generation moved when the file was closed."""
    before = generation(entry)
    results = write(entry / attribute, *chunks)
    return list(results), generation(entry) - before
