import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.evidence.simulator import ephemeral_folder
from app.evidence.simulator.ephemeral_folder import PREFIX, EphemeralFolder

MAKE = """
import tempfile, sys, time
from app.evidence.simulator.ephemeral_folder import EphemeralFolder
tempfile.tempdir = sys.argv[1]
print(EphemeralFolder.make().path, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def folder_named(temporary: Path, name: str) -> Path:
    folder = temporary / name
    folder.mkdir()
    (folder / "state").write_bytes(b"seeds")
    return folder


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def test_it_is_private_and_locked_and_gone_afterwards() -> None:
    folder = EphemeralFolder.make()
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert folder.path.is_absolute()
    (folder.path / "state").write_bytes(b"seeds")
    with opened(folder.path) as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    folder.remove()
    assert not folder.path.exists()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(folder.descriptor)


def test_a_folder_in_use_stays_and_an_abandoned_one_goes(temporary: Path) -> None:
    first = EphemeralFolder.make()
    left = folder_named(temporary, PREFIX + "left")
    other = folder_named(temporary, "somebody-elses")
    file = temporary / (PREFIX + "file")
    file.touch()
    second = EphemeralFolder.make()
    assert first.path.exists()
    assert not left.exists()
    assert other.exists()
    assert file.exists()
    first.remove()
    second.remove()


def test_the_folder_of_a_process_that_was_killed_goes_with_the_next(temporary: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", MAKE, str(temporary)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        theirs = Path(process.stdout.readline().strip())
        EphemeralFolder.make().remove()
        assert theirs.is_dir()  # it is in use
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert theirs.is_dir()  # nobody was left to remove it
    EphemeralFolder.make().remove()
    assert not theirs.exists()


def test_a_child_that_inherits_the_lock_keeps_the_folder(temporary: Path) -> None:
    folder = EphemeralFolder.make()
    child = subprocess.Popen(["sleep", "600"], pass_fds=(folder.descriptor,))
    os.close(folder.descriptor)  # as if only the child were left
    EphemeralFolder.make().remove()
    assert folder.path.exists()
    child.kill()
    child.wait()
    EphemeralFolder.make().remove()
    assert list(temporary.iterdir()) == []


def test_a_link_is_not_followed(temporary: Path) -> None:
    theirs = folder_named(temporary, "theirs")
    (temporary / (PREFIX + "link")).symlink_to(theirs)
    EphemeralFolder.make().remove()
    assert (theirs / "state").read_bytes() == b"seeds"


def test_a_folder_of_another_user_is_left_alone(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = folder_named(temporary, PREFIX + "left")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    EphemeralFolder.make().remove()
    assert left.exists()


def test_one_that_is_taken_away_at_once_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = ephemeral_folder._lock
    taken: list[Path] = []

    def take_the_first(path: Path) -> int | None:
        if not taken:
            taken.append(path)
            path.rmdir()
        return lock(path)

    monkeypatch.setattr(ephemeral_folder, "_lock", take_the_first)
    folder = EphemeralFolder.make()
    assert folder.path != taken[0]
    folder.remove()


def test_one_that_was_replaced_while_it_was_being_locked_is_not_taken(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder_named(temporary, PREFIX + "replaced")
    flock = fcntl.flock

    def replace_and_lock(descriptor: int, operation: int) -> None:
        path.rename(temporary / "away")
        path.mkdir()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", replace_and_lock)
    assert ephemeral_folder._lock(path) is None


def test_where_nothing_can_be_locked_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="Function not implemented"):
        EphemeralFolder.make()


def test_where_all_are_taken_away_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ephemeral_folder, "_lock", lambda _path: None)
    with pytest.raises(OSError, match="taken away"):
        EphemeralFolder.make()
