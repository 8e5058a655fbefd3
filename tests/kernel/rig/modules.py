"""Kernel modules: ours, compiled for the guest, and the kernel's own in the order of their dependencies."""

import hashlib
import lzma
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

PROVIDER = Path(__file__).resolve().parent.parent / "provider"


def compile_provider(kernel: Path, release: str, folder: Path) -> Path:
    """Compiles the provider module in `folder`, unless that was done before; returns the module."""
    sources = {source.name: source.read_bytes() for source in sorted(PROVIDER.iterdir())}
    stamp, digest = folder / "digest", hashlib.sha256(repr((release, sources)).encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, content in sources.items():
            (folder / name).write_bytes(content)
        subprocess.run(_make(kernel, release, folder), check=True, stdin=subprocess.DEVNULL)
        stamp.write_text(digest)
    (module,) = folder.glob("*.ko")
    return module


def _make(kernel: Path, release: str, folder: Path) -> list[str]:
    headers = kernel / "usr/src"
    common = headers / f"linux-headers-{release.removesuffix('-amd64')}-common"
    return [
        *("make", "--silent", f"--directory={headers / f'linux-headers-{release}'}"),
        f"--file={common / 'Makefile'}",  # the one in place includes it by its installed path
        f"M={folder}",
        "CONFIG_DEBUG_INFO_BTF_MODULES=",  # needs pahole, and nothing here reads BTF
        "modules",
    ]


def unpack_modules(kernel: Path, release: str, names: Iterable[str], folder: Path) -> list[Path]:
    """Decompresses the named modules and all that they need into `folder`; returns them in loading order."""
    packed = {_name(path): path for path in (kernel / "lib/modules" / release / "kernel").rglob("*.ko.xz")}
    folder.mkdir(parents=True, exist_ok=True)
    ordered: dict[str, Path] = {}

    def unpack(name: str) -> None:
        if name in ordered:
            return
        image = lzma.decompress(packed[name].read_bytes())
        for needed in _needs(image):
            unpack(needed)
        ordered[name] = folder / f"{name}.ko"
        ordered[name].write_bytes(image)

    for name in names:
        unpack(name)
    return list(ordered.values())


def _name(path: Path) -> str:
    return path.name.removesuffix(".ko.xz").replace("-", "_")


def _needs(image: bytes) -> Iterator[str]:
    entry = re.search(rb"\0depends=([^\0]*)\0", image)
    if entry is None:
        raise ValueError("not a kernel module: no depends= in it")
    yield from filter(None, entry[1].decode().replace("-", "_").split(","))
