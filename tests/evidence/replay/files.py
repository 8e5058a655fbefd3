"""Directories, descriptors and users: what comes from configfs rather than from the report core."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.evidence.replay.bench import (
    NOBODY,
    Bench,
    as_nobody,
    attempt,
    generation,
    opened,
    read,
    read_to_end,
    see,
    select_svsm,
    write,
)
from tests.evidence.replay.section import NONCE, section


@section(
    ("seek in inblob", "ESPIPE"),
    ("write at an offset, before and after close", (64, 0, 1)),
    ("seek in outblob", "ESPIPE"),
    ("read at offset 0", 10),
    ("read in small pieces", True),
    ("read on after a new report", (1084, "the old one")),
    ("opened before, first read after a write", "the new one"),
    ("generation again through one descriptor", ("the old one", 1)),
    ("write_bytes of 64, 65 and no bytes", [(64, 1), ("EFBIG", 1), (0, 0)]),
    ("read_bytes, open().read()", (1184, 1184)),
)
def descriptors(bench: Bench, _: list[str]) -> Iterator[object]:
    with bench.entry() as entry:
        select_svsm(entry)
        with opened(entry / "inblob", os.O_WRONLY) as descriptor:
            yield attempt(os.lseek, descriptor, 0, os.SEEK_SET)
        before = generation(entry)
        with opened(entry / "inblob", os.O_WRONLY) as descriptor:
            written = os.pwrite(descriptor, NONCE, 0)
            moved = generation(entry) - before
        yield written, moved, generation(entry) - before
        with opened(entry / "outblob") as descriptor:
            yield attempt(os.lseek, descriptor, 0, os.SEEK_SET)
        with opened(entry / "outblob") as descriptor:
            yield len(os.pread(descriptor, 10, 0))
        first = read(entry / "outblob")
        with opened(entry / "outblob") as descriptor:
            yield read_to_end(descriptor, 100) == first
        with opened(entry / "outblob") as reading, opened(entry / "outblob") as waiting:
            os.read(reading, 100)
            write(entry / "inblob", NONCE)
            second = read(entry / "outblob")
            rest = read_to_end(reading)
            yield len(rest), "the old one" if rest == first[100:] != second[100:] else "another"
            yield "the new one" if read_to_end(waiting) == second else "another"
        with opened(entry / "generation") as descriptor:
            old = os.read(descriptor, 100)
            write(entry / "inblob", NONCE)
            os.lseek(descriptor, 0, os.SEEK_SET)
            again = os.read(descriptor, 100)
        yield "the old one" if again == old else "another", generation(entry) - int(old)
        yield [_by_path(entry, content) for content in (NONCE, bytes(65), b"")]
        write(entry / "inblob", NONCE)
        with (entry / "outblob").open("rb") as file:
            yield len((entry / "outblob").read_bytes()), len(file.read())


def _by_path(entry: Path, content: bytes) -> tuple[object, int]:
    before = generation(entry)
    return attempt((entry / "inblob").write_bytes, content), generation(entry) - before


@section(
    ("mkdir exists", "EEXIST"),
    ("mkdir nested", "EPERM"),
    ("unlink attr", "EPERM"),
    ("create file", "EACCES"),
    ("create in report", "EACCES"),
    ("rename", "EPERM"),
    ("mkdir len 255", None),
    ("mkdir len 256", "ENAMETOOLONG"),
    ("mkdir a.b-c_d", None),
    ("mkdir é", None),
    ("mkdir a b", None),
    ("rmtree", ("EPERM", True)),
    ("rmdir with open fds", None),
    ("unread fd", "ENOENT"),
    ("already-read fd", 1174),
    ("after rmdir", False),
    ("rmdir report", "EPERM"),
    ("mkdir tsm/x", "EPERM"),
)
def directories(bench: Bench, actions: list[str]) -> Iterator[object]:
    with bench.entry() as entry:
        yield attempt(entry.mkdir)
        yield attempt((entry / "nested").mkdir)
        yield attempt((entry / "outblob").unlink)
        yield attempt((entry / "file").touch)
        yield attempt((bench.report / "file").touch)
        yield attempt(entry.rename, bench.report / "renamed")
        for action in actions[6:11]:
            name = action.removeprefix("mkdir ")
            path = bench.report / (name if not name.startswith("len ") else "x" * int(name[4:]))
            yield attempt(path.mkdir)
            if path.name != "x" * 256:
                path.rmdir()
        yield attempt(shutil.rmtree, entry), entry.is_dir()
        select_svsm(entry)
        write(entry / "inblob", NONCE)
        with opened(entry / "outblob") as started, opened(entry / "outblob") as waiting:
            os.read(started, 10)
            yield attempt(entry.rmdir)
            yield attempt(os.read, waiting, 10)
            yield len(read_to_end(started))
        yield entry.exists()
    yield attempt(bench.report.rmdir)
    yield attempt((bench.report.parent / "x").mkdir)


_OPEN_AND_WRITE = "import os,sys; os.write(os.open(sys.argv[1], os.O_WRONLY), bytes(64)); print('ok')"
_READ = "import os,sys; print(len(os.read(os.open(sys.argv[1], os.O_RDONLY), 4096)))"
_MKDIR = "import os,sys; os.mkdir(sys.argv[1]); print('ok')"
_RMDIR = "import os,sys; os.rmdir(sys.argv[1]); print('ok')"


def _refused(script: str, path: Path) -> str:
    outcome = as_nobody(script, path)
    return "EACCES" if outcome.startswith("PermissionError: [Errno 13]") else outcome


@section(
    ("mkdir", "EACCES"),
    ("read root's outblob", ("1184", 1)),
    ("write root's inblob", "EACCES"),
    ("mkdir in a directory of one's own", ("ok", 0)),
    ("write to an entry of one's own making", "EACCES"),
    ("write after chown of the attributes", ("ok", "report")),
    ("rmdir of it", ("ok", False)),
)
def without_rights(bench: Bench, _: list[str]) -> Iterator[object]:
    mine = bench.report / "nobodys"
    yield _refused(_MKDIR, mine)
    with bench.entry() as entry:
        select_svsm(entry)
        write(entry / "inblob", NONCE)
        before = int(bench.knobs.get("calls"))
        yield as_nobody(_READ, entry / "outblob"), int(bench.knobs.get("calls")) - before
        yield _refused(_OPEN_AND_WRITE, entry / "inblob")
    os.chown(bench.report, NOBODY, NOBODY)
    try:
        yield as_nobody(_MKDIR, mine), mine.stat().st_uid
        yield _refused(_OPEN_AND_WRITE, mine / "inblob")
        for attribute in mine.iterdir():
            os.chown(attribute, NOBODY, NOBODY)
        select_svsm(mine)
        yield as_nobody(_OPEN_AND_WRITE, mine / "inblob"), see(mine / "outblob")
        yield as_nobody(_RMDIR, mine), mine.exists()
    finally:
        os.chown(bench.report, 0, 0)
