"""Raw reading and writing, on ordinary files where no kernel can be made to answer so."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from app.errors import BackendError
from app.evidence import configfs_entry
from app.evidence.backend import Cause
from app.evidence.configfs_entry import PREFIX, ReportEntry, remove_stale
from app.evidence.configfs_sequence import DEVELOPMENT, MAINLINE, dialect_of


@pytest.fixture
def entry(tmp_path: Path) -> ReportEntry:
    return ReportEntry(tmp_path)


def errno_of(raised: pytest.ExceptionInfo[OSError]) -> int | None:
    return raised.value.errno


def test_a_blob_of_the_largest_size(entry: ReportEntry) -> None:
    (entry.path / "outblob").write_bytes(bytes(32768))
    assert entry.blob("outblob") == bytes(32768)


def test_a_blob_without_end(entry: ReportEntry) -> None:
    (entry.path / "outblob").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="more than 32768 bytes") as raised:
        entry.blob("outblob")
    assert errno_of(raised) == errno.EFBIG


def test_a_blob_that_comes_in_pieces(entry: ReportEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(1184)
    (entry.path / "outblob").write_bytes(content)
    read = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, size: read(descriptor, min(size, 100)))
    assert entry.blob("outblob") == content


def test_a_pipe_that_would_block_is_an_error_and_not_nothing(entry: ReportEntry) -> None:
    os.mkfifo(entry.path / "outblob")
    keep = os.open(entry.path / "outblob", os.O_RDWR)
    os_open = os.open
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "open", lambda path, flags: os_open(path, flags | os.O_NONBLOCK))
            with pytest.raises(BlockingIOError) as raised:
                entry.blob("outblob")
    finally:
        os.close(keep)
    assert errno_of(raised) == errno.EAGAIN


@pytest.mark.parametrize("text", ["", "x\n", "1 2\n", "0x1\n", "\xff\n"])
def test_a_number_that_is_none(entry: ReportEntry, text: str) -> None:
    (entry.path / "generation").write_text(text, encoding="latin-1")
    with pytest.raises(OSError, match="generation is not a number") as raised:
        entry.number("generation")
    assert errno_of(raised) == errno.EPROTO


def test_a_text_attribute_of_more_than_a_page(entry: ReportEntry) -> None:
    (entry.path / "provider").write_bytes(b"x" * 4097)
    with pytest.raises(OSError, match="more than 4096 bytes"):
        entry.text("provider")


def test_accepted_writes_are_counted(entry: ReportEntry) -> None:
    (entry.path / "inblob").touch()
    entry.write("inblob", bytes(64))
    with pytest.raises(FileNotFoundError):
        entry.write("service_guid", b"x")  # nothing is ever created
    assert entry.writes == 1
    assert (entry.path / "inblob").read_bytes() == bytes(64)


def test_every_descriptor_is_closed(entry: ReportEntry) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    (entry.path / "full").symlink_to("/dev/full")
    (entry.path / "zero").symlink_to("/dev/zero")
    with ReportEntry.fresh(entry.path):
        pass
    for call in (lambda: entry.write("full", b"x"), lambda: entry.blob("zero")):
        with pytest.raises(OSError, match=r"No space|more than"):
            call()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_entry_goes_whatever_happens_inside(tmp_path: Path) -> None:
    def interrupted() -> None:
        with ReportEntry.fresh(tmp_path) as entry:
            assert entry.path.name.startswith(f"{PREFIX}{os.getpid()}-")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_an_entry_that_is_gone_already(tmp_path: Path) -> None:
    with ReportEntry.fresh(tmp_path) as entry:
        entry.path.rmdir()


def test_an_entry_on_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(_: int, __: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / f"{PREFIX}{1 << 70}-00").mkdir()
    with ReportEntry.fresh(tmp_path) as entry:
        assert remove_stale(tmp_path) == [f"{PREFIX}{1 << 70}-00"]
        assert entry.path.is_dir()


def test_an_entry_that_cannot_be_opened_serves_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os_open = os.open

    def refuse_directories(path: Path, flags: int) -> int:
        if flags & os.O_DIRECTORY:
            raise PermissionError(errno.EACCES, "Permission denied")
        return os_open(path, flags)

    monkeypatch.setattr(os, "open", refuse_directories)
    with ReportEntry.fresh(tmp_path) as entry:
        assert entry.path.is_dir()


def test_a_process_of_another_user_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(_: int, __: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "kill", kill)
    (tmp_path / f"{PREFIX}77-00").mkdir()
    assert remove_stale(tmp_path) == []


def test_what_cannot_be_removed_or_listed_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = tmp_path / f"{PREFIX}{1 << 70}-00"
    stale.mkdir()
    (stale / "file").touch()
    assert remove_stale(tmp_path) == []
    assert remove_stale(tmp_path / "nowhere") == []

    def glob(_: Path, __: str) -> list[Path]:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "glob", glob)
    assert remove_stale(tmp_path) == []
    assert stale.is_dir()
    assert configfs_entry._alive == set()


COMMON = {"inblob", "outblob", "auxblob", "provider", "generation", "privlevel", "privlevel_floor"}
MAINLINE_NAMES = {"service_provider", "service_guid", "service_manifest_version", "manifestblob"}
DEVELOPMENT_NAMES = {"svsm", "service_guid", "service_version", "manifestblob"}


@pytest.mark.parametrize(
    ("names", "dialect"),
    [
        (MAINLINE_NAMES, MAINLINE),
        (MAINLINE_NAMES | {"manifest_selector"}, MAINLINE),  # what newer kernels may add
        (DEVELOPMENT_NAMES, DEVELOPMENT),
        (MAINLINE_NAMES | DEVELOPMENT_NAMES, MAINLINE),
    ],
)
def test_dialects(names: set[str], dialect: object) -> None:
    assert dialect_of(frozenset(COMMON | names)) is dialect


@pytest.mark.parametrize("names", [set(), MAINLINE_NAMES - {"manifestblob"}, {"svsm"}])
def test_no_dialect(names: set[str]) -> None:
    with pytest.raises(BackendError) as caught:
        dialect_of(frozenset(COMMON | names))
    assert caught.value.cause == Cause.NO_SVSM
