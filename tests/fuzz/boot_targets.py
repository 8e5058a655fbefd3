"""What firmware and its makers say of a boot: event logs, their events, IGVM files."""

import contextlib
from typing import Any

from app.errors import WireError
from app.wire.event_log import EventLog
from app.wire.igvm.file import IgvmFile
from app.wire.igvm.snp import SnpLaunch
from app.wire.uefi_image_load import ImageLoad
from app.wire.uefi_variable import UefiVariable
from tests.fuzz.target import Target
from tests.wire.igvm.files import resealed


def check_event_log(raw: bytes, log: EventLog) -> None:
    assert log.encode() == raw
    for hash_alg in log.hash_algs:
        assert len(log.replay(hash_alg)) == 24


def check_variable(raw: bytes, variable: UefiVariable) -> None:
    assert variable.encode() == raw


def check_image_load(raw: bytes, load: ImageLoad) -> None:
    assert load.encode() == raw
    with contextlib.suppress(WireError):
        load.path()


def read_igvm(raw: bytes) -> IgvmFile:
    return IgvmFile.parse(resealed(raw))  # or nothing that is damaged would pass the checksum


def check_igvm(raw: bytes, file: IgvmFile) -> None:
    assert file.raw == resealed(raw)
    assert file.platforms
    with contextlib.suppress(WireError):
        launch = SnpLaunch.of(file)
        assert len(launch.steps) <= len(file.headers)
        assert all(launch.vmsa(context).vmpl < 256 for context in launch.contexts)


BOOT_TARGETS: dict[str, Target[Any]] = {
    "event-log": Target(EventLog.parse, (WireError,), check_event_log),
    "uefi-variable": Target(UefiVariable.parse, (WireError,), check_variable),
    "uefi-image-load": Target(ImageLoad.parse, (WireError,), check_image_load),
    "igvm": Target(read_igvm, (WireError,), check_igvm),
}
