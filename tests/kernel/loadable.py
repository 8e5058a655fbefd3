"""Parts of the guest's kernel that tests load and unload, and the one of them that is ours."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from app.evidence.configfs import REPORT_DIRECTORY
from app.evidence.vtpm.event_log import EVENT_LOG

CONFIGFS = REPORT_DIRECTORY.parent.parent
SECURITYFS = EVENT_LOG.parent.parent


@dataclass(frozen=True, slots=True)
class Kernel:
    """The running kernel, and a busybox that loads modules as the host's kmod might not."""

    busybox: Path
    modules: Path

    def load(self, module: str, **parameters: int) -> None:
        settings = [f"{name}={value}" for name, value in parameters.items()]
        self._run("insmod", str(self.modules / f"{module}.ko"), *settings)

    def unload(self, module: str) -> None:
        self._run("rmmod", module)

    def mount_configfs(self) -> None:
        self._run("mount", "-t", "configfs", "configfs", str(CONFIGFS))

    def mount_securityfs(self) -> None:
        self._run("mount", "-t", "securityfs", "securityfs", str(SECURITYFS))

    def unmount_securityfs(self) -> None:
        self._run("umount", str(SECURITYFS))

    def _run(self, *command: str) -> None:
        subprocess.run([self.busybox, *command], check=True, timeout=60)


@dataclass(frozen=True, slots=True)
class Provider:
    """The stand-in for the SEV guest driver. Its parameters are documented in its source."""

    kernel: Kernel

    NAME: ClassVar = "svsm_standin"
    PARAMETERS: ClassVar = Path("/sys/module", NAME, "parameters")

    @property
    def loaded(self) -> bool:
        return self.PARAMETERS.is_dir()

    @property
    def calls(self) -> int:
        """How many reports were asked for since it was loaded."""
        return int((self.PARAMETERS / "calls").read_text())

    def load(self, **parameters: int) -> None:
        self.kernel.load(self.NAME, **parameters)

    def unload(self) -> None:
        if self.loaded:
            self.kernel.unload(self.NAME)

    def set(self, **parameters: int | str) -> None:
        for name, value in parameters.items():
            (self.PARAMETERS / name).write_text(str(value))
