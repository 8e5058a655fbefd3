import os
from pathlib import Path

import pytest

from app.errors import BackendError
from app.evidence.vtpm.event_log import MAX_SIZE, read_event_log


def test_a_log_is_read_as_it_is(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for content in (b"\0", bytes(range(256)), bytes(MAX_SIZE)):
        log.write_bytes(content)
        assert read_event_log(log) == content


def refusal(path: Path) -> BackendError:
    with pytest.raises(BackendError) as caught:
        read_event_log(path)
    assert caught.value.cause == "event-log-unavailable"
    assert "without its event log" in caught.value.remedy
    return caught.value


def test_a_log_that_cannot_be_read_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no event log at" in refusal(tmp_path / "none").reason
    assert "Is a directory" in refusal(tmp_path).reason
    empty, large, pipe = (tmp_path / name for name in ("empty", "large", "pipe"))
    empty.touch()
    assert refusal(empty).reason.endswith("has no bytes")
    large.write_bytes(bytes(MAX_SIZE + 1))
    assert refusal(large).reason.endswith(f"has more than {MAX_SIZE} bytes")
    assert refusal(Path("/dev/zero")).reason.endswith(f"has more than {MAX_SIZE} bytes")
    os.mkfifo(pipe)
    assert refusal(pipe).reason.endswith("has no bytes")  # and nobody waits for somebody to write

    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    assert "may not be read" in refusal(large).reason
