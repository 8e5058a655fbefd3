"""From an errno and the step that met it to a cause and a remedy.

The kernel has one word, EINVAL, for nearly everything that can go wrong behind it. So the
rules below are asked in order, from what is missing altogether to what only one request met,
and the first that knows an answer gives it.

Sources of the causes: Linux sev-guest, drivers/virt/coco and svsm_process_result_codes();
svsm kernel/src/protocols/attest.rs and greq/.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.errors import BackendBusyError, BackendError
from app.evidence.backend import Cause
from app.evidence.configfs_sequence import MAX_PRIVLEVEL, Step, StepFailedError
from app.evidence.vtpm_state import VtpmState
from app.wire.evidence import Service

_KERNEL_LOG = "the kernel log (`dmesg | grep 'SVSM attestation'`) has the SVSM's own result code"


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What is known besides the errno."""

    directory: Path
    service: Service = Service.VTPM
    manifest_version: int = 0
    granted_before: bool = False  # this very request, by this SVSM, since this process started
    refusals: int = 1  # in a row, this one included
    vtpm: VtpmState | None = None


Rule = Callable[[StepFailedError, Circumstances], BackendError | None]


def diagnose(failure: StepFailedError, circumstances: Circumstances) -> BackendError:
    """The most likely cause of a failed step. Total: what no rule knows is a platform error."""
    for rule in _RULES:
        if (found := rule(failure, circumstances)) is not None:
            return found
    return _error(
        failure,
        Cause.PLATFORM,
        f"{failure.step} failed: {failure.error.strerror or failure.error}",
        "Look at the kernel log of the VM (`dmesg`)",
    )


def diagnose_directory(directory: Path) -> BackendError | None:
    """Why `directory`, which is tsm/report, cannot be used; None if it is there."""
    tsm = directory.parent
    root = tsm.parent
    try:
        if directory.is_dir():
            return None
        mounted = tsm.is_dir() or root.is_mount()
    except OSError as error:
        return _permission_denied(f"looking at {directory}", error)
    if not mounted:
        return BackendError(
            Cause.CONFIGFS_NOT_MOUNTED,
            f"configfs is not mounted at {root}",
            f"Run `modprobe configfs && mount -t configfs none {root}`; in a container, bind-mount the "
            "host's configfs there, read-write",
        )
    return BackendError(
        Cause.TSM_MISSING,
        f"configfs has no {tsm.name}/{directory.name}",
        "Load the sev-guest driver (`modprobe sev-guest`), which brings the tsm module (tsm_report since "
        "Linux 6.16); the kernel needs CONFIG_TSM_REPORTS, Linux 6.7 or later",
    )


def _missing_directory(failure: StepFailedError, circumstances: Circumstances) -> BackendError | None:
    if failure.step is not Step.CREATE:
        return None
    return diagnose_directory(circumstances.directory)


def _missing_provider(failure: StepFailedError, _: Circumstances) -> BackendError | None:
    if failure.error.errno != errno.ENXIO:
        return None
    reason = "no driver provides reports"
    if failure.step in {Step.SVSM_REPORT, Step.PLAIN_REPORT}:
        reason = "the driver that provided reports is gone, or the security processor knows no such request"
    return _error(
        failure,
        Cause.NO_PROVIDER,
        reason,
        "Load the sev-guest driver (`modprobe sev-guest`); it loads only in an AMD SEV-SNP VM",
    )


def _permission(failure: StepFailedError, _: Circumstances) -> BackendError | None:
    if failure.error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return None
    return _permission_denied(failure.step, failure.error)


def _permission_denied(what: str, error: OSError) -> BackendError:
    if error.errno == errno.EROFS:
        remedy = "Mount configfs read-write; a container needs the host's mount, without `:ro`"
    elif os.geteuid() != 0:
        remedy = (
            "Run the attester as root: the kernel makes report entries owned by root, whoever asks, so that "
            "changing the owner of the directory is not enough"
        )
    elif not in_initial_user_namespace():
        remedy = (
            "Run the container without user-namespace remapping: its root is not the VM's root, which owns "
            "the report entries"
        )
    else:
        remedy = "Look for a dropped capability or a security module (SELinux: container_t and configfs_t)"
    return BackendError(Cause.PERMISSION, f"{what} is not permitted", remedy, errno=error.errno)


def in_initial_user_namespace(uid_map: Path = Path("/proc/self/uid_map")) -> bool:
    """Is uid 0 here the VM's own root? Assumed where the kernel does not say."""
    try:
        lines = uid_map.read_text("ascii").splitlines()
    except OSError:
        return True
    return [tuple(map(int, line.split())) for line in lines] == [(0, 0, (1 << 32) - 1)]


def _interference(failure: StepFailedError, _: Circumstances) -> BackendError | None:
    if failure.error.errno not in {errno.EAGAIN, errno.EBUSY, errno.EEXIST, errno.ENOENT}:
        return None
    return BackendBusyError(
        Cause.INTERFERENCE,
        f"{failure.step} was interrupted: {failure.error.strerror}",
        "Ask again, and find out which process touches entries named svsm-attest-*",
        errno=failure.error.errno,
    )


def _privilege_floor(failure: StepFailedError, _: Circumstances) -> BackendError | None:
    if failure.step is not Step.SELECT_PRIVLEVEL or failure.error.errno != errno.EINVAL:
        return None
    return _error(
        failure,
        Cause.PRIVILEGE_FLOOR,
        "this guest may not have a report at the VMPL that it named as its floor",
        f"Check `privlevel_floor` of a report entry against the VMPL the SVSM gave the guest (at most "
        f"{MAX_PRIVLEVEL})",
    )


def _key_wiped(failure: StepFailedError, circumstances: Circumstances) -> BackendError | None:
    remedy = (
        "Restart the VM, which alone brings a new key. Do not keep asking: no request can succeed any more, "
        "and each takes from the few that the host allows the VM"
    )
    if failure.error.errno in {errno.ENOTTY, errno.EBADMSG}:
        return _error(
            failure,
            Cause.KEY_WIPED,
            "the kernel wiped the key (VMPCK) that it reaches the security processor with",
            remedy,
        )
    if not (is_svsm_refusal(failure) and circumstances.granted_before):
        return None
    return _error(
        failure,
        Cause.KEY_WIPED,
        "the SVSM refuses what it granted before"
        f" ({circumstances.refusals} time{'s' if circumstances.refusals > 1 else ''} in a row): "
        "most likely it was throttled by the host and wiped its key (VMPCK0)",
        f"{remedy}. To be sure, look first: {_KERNEL_LOG}",
    )


def _vtpm_has_no_ek(failure: StepFailedError, circumstances: Circumstances) -> BackendError | None:
    vtpm = circumstances.vtpm
    if not is_svsm_refusal(failure) or circumstances.service is Service.UEFI_MM or vtpm is None:
        return None
    if not vtpm.started:
        return _error(
            failure,
            Cause.VTPM_NOT_STARTED,
            "the SVSM could not make its EK: the vTPM has not been started (TPM2_Startup)",
            "Boot with firmware that starts the vTPM (OVMF with TPM support)",
        )
    if not vtpm.endorsement_enabled:
        return _error(
            failure,
            Cause.ENDORSEMENT_DISABLED,
            "the SVSM could not make its EK: the vTPM's endorsement hierarchy is disabled",
            "Restart the VM, which enables it again, and find out what ran TPM2_HierarchyControl",
        )
    if vtpm.endorsement_authorized:
        return _error(
            failure,
            Cause.ENDORSEMENT_AUTHORIZATION,
            "the SVSM could not make its EK: the vTPM's endorsement hierarchy has a password, and the SVSM "
            "uses none",
            "Restart the VM and attest once, early at boot, before anything sets the endorsement "
            "authorization: the SVSM keeps the EK of its first attestation",
        )
    return None


def _svsm_refusal(failure: StepFailedError, circumstances: Circumstances) -> BackendError | None:
    unknown_version = failure.step is Step.SELECT_VERSION and failure.error.errno in {
        errno.EINVAL,
        errno.ERANGE,
    }
    if not (is_svsm_refusal(failure) or unknown_version):
        return None
    if circumstances.manifest_version:
        reason = f"the SVSM gives no manifest version {circumstances.manifest_version} of this service"
        remedy = "Ask for version 0, the only one that COCONUT-SVSM makes"
    elif circumstances.service is Service.UEFI_MM:
        reason = "the SVSM vouches for no UEFI MM service"
        remedy = "Use an SVSM built with UEFI variables (COCONUT-SVSM 2026.06 or later, feature `uefivars`)"
    else:
        reason = "the SVSM refused to attest, without saying why"
        remedy = (
            "Likely causes: an endorsement authorization was set before the first attestation (attest once, "
            "early at boot); the firmware did not start the vTPM; the host's certificate table is larger "
            "than 16 KiB; the SVSM is too old (COCONUT-SVSM before 2025.08)"
        )
    return _error(failure, Cause.SVSM_REFUSED, reason, f"{remedy}. For certainty: {_KERNEL_LOG}")


def _plain_refusal(failure: StepFailedError, _: Circumstances) -> BackendError | None:
    if failure.step is not Step.PLAIN_REPORT or failure.error.errno != errno.EINVAL:
        return None
    return _error(
        failure,
        Cause.REPORT_REFUSED,
        "the security processor refused a report at the guest's own VMPL",
        "Switch the fetching of certificates off if this persists; the evidence is complete without them",
    )


def _throttled(failure: StepFailedError, _: Circumstances) -> BackendError | None:
    if failure.error.errno != errno.ETIMEDOUT:
        return None
    return _error(
        failure,
        Cause.HOST_THROTTLED,
        "the host kept the request waiting until the kernel gave up (60 s)",
        "Raise the interval between requests, and look for other users of the device in the VM",
    )


def _too_large(failure: StepFailedError, _: Circumstances) -> BackendError | None:
    if failure.error.errno == errno.EFBIG:
        return _error(
            failure,
            Cause.BLOB_TOO_LARGE,
            "the answer is larger than the kernel hands out (32 KiB a blob)",
            "Have the host shorten its certificate table",
        )
    if failure.error.errno == errno.EIO and failure.step is Step.PLAIN_REPORT:
        return _error(
            failure,
            Cause.CERTIFICATES_TOO_LARGE,
            "the host's certificate table is larger than 16 KiB, or the guest's message counter ran out",
            "Have the host shorten its certificate table, or leave certificates to the verifier",
        )
    return None


def is_svsm_refusal(failure: StepFailedError) -> bool:
    """Did the SVSM itself turn the request down? All of its result codes arrive as EINVAL."""
    return failure.step is Step.SVSM_REPORT and failure.error.errno == errno.EINVAL


def _error(failure: StepFailedError, cause: Cause, reason: str, remedy: str) -> BackendError:
    return BackendError(cause, reason, remedy, errno=failure.error.errno)


_RULES: tuple[Rule, ...] = (
    _missing_directory,
    _missing_provider,
    _permission,
    _interference,
    _privilege_floor,
    _key_wiped,
    _vtpm_has_no_ek,
    _svsm_refusal,
    _plain_refusal,
    _throttled,
    _too_large,
)
