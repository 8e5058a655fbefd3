"""`python -m tests.kernel.rig [PYTEST ARGUMENTS]`: configfs-tsm and TPM devices, against a real kernel."""

import compileall
import fcntl
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import modules, packages
from .guest import Guest, GuestError, Hardware
from .tpm import software_tpm

REPOSITORY = Path(__file__).resolve().parents[3]
CACHE = REPOSITORY / ".run/kernel"
ROOT_MODULES = ("9p", "9pnet_virtio")
TEST_MODULES = ("configfs", "tsm")


def tests() -> list[str]:
    """In this order: the ladder wants a kernel without configfs, and the last test leaves no TPM behind."""
    backend = sorted((REPOSITORY / "tests/evidence").glob("test_configfs*.py"))
    return [
        "tests/kernel/test_ladder.py",
        *(str(path.relative_to(REPOSITORY)) for path in backend),
        "tests/kernel/test_lifecycle.py",
        "tests/kernel/test_tpm_device.py",
        "tests/kernel/test_event_log.py",
        "tests/kernel/test_vtpm.py",
        "tests/kernel/test_selftest.py",
        "tests/kernel/test_service.py",
    ]


def main(arguments: list[str]) -> int:
    """Builds what is missing, runs pytest in the guest, and hands out its exit status."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            packages.install(packages.TOOLS)
            release = packages.unpack_kernel(CACHE / "kernel")
        except packages.UnavailableError as reason:
            sys.stdout.write(f"SKIPPED: kernel-test: {reason}\n")
            return 0
        try:
            chosen = bool(arguments) and not arguments[0].startswith("-")
            return run_tests(release, arguments if chosen else [*tests(), *arguments])
        except GuestError as failure:
            sys.stderr.write(f"FAILED: kernel-test: {failure}\n")
            return 1


def run_tests(release: str, arguments: list[str]) -> int:
    """Runs pytest with these arguments in a guest that runs this kernel release."""
    kernel = CACHE / "kernel"
    provider = modules.compile_provider(kernel, release, CACHE / "provider")
    loadable = CACHE / "modules"
    modules.unpack_modules(kernel, release, TEST_MODULES, loadable)
    (loadable / provider.name).write_bytes(provider.read_bytes())
    busybox = kernel / "bin/busybox"
    environment = {
        "SVSM_ATTEST_KERNEL_MODULES": loadable,
        "SVSM_ATTEST_KERNEL_BUSYBOX": busybox,
        "SVSM_ATTEST_TSM_REPORT": "/sys/kernel/config/tsm/report",
        "SVSM_ATTEST_TSM_CONTROL": f"/sys/module/{provider.stem}/parameters",
        "SVSM_ATTEST_TSM_LOAD": f"{busybox} insmod {loadable / provider.name}",
        "SVSM_ATTEST_TSM_UNLOAD": f"{busybox} rmmod {provider.stem}",
    }
    # Once and here: the guest keeps no compiled files, and its processor is emulated.
    compileall.compile_dir(REPOSITORY / "app", quiet=2)
    with tpm() as (hardware, lack):
        if lack:
            environment["SVSM_ATTEST_KERNEL_NO_TPM"] = lack
        guest = Guest(
            kernel=kernel / f"boot/vmlinuz-{release}",
            boot_modules=modules.unpack_modules(kernel, release, ROOT_MODULES, CACHE / "boot-modules"),
            busybox=busybox,
            folder=CACHE / "guest",
            hardware=hardware,
        )
        settings = " ".join(f"{name}={shlex.quote(str(value))}" for name, value in environment.items())
        pytest = f".venv/bin/python -m pytest --quiet --color=no -p no:cacheprovider {shlex.join(arguments)}"
        return guest.run(f"cd {shlex.quote(str(REPOSITORY))} && {settings} {pytest}")


@contextmanager
def tpm() -> Iterator[tuple[Hardware, str]]:
    """A TPM, or why there is none: there is much to test without."""
    try:
        packages.install(packages.TPM_TOOLS)
    except packages.UnavailableError as reason:
        yield Hardware(), str(reason)
        return
    with software_tpm() as hardware:
        yield hardware, ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
