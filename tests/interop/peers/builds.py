"""The peers' published releases: which version, how it is built, where the binary is kept.

All are built by their own toolchain from its own registry into `.run/peers/`, once per
version. A toolchain or a registry that is not there is a named reason to skip, not a failure.
"""

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).resolve().parents[3] / ".run" / "peers"
BUILD_TIMEOUT_S = 3600.0  # snpguest is 200 crates: four minutes on two idle cores, twenty on busy ones


class PeerAbsentError(Exception):
    """A peer that cannot be had here; the message names the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One published release of one peer.

    Attributes:
        folder_variable: the environment variable that tells `command` where to install; the
            program appears in `program`, relative to that folder.
    """

    name: str
    version: str
    toolchain: str
    command: tuple[str, ...]
    folder_variable: str
    program: str

    def binary(self, cache: Path) -> Path:
        """The built program, built now if `cache` does not hold it.

        Raises:
            PeerAbsentError: no toolchain, or its build failed (no registry, compiler too old, ...).
        """
        folder = cache / f"{self.name}-{self.version}"
        program = folder / self.program
        if program.is_file():
            return program
        if shutil.which(self.toolchain) is None:
            raise PeerAbsentError(f"no {self.toolchain} to build {self.name} {self.version} with")
        print(f"building {self.name} {self.version}", flush=True)  # noqa: T201 (it takes minutes)
        folder.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {self.folder_variable: str(folder.resolve())}
        try:
            subprocess.run(
                self.command,
                env=environment,
                check=True,
                capture_output=True,
                text=True,
                timeout=BUILD_TIMEOUT_S,
            )
        except subprocess.CalledProcessError as error:
            last_line = (error.stderr.strip().splitlines() or ["no message"])[-1].strip()
            raise PeerAbsentError(f"{self.name} {self.version} does not build here: {last_line}") from error
        except subprocess.TimeoutExpired as error:
            raise PeerAbsentError(
                f"{self.name} {self.version} was not built within {error.timeout:.0f} s"
            ) from error
        return program


_CHECK = "0.15.0"
_SNPGUEST = "0.11.0"

CHECK = Build(
    name="check",
    version=_CHECK,
    toolchain="go",
    command=("go", "install", f"github.com/google/go-sev-guest/tools/check@v{_CHECK}"),
    folder_variable="GOBIN",
    program="check",
)

SNPGUEST = Build(
    name="snpguest",
    version=_SNPGUEST,
    toolchain="cargo",
    command=("cargo", "install", "--quiet", "--locked", "snpguest", "--version", _SNPGUEST),
    folder_variable="CARGO_INSTALL_ROOT",
    program="bin/snpguest",
)

# The igvm crate is a library: the program around it is ours, and a change of it is a new version.
_DRIVER = Path(__file__).resolve().parents[1] / "igvm_driver"
_DRIVER_DIGEST = hashlib.sha256(
    b"".join((_DRIVER / name).read_bytes() for name in ("Cargo.toml", "Cargo.lock", "src/main.rs"))
).hexdigest()[:8]

IGVM_DRIVER = Build(
    name="igvm-driver",
    version=f"0.5.0-{_DRIVER_DIGEST}",
    toolchain="cargo",
    command=(
        *("cargo", "install", "--quiet", "--locked", "--path", str(_DRIVER)),
        *("--target-dir", str(CACHE / "igvm-driver-target")),
    ),
    folder_variable="CARGO_INSTALL_ROOT",
    program="bin/igvm-driver",
)
