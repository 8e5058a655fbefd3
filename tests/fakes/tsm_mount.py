"""Start and stop the TSM emulation so that nothing can hang on it."""

import contextlib
import ctypes.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parents[2]
_START_S = 20.0


class MountNotPossibleError(Exception):
    """This machine cannot mount FUSE file systems; the message says why."""


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """The emulation on a new directory in `folder`, which stands for .../config/tsm.

    Raises:
        MountNotPossibleError: no FUSE here: no device, no library, or no permission.
    """
    _demand_fuse()
    mountpoint = folder / "tsm"
    mountpoint.mkdir()
    errors = folder / "tsm_fuse.stderr"
    with errors.open("wb") as stderr:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.tsm_fuse", str(mountpoint), *options],
            cwd=_REPOSITORY,
            env=os.environ | {"FUSE_LIBRARY_NAME": "fuse3"},
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
        )
    try:
        _await_mount(server, mountpoint, errors)
        yield mountpoint
    finally:
        server.kill()  # first of all: whatever waits for an answer is let go
        server.wait()
        subprocess.run(["fusermount3", "-uz", str(mountpoint)], check=False, capture_output=True)


def _demand_fuse() -> None:
    if not Path("/dev/fuse").exists():
        raise MountNotPossibleError("no /dev/fuse")
    if ctypes.util.find_library("fuse3") is None or shutil.which("fusermount3") is None:
        raise MountNotPossibleError("no libfuse3 (package fuse3)")
    if os.geteuid() != 0:
        raise MountNotPossibleError("only root may let other users into a FUSE mount")


def _await_mount(server: subprocess.Popen[bytes], mountpoint: Path, errors: Path) -> None:
    """Look for the mount in the list of mounts: a stat of a mount point that is not answered hangs."""
    deadline = time.monotonic() + _START_S
    while f" {mountpoint} " not in Path("/proc/self/mounts").read_text():
        if server.poll() is not None:
            complaint = errors.read_text(errors="replace").strip()
            if "Operation not permitted" in complaint or "Permission denied" in complaint:
                raise MountNotPossibleError(f"mounting is not permitted ({complaint.splitlines()[-1]})")
            raise RuntimeError(f"the TSM emulation did not start:\n{complaint}")
        if time.monotonic() > deadline:
            raise RuntimeError("the TSM emulation did not mount in time")
        time.sleep(0.01)
