import json
import multiprocessing
import os
import resource
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from app.verifier.private_files import AppendLog, UnsafeFileError, read_private, write_new


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def lines(path: Path) -> list[object]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def make(path: Path, permissions: int = 0o600, content: bytes = b"x") -> Path:
    path.write_bytes(content)
    path.chmod(permissions)
    return path


def test_a_file_of_one_s_own_is_read(tmp_path: Path) -> None:
    for permissions in (0o600, 0o400):
        assert read_private(make(tmp_path / f"{permissions}", permissions, b"content"), 7) == b"content"


@pytest.mark.parametrize("permissions", [0o640, 0o604, 0o660, 0o622, 0o610, 0o601, 0o644, 0o777])
def test_a_file_that_others_may_touch_is_not_read(tmp_path: Path, permissions: int) -> None:
    path = make(tmp_path / "key", permissions)
    with pytest.raises(UnsafeFileError, match=f"mode {permissions:04o}, which lets others in: chmod 600"):
        read_private(path, 100)


@pytest.mark.parametrize(
    ("owner", "permissions", "reason"),
    [
        (0, 0o640, None),
        (0, 0o440, None),
        (0, 0o644, "lets others in"),
        (0, 0o660, "lets others in"),
        (1001, 0o600, "belongs to another user"),
        (1000, 0o640, "lets others in"),
        (1000, 0o600, None),
    ],
)
def test_root_may_hand_a_file_to_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int, permissions: int, reason: str | None
) -> None:
    path = make(tmp_path / "key", permissions)
    true = path.stat()
    as_owned = os.stat_result((true.st_mode, *true[1:4], owner, *true[5:10]))
    monkeypatch.setattr(os, "fstat", lambda _: as_owned)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    if reason is None:
        assert read_private(path, 100) == b"x"
        return
    with pytest.raises(UnsafeFileError, match=reason):
        read_private(path, 100)


def named_pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)


def folder(path: Path) -> None:
    path.mkdir(mode=0o700)


def device(path: Path) -> None:
    path.symlink_to("/dev/null")


@pytest.mark.parametrize(
    ("create", "reason"),
    [(named_pipe, "not a file"), (folder, "not a file|Is a directory"), (device, "not a file")],
)
def test_what_is_no_file_is_neither_read_nor_appended_to(
    tmp_path: Path, create: Callable[[Path], None], reason: str
) -> None:
    create(tmp_path / "it")
    with pytest.raises(UnsafeFileError, match=reason):
        read_private(tmp_path / "it", 100)
    with pytest.raises(UnsafeFileError, match=reason):
        AppendLog(tmp_path / "it").append({})


def test_too_much_and_nothing_at_all(tmp_path: Path) -> None:
    with pytest.raises(UnsafeFileError, match="has 8 bytes, at most 7"):
        read_private(make(tmp_path / "key", content=b"content!"), 7)
    with pytest.raises(UnsafeFileError, match="cannot be opened: No such file"):
        read_private(tmp_path / "absent", 7)


def test_a_new_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_new(tmp_path / "key", b"content")
        AppendLog(tmp_path / "log").append({})
    finally:
        os.umask(before)
    assert (tmp_path / "key").read_bytes() == b"content"
    assert mode(tmp_path / "key") == mode(tmp_path / "log") == 0o600


def test_a_file_that_exists_stays_as_it_is(tmp_path: Path) -> None:
    write_new(tmp_path / "key", b"first")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "key", b"second")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "link", b"second")
    assert (tmp_path / "key").read_bytes() == b"first"
    assert not (tmp_path / "elsewhere").exists()


def test_half_a_file_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_new(tmp_path / "key", b"content")
    assert not (tmp_path / "key").exists()


def test_lines_are_added_and_nothing_else_changes(tmp_path: Path) -> None:
    log = AppendLog(tmp_path / "log")
    log.demand_writable()
    assert (tmp_path / "log").read_bytes() == b""
    log.append({"n": 1, "text": "line\nbreak"})
    log.append({"n": 2})
    assert lines(tmp_path / "log") == [{"n": 1, "text": "line\nbreak"}, {"n": 2}]


def test_a_log_that_was_moved_away_begins_anew(tmp_path: Path) -> None:
    log = AppendLog(tmp_path / "log")
    log.append({"n": 1})
    (tmp_path / "log").rename(tmp_path / "log.1")
    log.append({"n": 2})
    assert (lines(tmp_path / "log.1"), lines(tmp_path / "log")) == ([{"n": 1}], [{"n": 2}])


@pytest.mark.parametrize("permissions", [0o640, 0o644, 0o622])
def test_a_log_that_others_may_touch_is_not_written(tmp_path: Path, permissions: int) -> None:
    log = AppendLog(make(tmp_path / "log", permissions, b""))
    for use in (log.demand_writable, lambda: log.append({})):
        with pytest.raises(UnsafeFileError, match="lets others in"):
            use()
    assert (tmp_path / "log").read_bytes() == b""


def test_a_log_in_no_folder_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UnsafeFileError, match="cannot be opened: No such file"):
        AppendLog(tmp_path / "absent" / "log").demand_writable()


def test_half_a_line_is_taken_back(tmp_path: Path) -> None:
    log = AppendLog(tmp_path / "log")
    log.append({"n": 1})
    whole = (tmp_path / "log").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 3, hard))  # three bytes of the next line fit
    try:
        with pytest.raises(UnsafeFileError, match="3 of 10 bytes fit"):
            log.append({"n": 222})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "log").read_bytes() == whole
    log.append({"n": 3})
    assert lines(tmp_path / "log") == [{"n": 1}, {"n": 3}]


def test_a_disk_that_does_not_keep_it_is_a_line_not_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AppendLog(tmp_path / "log")
    log.append({"n": 1})

    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(UnsafeFileError, match="cannot be written: Input/output error"):
            log.append({"n": 2})
    assert lines(tmp_path / "log") == [{"n": 1}]


def test_half_a_line_that_a_power_cut_left_spoils_only_itself(tmp_path: Path) -> None:
    path = make(tmp_path / "log", content=b'{"n":1}\n{"n":')
    AppendLog(path).append({"n": 3})
    assert path.read_bytes() == b'{"n":1}\n{"n":\n{"n":3}\n'


def _append_many(path: Path, writer: int) -> None:
    for number in range(50):
        AppendLog(path).append({"writer": writer, "number": number, "filler": "x" * 2000})


def test_processes_that_append_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    path = tmp_path / "log"
    writers = [context.Process(target=_append_many, args=(path, writer)) for writer in range(3)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(60)
        assert process.exitcode == 0
    found = [(line["writer"], line["number"]) for line in map(json.loads, path.read_text().splitlines())]
    assert sorted(found) == [(writer, number) for writer in range(3) for number in range(50)]
