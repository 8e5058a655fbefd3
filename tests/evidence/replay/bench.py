"""Hands and eyes for looking at a tsm/report directory: raw system calls, named errors.

Plain Python 3.11 and the standard library, so that it runs in the smallest of virtual machines.
"""

import contextlib
import errno
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

VTPM = b"c476f1eb-0123-45a5-9641-b4e7dde5bfe3"
NOBODY = 65534

REPORT_VARIABLE = "SVSM_ATTEST_TSM_REPORT"
CONTROL_VARIABLE = "SVSM_ATTEST_TSM_CONTROL"
UNLOAD_VARIABLE = "SVSM_ATTEST_TSM_UNLOAD"
LOAD_VARIABLE = "SVSM_ATTEST_TSM_LOAD"
KERNEL_CONTROL = Path("/sys/module/svsm_standin/parameters")

Result = int | str | None  # what a call returned, or the name of the errno it failed with


class NotAvailableError(Exception):
    """This rig lacks a knob or a hook; the message names it."""


def name_of(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, str(error.errno))


class Knobs:
    """The provider's parameters: one file each, of the kernel module or of the emulation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._before: dict[str, bytes] = {}

    def get(self, name: str) -> str:
        try:
            return (self.folder / name).read_text().strip()
        except FileNotFoundError:
            raise NotAvailableError(f"the provider has no parameter {name}") from None

    def set(self, name: str, value: int | bytes) -> None:
        path = self.folder / name
        if not path.exists():
            raise NotAvailableError(f"the provider has no parameter {name}")
        self._before.setdefault(name, path.read_bytes())
        path.write_bytes(value if isinstance(value, bytes) else str(value).encode())

    def restore(self) -> None:
        """Everything that was set, back to what it was."""
        if (self.folder / "reset").exists():
            (self.folder / "reset").write_text("1")
            self._before.clear()
        for name, value in self._before.items():
            (self.folder / name).write_bytes(value)
        self._before.clear()


class Bench:
    """A tsm/report directory and the provider behind it.

    Args:
        report: the directory.
        knobs: the provider's parameters.
        emulated: it is a FUSE file system, which differs where FUSE leaves no choice.
        unload, load: commands that take the provider away and bring it back; `load` gets
            `vmpl=N` as one more argument. Without them the emulation's knobs are turned.
    """

    def __init__(
        self,
        report: Path,
        knobs: Knobs,
        *,
        emulated: bool = False,
        unload: str | None = None,
        load: str | None = None,
    ) -> None:
        self.report = report
        self.knobs = knobs
        self.emulated = emulated
        self._unload = unload
        self._load = load

    @classmethod
    def from_environment(cls, knobs: type[Knobs] = Knobs) -> "Bench":
        """A real mount, as the variables at the top of __main__.py describe it."""
        return cls(
            Path(os.environ[REPORT_VARIABLE]),
            knobs(Path(os.environ.get(CONTROL_VARIABLE, KERNEL_CONTROL))),
            unload=os.environ.get(UNLOAD_VARIABLE),
            load=os.environ.get(LOAD_VARIABLE),
        )

    @contextlib.contextmanager
    def entry(self, name: str = "") -> Iterator[Path]:
        path = self.report / (name or f"bench-{os.getpid()}-{time.monotonic_ns()}")
        path.mkdir()
        try:
            yield path
        finally:
            if path.exists():
                path.rmdir()

    @contextlib.contextmanager
    def without_provider(self) -> Iterator[None]:
        self._take_away()
        try:
            yield
        finally:
            self._bring_back(vmpl=2)

    @contextlib.contextmanager
    def at_vmpl(self, vmpl: int) -> Iterator[None]:
        self._take_away()
        self._bring_back(vmpl=vmpl)
        try:
            yield
        finally:
            self._take_away()
            self._bring_back(vmpl=2)

    def comes_back(self) -> bool:
        """Is a provider accepted now that none is there?"""
        try:
            self._bring_back(vmpl=2)
        except (OSError, subprocess.CalledProcessError):
            return False
        return True

    def _take_away(self) -> None:
        if self.emulated:
            (self.knobs.folder / "present").write_text("0")
        elif self._unload and self._load:
            subprocess.run(shlex.split(self._unload), check=True)
        else:
            raise NotAvailableError(f"{UNLOAD_VARIABLE} and {LOAD_VARIABLE} are not set")

    def _bring_back(self, *, vmpl: int) -> None:
        if self.emulated:
            (self.knobs.folder / "vmpl").write_text(str(vmpl))
            (self.knobs.folder / "present").write_text("1")
        else:
            assert self._load is not None
            subprocess.run([*shlex.split(self._load), f"vmpl={vmpl}"], check=True)


def attempt(call: object, *arguments: object, **options: object) -> Result:
    """What `call` returns if it is a number, None for anything else, or the name of its errno."""
    assert callable(call)
    try:
        result = call(*arguments, **options)
    except OSError as error:
        return name_of(error)
    return result if isinstance(result, int) else None


def write(path: Path, *chunks: bytes) -> list[Result]:
    """Open for writing, write every chunk with one call each, close."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        return [attempt(os.write, descriptor, chunk) for chunk in chunks]
    finally:
        os.close(descriptor)


def read_to_end(descriptor: int, chunk: int = 65536) -> bytes:
    content = b""
    while part := os.read(descriptor, chunk):
        content += part
    return content


@contextlib.contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read(path: Path) -> bytes:
    with opened(path) as descriptor:
        return read_to_end(descriptor)


def see(path: Path) -> str:
    """What a blob is: `report`, `single`, `table`, `empty`, `N bytes`, or the errno."""
    try:
        content = read(path)
    except OSError as error:
        return name_of(error)
    if not content:
        return "empty"
    if path.name == "outblob" and len(content) == 1184:
        return "report"
    if path.name == "manifestblob" and content.startswith(b"\x00\x01\x00\x0b"):
        return "single"
    if path.name == "manifestblob" and content.startswith(b"\xbb\x9e\x84\x63"):
        return "table"
    return f"{len(content)} bytes"


def size(path: Path) -> int | str:
    """Bytes of a blob, or the errno."""
    try:
        return len(read(path))
    except OSError as error:
        return name_of(error)


def generation(entry: Path) -> int:
    return int(read(entry / "generation"))


def select_svsm(entry: Path) -> None:
    write(entry / "service_provider", b"svsm")


# Rights are dropped by the script itself: an interpreter may lie where only root can read it.
_DROP_RIGHTS = f"import os; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"


def as_nobody(script: str, *arguments: object) -> str:
    """The last line that a Python script prints or fails with, run by a user without rights.

    The script may import os and sys, which are loaded by then, and nothing else.
    """
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _DROP_RIGHTS + script, *map(str, arguments)],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    return (run.stdout + run.stderr).strip().splitlines()[-1]
