"""The diagnosis where no file system can be made to fail that way."""

import errno
import os
from pathlib import Path

import pytest

from app.errors import BackendBusyError
from app.evidence import diagnosis
from app.evidence.backend import Cause
from app.evidence.configfs_sequence import Step, StepFailedError
from app.evidence.diagnosis import Circumstances, diagnose, diagnose_directory, in_initial_user_namespace

HERE = Circumstances(directory=Path("/"))


def failed(step: Step, number: int) -> StepFailedError:
    return StepFailedError(step, OSError(number, os.strerror(number)))


@pytest.mark.parametrize("step", Step)
def test_every_failure_has_a_cause_and_a_remedy(step: Step) -> None:
    for number in errno.errorcode:
        error = diagnose(failed(step, number), HERE)
        assert error.cause in set(Cause)
        assert error.errno == number
        assert error.reason[-1] != "."
        assert error.remedy[-1] != "."
        assert isinstance(error, BackendBusyError) == (error.cause == Cause.INTERFERENCE)


@pytest.mark.parametrize(
    ("step", "number", "cause"),
    [
        (Step.CREATE, errno.ENXIO, Cause.NO_PROVIDER),
        (Step.CREATE, errno.EACCES, Cause.PERMISSION),
        (Step.CREATE, errno.EPERM, Cause.PERMISSION),
        (Step.CREATE, errno.EEXIST, Cause.INTERFERENCE),
        (Step.CREATE, errno.ENOSPC, Cause.PLATFORM),
        (Step.SELECT_SVSM, errno.EACCES, Cause.PERMISSION),
        (Step.SELECT_SERVICE, errno.EINVAL, Cause.PLATFORM),
        (Step.SELECT_PRIVLEVEL, errno.EINVAL, Cause.PRIVILEGE_FLOOR),
        (Step.SELECT_PRIVLEVEL, errno.ENXIO, Cause.NO_PROVIDER),
        (Step.NONCE, errno.EINVAL, Cause.PLATFORM),
        (Step.SVSM_REPORT, errno.EIO, Cause.PLATFORM),
        (Step.PLAIN_REPORT, errno.EIO, Cause.CERTIFICATES_TOO_LARGE),
        (Step.PLAIN_REPORT, errno.EINVAL, Cause.REPORT_REFUSED),
    ],
)
def test_the_step_decides_with_the_errno(step: Step, number: int, cause: Cause) -> None:
    assert diagnose(failed(step, number), HERE).cause == cause


def test_an_oserror_without_words() -> None:
    error = diagnose(StepFailedError(Step.NONCE, OSError("strange")), HERE)
    assert error.reason == "handing over the nonce failed: strange"


def test_the_directory_comes_before_the_errno(tmp_path: Path) -> None:
    gone = Circumstances(directory=tmp_path / "tsm" / "report")
    assert diagnose(failed(Step.CREATE, errno.ENOENT), gone).cause == Cause.CONFIGFS_NOT_MOUNTED


@pytest.mark.parametrize(
    ("number", "uid", "namespaced", "hint"),
    [
        (errno.EACCES, 1000, False, "as root"),
        (errno.EACCES, 0, True, "user-namespace remapping"),
        (errno.EACCES, 0, False, "SELinux"),
        (errno.EROFS, 1000, True, "read-write"),
    ],
)
def test_who_is_refused_decides_the_remedy(
    monkeypatch: pytest.MonkeyPatch, number: int, uid: int, hint: str, *, namespaced: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(diagnosis, "in_initial_user_namespace", lambda: not namespaced)
    error = diagnose(failed(Step.CREATE, number), HERE)
    assert (error.cause, error.errno) == (Cause.PERMISSION, number)
    assert hint in error.remedy


def test_a_directory_that_may_not_even_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", refuse)
    error = diagnose_directory(Path("/sys/kernel/config/tsm/report"))
    assert error is not None
    assert error.cause == Cause.PERMISSION


@pytest.mark.parametrize(
    ("content", "initial"),
    [
        ("         0          0 4294967295\n", True),
        ("         0     100000      65536\n", False),
        ("         0       1000          1\n         1     100000      65536\n", False),
    ],
)
def test_user_namespaces(tmp_path: Path, content: str, *, initial: bool) -> None:
    (tmp_path / "uid_map").write_text(content)
    assert in_initial_user_namespace(tmp_path / "uid_map") == initial


def test_a_kernel_without_user_namespaces(tmp_path: Path) -> None:
    assert in_initial_user_namespace(tmp_path / "uid_map")
