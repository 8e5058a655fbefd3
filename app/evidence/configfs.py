"""Evidence from a real VM: the kernel's configfs-tsm interface to an SVSM.

The sequence itself is in configfs_sequence.py. This module decides when it runs: one request
at a time, spaced, in one thread that is never waited for longer than a bound.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from app.errors import BackendBusyError, BackendError, WireError
from app.evidence.backend import Cause, ProbeCheck, ProbeReport
from app.evidence.configfs_entry import remove_stale
from app.evidence.configfs_probe import CHECKS, probe_directory
from app.evidence.configfs_sequence import (
    Blobs,
    StepFailedError,
    request_plain_report,
    request_svsm_report,
)
from app.evidence.diagnosis import Circumstances, diagnose, is_svsm_refusal
from app.evidence.pacing import DevicePacer, DeviceStalledError, PacerClosedError, RequestOverdueError
from app.evidence.self_check import check_own_evidence
from app.evidence.vtpm_state import read_vtpm_state
from app.evidence.worker_thread import run_in_daemon_thread
from app.wire.binding import demand_nonce
from app.wire.certificate_table import CertificateTable
from app.wire.evidence import Evidence, Service
from app.wire.manifest import EkManifest, KeyListManifest
from app.wire.report import AttestationReport

T = TypeVar("T")

REPORT_DIRECTORY = Path("/sys/kernel/config/tsm/report")
TPM_DEVICE = Path("/dev/tpmrm0")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

CERTIFICATES_RETRY_S = 600.0  # after a failure; each try costs the host a guest request

_RECOVERY = "The service recovers when the kernel lets go of the request; if it never does, restart the VM"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Certificates:
    """The last answer to "which certificates?"."""

    key: tuple[bytes, bytes]  # the chip and TCB that it is good for
    table: bytes | None
    retry_at: float  # monotonic; never for an answer that the host gave


class ConfigfsBackend:
    """The EvidenceBackend of a confidential VM.

    Args:
        directory: the kernel's tsm/report.
        interval_s: least time from the end of one request to the start of the next.
        timeout_s: after so long a request's thread counts as lost in the kernel. The kernel
            itself gives up on a throttling host after 60 s.
        fetch_certificates: where the SVSM passes none on, get the host's certificates by a second
            report without the SVSM. Asked once for a chip and TCB.
        probe_timeout_s: after so long without an answer a probe fails.
        tpm_device: asked why an SVSM has no EK; None never asks.
        clock: a monotonic clock in seconds.
    """

    name = "configfs"
    simulated = False

    def __init__(
        self,
        directory: Path = REPORT_DIRECTORY,
        *,
        interval_s: float = 2.0,
        timeout_s: float = 90.0,
        fetch_certificates: bool = False,
        probe_timeout_s: float = 5.0,
        tpm_device: Path | None = TPM_DEVICE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._timeout_s = timeout_s
        self._probe_timeout_s = probe_timeout_s
        self._fetch_certificates = fetch_certificates
        self._tpm_device = tpm_device
        self._clock = clock
        self._pacer = DevicePacer(interval_s, clock=clock)
        self._probing: asyncio.Task[tuple[ProbeCheck, ...]] | None = None
        self._certificates: _Certificates | None = None
        self._granted: set[tuple[Service, int]] = set()
        self._refusals = 0
        self._cleaning = threading.Lock()
        self._cleaned = False

    async def collect(self, nonce: bytes, service: Service, manifest_version: int = 0) -> Evidence:
        """As EvidenceBackend.collect. A disturbed request is repeated once, in its turn."""
        demand_nonce(nonce)
        blobs = await self._ask(partial(self._attest, nonce, service, manifest_version))
        report, manifest = check_own_evidence(blobs.report, blobs.manifest, nonce=nonce, service=service)
        if isinstance(manifest, EkManifest | KeyListManifest):
            manifest_version = manifest.version
        collected_at = datetime.now(UTC)
        return Evidence(
            report=blobs.report,
            manifest=blobs.manifest,
            certificates=_usable_table(blobs.certificates) or await self._host_certificates(report),
            nonce=nonce,
            service=service,
            manifest_version=manifest_version,
            backend=self.name,
            boot_id=_boot_id(),
            collected_at=collected_at,
        )

    def wait_s(self) -> float:
        """About how long a request made now would wait for its turn, in seconds."""
        return self._pacer.wait_s()

    async def probe(self) -> ProbeReport:
        """As EvidenceBackend.probe; answers within some seconds whatever the kernel does.

        The last check, `device`, fails while a request is lost in the kernel.
        """
        device = self._device_check()
        if device.ok:
            try:
                checks = await asyncio.wait_for(asyncio.shield(self._probe_once()), self._probe_timeout_s)
            except TimeoutError:
                checks = _unanswered(f"the kernel did not answer within {self._probe_timeout_s:g} s")
        else:
            checks = _unanswered("not looked at: the kernel lets nobody in while it works on a request")
        return ProbeReport(backend=self.name, simulated=self.simulated, checks=(*checks, device))

    async def aclose(self) -> None:
        """Take no more requests; wait for the one in flight and for a probe until they end or are overdue."""
        self._pacer.close()
        if self._probing is not None:
            await asyncio.wait({self._probing}, timeout=self._probe_timeout_s)
        await self._pacer.drain()

    async def _ask(self, sequence: Callable[[], T]) -> T:
        try:
            return await self._ask_once(sequence)
        except BackendBusyError as error:
            _log.warning("report_request_disturbed", reason=error.reason)
            return await self._ask_once(sequence)

    async def _ask_once(self, sequence: Callable[[], T]) -> T:
        thread = partial(run_in_daemon_thread, sequence, name="configfs-tsm")
        try:
            return await self._pacer.run(thread, timeout_s=self._timeout_s)
        except RequestOverdueError as error:
            _log.error("report_request_lost", timeout_s=self._timeout_s)
            raise BackendError(
                Cause.TIMEOUT,
                f"the kernel did not answer within {self._timeout_s:g} s",
                f"The request cannot be called back. {_RECOVERY}",
            ) from error
        except DeviceStalledError as error:
            raise BackendError(
                Cause.STALLED,
                f"the one request that can be in the kernel has been there for {error.occupied_s:.0f} s",
                _RECOVERY,
            ) from error
        except PacerClosedError as error:
            raise BackendError(Cause.CLOSED, "the service is stopping", "Ask another instance") from error

    def _attest(self, nonce: bytes, service: Service, manifest_version: int) -> Blobs:
        """In the worker thread: at most one runs at a time."""
        self._clean_once()
        try:
            blobs = request_svsm_report(self._directory, nonce, service, manifest_version)
        except StepFailedError as failure:
            raise self._diagnose(failure, service, manifest_version) from failure
        self._granted.add((service, manifest_version))
        self._refusals = 0
        return blobs

    def _diagnose(self, failure: StepFailedError, service: Service, manifest_version: int) -> BackendError:
        refused = is_svsm_refusal(failure)
        self._refusals += refused
        return diagnose(
            failure,
            Circumstances(
                directory=self._directory,
                service=service,
                manifest_version=manifest_version,
                granted_before=(service, manifest_version) in self._granted,
                refusals=self._refusals,
                vtpm=read_vtpm_state(self._tpm_device) if refused and self._tpm_device else None,
            ),
        )

    async def _host_certificates(self, report: AttestationReport) -> bytes | None:
        """The host's table for this report's chip and TCB. Never raises: the evidence stands without."""
        if not self._fetch_certificates:
            return None
        key, known = _certificate_key(report), self._certificates
        if known is None or known.key != key or self._clock() >= known.retry_at:
            known = self._certificates = await self._fetch_table(key)
        return known.table

    async def _fetch_table(self, key: tuple[bytes, bytes]) -> _Certificates:
        try:
            blobs = await self._ask(self._ask_plainly)
            if _certificate_key(AttestationReport.parse(blobs.report)) == key:
                return _Certificates(key, _usable_table(blobs.certificates), float("inf"))
            why = "the host's certificates are for another chip or TCB"
        except (BackendError, WireError) as error:
            why = str(error)
        _log.warning("certificates_not_fetched", reason=why)
        return _Certificates(key, None, self._clock() + CERTIFICATES_RETRY_S)

    def _ask_plainly(self) -> Blobs:
        try:
            return request_plain_report(self._directory)
        except StepFailedError as failure:
            raise diagnose(failure, Circumstances(directory=self._directory)) from failure

    def _device_check(self) -> ProbeCheck:
        stalled_s = self._pacer.stalled_for_s
        if stalled_s is None:
            return ProbeCheck(name="device", ok=True, detail="no request is overdue")
        return ProbeCheck(
            name="device",
            ok=False,
            detail=f"a request has been in the kernel for {stalled_s:.0f} s",
            remedy=_RECOVERY,
        )

    def _probe_once(self) -> "asyncio.Task[tuple[ProbeCheck, ...]]":
        """The probe that is under way, or a new one: never two threads, however often somebody asks."""
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(
                run_in_daemon_thread(self._probe_directory, name="configfs-tsm-probe")
            )
        return self._probing

    def _probe_directory(self) -> tuple[ProbeCheck, ...]:
        self._clean_once()
        return probe_directory(self._directory)

    def _clean_once(self) -> None:
        """Remove what earlier processes left, before this one makes its first entry."""
        with self._cleaning:
            if not self._cleaned:
                self._cleaned = True
                if removed := remove_stale(self._directory):
                    _log.info("stale_report_entries_removed", entries=removed)


def _certificate_key(report: AttestationReport) -> tuple[bytes, bytes]:
    return report.chip_id, report.reported_tcb


def _unanswered(why: str) -> tuple[ProbeCheck, ...]:
    return tuple(ProbeCheck(name=name, ok=False, detail=why) for name in CHECKS)


def _usable_table(table: bytes | None) -> bytes | None:
    """The table as it came, if it is one and lists anything."""
    if table is None:
        _log.warning("certificates_too_large")
        return None
    if not table:
        return None
    try:
        entries = CertificateTable.parse(table).entries
    except WireError as error:
        _log.warning("certificates_unreadable", error=str(error))
        return None
    return table if entries else None


def _boot_id() -> str | None:
    try:
        return BOOT_ID.read_text("ascii").strip()
    except OSError:
        return None
