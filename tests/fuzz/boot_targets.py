"""What firmware and its makers say of a boot: event logs, their events, IGVM files."""

import contextlib
import json
from typing import Any

from app.appraisal.boot_claims import boot_claims
from app.appraisal.event_log_checks import check_event_log as judge_event_log
from app.appraisal.event_log_checks import proven_registers
from app.appraisal.findings import Outcome
from app.cli.inspection.event_log import event_log_sheet
from app.errors import WireError
from app.wire.event_log import EventLog
from app.wire.igvm.file import IgvmFile
from app.wire.igvm.kvm import kvm_faults
from app.wire.igvm.snp import SnpLaunch
from app.wire.launch_digest import depends_on_zero_pages, launch_digest, page_counts
from app.wire.tpm import algorithms as alg
from app.wire.tpm.pcr import PcrValues
from app.wire.uefi_image_load import ImageLoad
from app.wire.uefi_variable import UefiVariable
from tests.fuzz.target import Target
from tests.wire.igvm.files import resealed

MANY_PAGES = 1024  # what a few bytes can claim takes seconds to hash


def check_event_log(raw: bytes, log: EventLog) -> None:
    assert log.encode() == raw
    banks = {alg.HASH_NAMES[one]: dict(enumerate(log.replay(one))) for one in log.hash_algs}
    if banks:
        values = PcrValues.of(banks)
        assert judge_event_log(log, values).outcome is Outcome.PASSED
        proven = proven_registers(log, values)
        assert all(len(pcrs) == 24 for pcrs in proven.values())
        assert json.dumps(boot_claims(log, proven))
    assert json.dumps(event_log_sheet(log, len(raw)).to_json())


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
        assert all(0 < fault.offset < len(raw) for fault in kvm_faults(launch))
        if page_counts(launch).total() < MANY_PAGES:
            digests = {launch_digest(launch, native_zero=native) for native in (False, True)}
            assert len(digests) == 1 + depends_on_zero_pages(launch)


BOOT_TARGETS: dict[str, Target[Any]] = {
    "event-log": Target(EventLog.parse, (WireError,), check_event_log),
    "uefi-variable": Target(UefiVariable.parse, (WireError,), check_variable),
    "uefi-image-load": Target(ImageLoad.parse, (WireError,), check_image_load),
    "igvm": Target(read_igvm, (WireError,), check_igvm),
}
