"""The virtual machine: built from a few files, run to its end, judged by its last words."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

INIT = Path(__file__).with_name("init")
CONSOLE_TAIL = 80  # holds an oops and the lines before it
TIMED_OUT = 124  # what timeout(1) exits with
# The kernel dies of an oops (oops=panic), and -no-reboot ends the machine with it; this finds the rest.
KERNEL_COMPLAINT = re.compile(r"\b(?:BUG|WARNING|Oops|Kernel panic|INFO: task \S+ blocked)\b")


class GuestError(Exception):
    """The guest did not live to hand out a status, or its kernel complained on the way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """More of it than two serial lines and the files: QEMU arguments, and the open descriptors they name."""

    arguments: Sequence[str] = ()
    descriptors: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """What to boot."""

    kernel: Path
    boot_modules: Sequence[Path]
    busybox: Path
    folder: Path
    hardware: Hardware
    memory_mib: int = 1024
    timeout_s: int = 1200

    @property
    def console(self) -> Path:
        """The kernel's messages, and those of PID 1."""
        return self.folder / "console.log"

    @property
    def output(self) -> Path:
        """What the job printed."""
        return self.folder / "job.log"

    @property
    def complaints(self) -> Path:
        """What QEMU itself said."""
        return self.folder / "qemu.log"

    def run(self, job: str) -> int:
        """Runs a shell command line in the host's files as the guest sees them; returns its exit status.

        The output is passed on as it comes.

        Raises:
            GuestError: no status within `timeout_s`, or a complaint of the kernel in the console log.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        initramfs = self._pack(job)
        self.console.unlink(missing_ok=True)
        with (
            self.complaints.open("w") as complaints,
            subprocess.Popen(
                self._command(initramfs),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                pass_fds=tuple(self.hardware.descriptors),
                text=True,
                errors="replace",
            ) as machine,
        ):
            try:
                status = self._pass_on(machine.stdout or ())
            except BaseException:  # the machine has a process group of its own, and hears no Ctrl-C
                machine.terminate()
                raise
        console = self.console.read_text(errors="replace") if self.console.exists() else ""
        if machine.returncode == TIMED_OUT:
            raise self._error(f"the guest did not come to an end within {self.timeout_s} s", console)
        if status is None:
            raise self._error("the guest ended without handing out a status", console)
        if KERNEL_COMPLAINT.search(console):
            raise self._error("the guest's kernel complained", console)
        return status

    def _error(self, reason: str, console: str) -> GuestError:
        tail = "\n".join(line.rstrip() for line in console.splitlines()[-CONSOLE_TAIL:])
        said = self.complaints.read_text(errors="replace")
        return GuestError(f"{reason}; QEMU said:\n{said}the last lines of the guest's console:\n{tail}")

    def _pass_on(self, lines: Iterable[str]) -> int | None:
        """Passes on what the job prints, but for the last line, if that is its status."""
        status = None
        with self.output.open("w") as output:
            for line in lines:
                output.write(line.rstrip() + "\n")
                status = re.fullmatch(r"exit status (\d+)\s*", line)
                if status is None:
                    sys.stdout.write(line.rstrip() + "\n")
                    sys.stdout.flush()
        return int(status[1]) if status else None

    def _pack(self, job: str) -> Path:
        root = self.folder / "initramfs"
        shutil.rmtree(root, ignore_errors=True)
        for below in ("bin", "modules", "dev"):
            (root / below).mkdir(parents=True)
        shutil.copy(INIT, root / "init")
        (root / "init").chmod(0o755)
        shutil.copy(self.busybox, root / "bin/busybox")
        for module in self.boot_modules:
            shutil.copy(module, root / "modules")
        names = " ".join(module.stem for module in self.boot_modules)
        (root / "job").write_text(f"boot_modules={shlex.quote(names)}\njob={shlex.quote(job)}\n")
        members = "".join(f"{path.relative_to(root)}\n" for path in sorted(root.rglob("*")))
        archive = self.folder / "initramfs.cpio"
        with archive.open("wb") as packed:
            pack = ["cpio", "--quiet", "--create", "--format=newc", "--owner=0:0"]
            subprocess.run(pack, input=members.encode(), stdout=packed, cwd=root, check=True)
        return archive

    def _command(self, initramfs: Path) -> list[str]:
        return [
            *("timeout", "--kill-after=10", str(self.timeout_s)),
            *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
            # One processor: a second one costs more in spinning, on a busy host above all, than it gives.
            *("-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", str(self.memory_mib)),
            *("-kernel", str(self.kernel), "-initrd", str(initramfs)),
            *("-append", "console=ttyS0 loglevel=5 oops=panic panic=-1 mitigations=off"),
            *("-serial", f"file:{self.console}", "-serial", "stdio"),
            *("-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"),
            *self.hardware.arguments,
        ]
