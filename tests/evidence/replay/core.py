"""The report core: errors that pass through, sizes, the one lock, races, a provider that goes."""

import contextlib
import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.evidence.replay.bench import (
    Bench,
    NotAvailableError,
    attempt,
    generation,
    read,
    see,
    select_svsm,
    size,
    write,
)
from tests.evidence.replay.section import NONCE, section, written


@section(
    *(
        (name, (shown, shown, 2, "report"))
        for name, shown in (
            ("EIO", "EIO"),
            ("EBADMSG", "EBADMSG"),
            ("ENOTTY", "ENOTTY"),
            ("ENXIO", "ENXIO"),
            ("ETIMEDOUT", "ETIMEDOUT"),
            ("EOPNOTSUPP", "ENOTSUP"),  # one number, and this is Python's first name for it
            ("ENOSR", "ENOSR"),
            ("ENOMEM", "ENOMEM"),
            ("EAGAIN", "EAGAIN"),
        )
    )
)
def provider_errors(bench: Bench, names: list[str]) -> Iterator[object]:
    with bench.entry() as entry:
        select_svsm(entry)
        for name in names:
            write(entry / "inblob", NONCE)
            bench.knobs.set("fail_errno", getattr(errno, name))
            bench.knobs.set("fail_count", 2)
            before = int(bench.knobs.get("calls"))
            failures = [size(entry / "outblob"), size(entry / "manifestblob")]
            yield *failures, int(bench.knobs.get("calls")) - before, see(entry / "outblob")


@section(
    ((32768, 314, 0), (32768, 314, 0)),
    ((32769, 314, 0), ("EFBIG", 314, 0)),
    ((1184, 40000, 0), (1184, "EFBIG", 0)),
    ((1184, 0, 0), (1184, "EFBIG", 0)),  # an absent manifest leaves the length of the last one
    ((1184, 314, 16384), (1184, 314, 16384)),
)
def sizes(bench: Bench, asked: list[tuple[int, int, int]]) -> Iterator[object]:
    with bench.entry() as entry:
        select_svsm(entry)
        for out, manifest, certificates in asked:
            bench.knobs.set("outblob_size", out)
            bench.knobs.set("manifest_size", manifest)
            bench.knobs.set("auxblob_size", certificates)
            write(entry / "inblob", NONCE)
            yield tuple(size(entry / blob) for blob in ("outblob", "manifestblob", "auxblob"))


@section(("generation of another entry, while one generates", "waits"))
def one_lock(bench: Bench, _: list[str]) -> Iterator[object]:
    delay_s = 0.6
    with bench.entry() as slow, bench.entry() as other:
        select_svsm(slow)
        write(slow / "inblob", NONCE)
        bench.knobs.set("delay_ms", int(delay_s * 1000))
        before = int(bench.knobs.get("calls"))
        reader = threading.Thread(target=read, args=(slow / "outblob",))
        reader.start()
        while int(bench.knobs.get("calls")) == before:
            time.sleep(0.005)
        start = time.monotonic()
        generation(other)
        yield "waits" if time.monotonic() - start > delay_s / 2 else "does not wait"
        reader.join()


def _ask(entry: Path) -> str:
    """One request: `clean`, `noticed` (the generation says that somebody else wrote), or `missed`."""
    nonce = os.urandom(64)
    before = generation(entry)
    write(entry / "inblob", nonce)
    report, manifest = read(entry / "outblob"), read(entry / "manifestblob")
    if generation(entry) != before + 1:
        return "noticed"
    return "clean" if report[0x50:0x90] == hashlib.sha512(nonce + manifest).digest() else "missed"


def _ask_in_own_entry(bench: Bench) -> str:
    with bench.entry() as entry:
        select_svsm(entry)
        return _ask(entry)


@section(
    ("four threads, one entry: mixed answers that generation does not tell", 0),
    ("four threads, an entry for each request", {"clean"}),
)
def race(bench: Bench, _: list[str]) -> Iterator[object]:
    with ThreadPoolExecutor(4) as threads:
        with bench.entry() as shared:
            select_svsm(shared)
            yield list(threads.map(_ask, [shared] * 120)).count("missed")
        yield set(threads.map(_ask_in_own_entry, [bench] * 60))


@section(
    ("outblob made before", "report"),
    ("provider", "ENXIO"),
    ("privlevel_floor", "ENXIO"),
    ("privlevel", (["ENXIO"], 0)),
    ("mkdir", "ENXIO"),
    ("inblob", ([64], 1)),
    ("outblob", "ENXIO"),
    ("a provider comes back while there is an entry", False),
)
def provider_gone(bench: Bench, _: list[str]) -> Iterator[object]:
    with bench.entry() as entry:
        select_svsm(entry)
        write(entry / "inblob", NONCE)
        read(entry / "outblob")
        with bench.without_provider():
            yield see(entry / "outblob")
            yield size(entry / "provider")
            yield size(entry / "privlevel_floor")
            yield written(entry, "privlevel", b"2")
            yield attempt((bench.report / "late").mkdir)
            yield written(entry, "inblob", NONCE)
            yield see(entry / "outblob")
            yield bench.comes_back()
            entry.rmdir()


@section(
    (
        "attributes without an SVSM",
        ["auxblob", "generation", "inblob", "outblob", "privlevel", "privlevel_floor", "provider"],
    ),
    ("attributes with one again", 11),
)
def no_svsm(bench: Bench, _: list[str]) -> Iterator[object]:
    with bench.at_vmpl(0), bench.entry() as entry:
        yield sorted(path.name for path in entry.iterdir())
    with bench.entry() as entry:
        yield len(list(entry.iterdir()))


_READ = "import sys; open(sys.argv[1], 'rb').read()"


@section(
    ("with certificates", 8192),
    ("a new report without any", "report"),
    ("reading auxblob", "killed"),
    ("another entry afterwards", "hangs"),
    destructive=True,
)
def stale_certificates(bench: Bench, _: list[str]) -> Iterator[object]:
    """The kernel follows a null pointer, in the reader's name and with its lock held."""
    with contextlib.suppress(NotAvailableError):
        bench.knobs.set("oops_kills", 1)
    with bench.entry() as entry, bench.entry() as other:
        select_svsm(entry)
        bench.knobs.set("auxblob_size", 8192)
        write(entry / "inblob", NONCE)
        yield size(entry / "auxblob")
        bench.knobs.set("auxblob_size", 0)
        write(entry / "inblob", NONCE)
        yield see(entry / "outblob")
        reader = subprocess.run([sys.executable, "-c", _READ, entry / "auxblob"], check=False)
        yield "killed" if reader.returncode == -signal.SIGKILL else reader.returncode
        witness = subprocess.Popen([sys.executable, "-c", _READ, other / "generation"])
        try:
            witness.wait(10)
        except subprocess.TimeoutExpired:
            yield "hangs"
        else:
            yield "answers"
