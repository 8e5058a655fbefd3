"""What Debian provides: tools that are installed, and a kernel for the guest that is only unpacked."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TOOLS = ("qemu-system-x86", "cpio", "gcc-12", "make", "libelf1")  # libelf1: the kernel's objtool
TPM_TOOLS = ("swtpm", "tpm2-tools")
SUITE = "bookworm"
BACKPORTS = f"{SUITE}-backports"
SOURCES = Path("/etc/apt")


class UnavailableError(Exception):
    """The reason why the rig cannot be had on this machine. It says nothing about the code under test."""


def install(tools: Sequence[str]) -> None:
    """Installs those of the packages that are missing; needs root only then."""
    if shutil.which("dpkg-query") is None:
        raise UnavailableError("the rig is made of Debian packages, and this is not Debian")
    missing = [name for name in tools if not _is_installed(name)]
    if missing:
        apt = [*_as_root(missing), "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet", "--yes"]
        _say(f"installing {', '.join(missing)}")
        _run([*apt, "update"], what="the package lists")
        _run([*apt, "install", "--no-install-recommends", *missing], what=", ".join(missing))


def unpack_kernel(folder: Path) -> str:
    """Unpacks Linux 6.12, its headers and a static busybox into `folder`; returns the kernel's release.

    Nothing is installed: the running system keeps its kernels and its package sources. apt checks the
    signatures as ever, with the keys of the machine's own sources.
    """
    if not folder.is_dir():
        _say(f"fetching a kernel from {BACKPORTS}")
        apt = folder.with_name("apt")
        shutil.rmtree(apt, ignore_errors=True)
        packages = _download(apt)
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        for package in packages:
            subprocess.run(["dpkg-deb", "--extract", package, unfinished], check=True)
        unfinished.rename(folder)
        shutil.rmtree(apt)
    (image,) = folder.glob("boot/vmlinuz-*")
    return image.name.removeprefix("vmlinuz-")


def _download(apt: Path) -> list[Path]:
    sources, archives, lists = apt / "sources", apt / "packages", apt / "lists"
    for path in (sources, archives, lists / "partial"):
        path.mkdir(parents=True)
    _write_sources(sources)
    options = [
        f"-oDir::Etc::SourceParts={sources}",
        "-oDir::Etc::SourceList=/dev/null",
        f"-oDir::State::Lists={lists}",
        f"-oDir::Cache={apt}",
        f"-oAPT::Default-Release={BACKPORTS}",
        "-oAPT::Sandbox::User=root",  # apt's own user may not reach our folder
        "-oAcquire::Languages=none",
    ]
    _run(["apt-get", *options, "--quiet", "--error-on=any", "update"], what=f"the lists of {BACKPORTS}")
    known = _run(["apt-cache", *options, "--no-all-versions", "show", "linux-image-amd64"], what="the kernel")
    release = re.search(r"^Depends: linux-image-(6\.12\.\S+-amd64) ", known, re.MULTILINE)
    if release is None:  # later kernels name the interface that the provider module uses otherwise
        raise UnavailableError(f"{BACKPORTS} offers no Linux 6.12")
    version = release[1].removesuffix("-amd64")
    names = (
        f"linux-image-{release[1]}",
        f"linux-headers-{release[1]}",
        f"linux-headers-{version}-common",
        f"linux-kbuild-{version}",
        "busybox-static",
    )
    _run(["apt-get", *options, "--quiet", "download", *names], what=", ".join(names), cwd=archives)
    return sorted(archives.glob("*.deb"))


def _write_sources(folder: Path) -> None:
    """Asks for the backports wherever the machine gets its Debian from."""
    for path in sorted(SOURCES.glob("sources.list.d/*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text()):
            suites = re.search(rf"^Suites:.*\b{SUITE}(?:\s.*)?$", stanza, re.MULTILINE)
            if suites and re.search(r"^Types:.*\bdeb\b(?!-)", stanza, re.MULTILINE):
                wanted = stanza.replace(suites[0], f"Suites: {SUITE} {BACKPORTS}")
                (folder / "mirror.sources").write_text(wanted + "\n")
                return
    for path in (SOURCES / "sources.list", *sorted(SOURCES.glob("sources.list.d/*.list"))):
        entries = path.read_text() if path.is_file() else ""
        entry = re.search(rf"^(deb\s+(?:\[.*\]\s+)?\S+\s+){SUITE}(\s.*)$", entries, re.MULTILINE)
        if entry:
            wanted = "".join(f"{entry[1]}{suite}{entry[2]}\n" for suite in (SUITE, BACKPORTS))
            (folder / "mirror.list").write_text(wanted)
            return
    raise UnavailableError(f"no entry for Debian {SUITE} among the machine's package sources")


def _is_installed(package: str) -> bool:
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout == "installed"


def _as_root(missing: Sequence[str]) -> list[str]:
    if os.geteuid() == 0:
        return []
    sudo = ["sudo", "-n"]
    if (
        shutil.which("sudo")
        and subprocess.run([*sudo, "true"], capture_output=True, check=False).returncode == 0
    ):
        return sudo
    raise UnavailableError(f"{', '.join(missing)} not installed, and neither root nor sudo to install with")


def _say(line: str) -> None:
    sys.stdout.write(f"kernel-test: {line}\n")
    sys.stdout.flush()


def _run(command: Sequence[str], *, what: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("E: ")]
        raise UnavailableError(f"apt could not provide {what}: {errors[0] if errors else done.returncode}")
    return done.stdout
