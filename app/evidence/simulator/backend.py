"""The simulator as a source of evidence."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import structlog
from cryptography import x509

from app.errors import BackendError, ConfigError, TpmUnavailableError
from app.evidence.backend import Cause, ProbeCheck, ProbeReport
from app.evidence.pacing import DevicePacer, DeviceStalledError, PacerClosedError, RequestOverdueError
from app.evidence.self_check import check_own_evidence
from app.evidence.simulator.authority import CertificateAuthority
from app.evidence.simulator.effect import NO_EFFECT
from app.evidence.simulator.ek import EkKind, EkSource, SimulatedEk
from app.evidence.simulator.endorsements import SimulatedEndorsements
from app.evidence.simulator.faults import Fault
from app.evidence.simulator.guest import Blobs, LinuxGuest
from app.evidence.simulator.kds import SimulatedKds
from app.evidence.simulator.launch import Launch
from app.evidence.simulator.processor import REPORT_VERSIONS, SecurityProcessor
from app.evidence.simulator.software_tpm import SimulatedVtpm, VtpmChoice, has_swtpm
from app.evidence.simulator.svsm import MANIFEST_VERSION, ManifestSource, Svsm
from app.evidence.simulator.vault import Vault
from app.evidence.worker_thread import run_in_daemon_thread
from app.tpm.causes import TpmCause
from app.tpm.transport import Transport
from app.trust.names import VekKind
from app.wire import guid
from app.wire.binding import demand_nonce
from app.wire.evidence import Evidence, Service
from app.wire.manifest import EkManifest, KeyListManifest, parse_manifest
from app.wire.product import ProductLine
from app.wire.uefi_mm import UefiMmManifest

_SECURE_BOOT = 0b010  # of the UEFI MM flags; COCONUT-SVSM never sets the other two
_TIMEOUT_S = 60.0

_log = structlog.get_logger(__name__)


class SimulatorBackend:
    """An EvidenceBackend without hardware: processor, SVSM, vTPM and KDS in software.

    The vTPM is swtpm's where that is installed: `vtpm` is it, and starts with its first use. Where it
    is not, there is a software key in place of the EK and no TPM behind it; `vtpm_missing` says why.

    With a fault selected, evidence leaves without the check that an attester makes of its own:
    that check would stop most faults before a verifier could see them.

    Args:
        line: the product line of the processor.
        report_version: 2, 3 or 5.
        signing_key: whether a VCEK or a VLEK signs.
        ek: the kind of the vTPM's endorsement key, or who else supplies it.
        vtpm: whether there is a TPM behind that key.
        fault: what shall be wrong, if anything.
        state_dir: where keys outlive the process; None makes new ones in every process.
        with_certificates: does the host offer a certificate table?
        device_delay_s: how long every request takes longer than it has to.
        interval_s: least time from the end of one request to the start of the next.
        launch: what was settled when the guest started.

    Raises:
        ConfigError: a report version that no firmware writes, a fault that it cannot have, or no swtpm
            where one is wanted.
        BackendError: the state directory cannot be used.
    """

    name = "simulator"
    simulated = True

    def __init__(  # noqa: PLR0913  (by keyword only: one for each thing to choose)
        self,
        *,
        line: ProductLine = ProductLine.MILAN,
        report_version: int = 5,
        signing_key: VekKind = VekKind.VCEK,
        ek: EkKind | EkSource = EkKind.RSA_2048,
        vtpm: VtpmChoice = VtpmChoice.AUTO,
        fault: Fault | None = None,
        state_dir: Path | None = None,
        with_certificates: bool = True,
        device_delay_s: float = 0.0,
        interval_s: float = 0.0,
        launch: Launch | None = None,
    ) -> None:
        effect = NO_EFFECT if fault is None else fault.effect
        _demand_possible(fault, report_version, signing_key)
        vault = Vault(state_dir)
        self.fault = fault
        self.authority = CertificateAuthority(line, vault)
        self.launch = launch or Launch()
        self.processor = SecurityProcessor(
            line,
            vault.secret(f"other-chip-{line}" if effect.other_chip else f"chip-{line}"),
            report_version=report_version,
            signing_key=signing_key,
            launch=self.launch,
            effect=effect,
        )
        issuer = CertificateAuthority(line, vault, label="impostor-") if effect.impostor else self.authority
        endorsements = SimulatedEndorsements(issuer, self.processor, effect)
        self.kds = SimulatedKds(endorsements, effect=effect)
        self.vtpm: SimulatedVtpm | None = None
        self.vtpm_missing = _vtpm_missing(vtpm, ek)
        if self.vtpm_missing is not None and (effect.needs_tpm or vtpm is VtpmChoice.SWTPM):
            raise ConfigError(f"{fault.value if fault else 'simulator_vtpm=swtpm'}: {self.vtpm_missing}")
        ek_source: EkSource
        if not isinstance(ek, EkKind):
            ek_source = ek
        elif self.vtpm_missing is not None:
            ek_source = SimulatedEk(vault, ek, name="other-EK" if effect.other_ek else "EK")
        else:
            ek_source = self.vtpm = SimulatedVtpm(vault, ek=ek, effect=effect)
        services: dict[UUID, ManifestSource] = {
            guid.SERVICE_VTPM: partial(effect.vtpm_manifest, ek_source, vault),
            guid.SERVICE_UEFI_MM: UefiMmManifest(_SECURE_BOOT if effect.boot.secure_boot else 0).encode,
        }
        offers = with_certificates and effect.kds_status is None
        self._guest = LinuxGuest(
            Svsm(
                self.processor,
                services,
                host_certificates=endorsements.table if offers else bytes,
                bind=effect.bind,
            )
        )
        self._delay_s = device_delay_s
        self._boot_id = str(uuid4())
        self._pacer = DevicePacer(interval_s)
        _log.warning("simulator_in_use", product_line=str(line), state_dir=str(state_dir or "none"))
        if fault is not None:
            _log.warning("simulator_fault", fault=fault.value, what=effect.what, self_check="off")

    @property
    def measurement(self) -> bytes:
        """The launch digest (48 bytes) of a simulated guest without a fault."""
        return self.launch.measurement

    def open_vtpm(self) -> Transport:
        """A channel to the vTPM, which starts if need be. Blocks.

        Raises:
            TpmUnavailableError: there is none, or it does not start.
        """
        return self._demand_vtpm().open()

    def event_log(self) -> bytes:
        """What the firmware of the simulated VM measured when it last booted. Raises as `open_vtpm`."""
        return self._demand_vtpm().event_log()

    async def trust_root(self) -> x509.Certificate:
        """The ARK that vouches for a simulator without a fault, for whoever wants to trust it.

        Raises:
            BackendError: the state directory cannot be used.
        """
        return await run_in_daemon_thread(lambda: self.authority.ark, name="simulator")

    async def collect(self, nonce: bytes, service: Service, manifest_version: int = 0) -> Evidence:
        """As EvidenceBackend.collect. The first request makes keys, which may take seconds."""
        demand_nonce(nonce)
        ask = partial(self._ask, nonce, service, manifest_version)
        try:
            blobs = await self._pacer.run(partial(self._delayed, ask), timeout_s=self._delay_s + _TIMEOUT_S)
        except PacerClosedError as error:
            raise BackendError(Cause.CLOSED, "the service is stopping", "Ask another instance") from error
        except (RequestOverdueError, DeviceStalledError) as error:
            raise BackendError(
                Cause.TIMEOUT,
                f"the simulator did not answer within {_TIMEOUT_S:g} s",
                "Ask again: it makes RSA keys at first, which a busy machine does slowly",
            ) from error
        if self.fault is None:
            _, manifest = check_own_evidence(blobs.report, blobs.manifest, nonce=nonce, service=service)
        else:
            manifest = parse_manifest(blobs.manifest)
        if isinstance(manifest, EkManifest | KeyListManifest):
            manifest_version = manifest.version
        return Evidence(
            report=blobs.report,
            manifest=blobs.manifest,
            certificates=blobs.certificates or None,
            nonce=nonce,
            service=service,
            manifest_version=manifest_version,
            backend=self.name,
            boot_id=self.vtpm.boot_id if self.vtpm else self._boot_id,
            collected_at=datetime.now(UTC),
        )

    async def probe(self) -> ProbeReport:
        """As EvidenceBackend.probe: nothing can be missing, but a fault is named."""
        processor = self.processor
        what = f"{processor.line}, report version {processor.report_version}, {processor.signing_key.upper()}"
        checks = [
            ProbeCheck(
                name="simulator", ok=True, detail=f"SIMULATED {what}: proves nothing about any hardware"
            )
        ]
        if self.fault is not None:
            detail = f"{self.fault.value}: {self.fault.effect.what}; evidence leaves unchecked"
            checks.append(ProbeCheck(name="fault", ok=True, detail=detail))
        return ProbeReport(backend=self.name, simulated=self.simulated, checks=tuple(checks))

    async def aclose(self) -> None:
        """Take no more requests; wait for the one in flight, and switch the vTPM off."""
        self._pacer.close()
        await self._pacer.drain()
        if self.vtpm is not None:
            await run_in_daemon_thread(self.vtpm.close, name="simulator")

    def _demand_vtpm(self) -> SimulatedVtpm:
        if self.vtpm is None:
            remedy = "Install swtpm (Debian, Ubuntu: apt install swtpm), set simulator_vtpm=auto, start again"
            raise TpmUnavailableError(TpmCause.MISSING, str(self.vtpm_missing), remedy)
        return self.vtpm

    async def _delayed(self, ask: Callable[[], Blobs]) -> Blobs:
        await asyncio.sleep(self._delay_s)
        return await run_in_daemon_thread(ask, name="simulator")

    def _ask(self, nonce: bytes, service: Service, manifest_version: int) -> Blobs:
        """In a thread of its own."""
        single = None if service is Service.ALL else service.guid
        try:
            return self._guest.attest(nonce, single, manifest_version)
        except OSError as error:
            remedy = "Look at the vTPM and at the certificate table that the simulator was given"
            if manifest_version != MANIFEST_VERSION:
                remedy = f"Ask for manifest version {MANIFEST_VERSION}, the only one that it has"
            reason = f"the simulated SVSM refused ({error.strerror})"
            raise BackendError(Cause.SVSM_REFUSED, reason, remedy, errno=error.errno) from error


def _vtpm_missing(choice: VtpmChoice, ek: EkKind | EkSource) -> str | None:
    """Why the simulated VM is to have no TPM; None where it has one."""
    if not isinstance(ek, EkKind):
        return "the simulated VM has no TPM: its EK comes from elsewhere"
    if choice is VtpmChoice.NONE:
        return "the simulated VM has no TPM: simulator_vtpm=none leaves it out"
    if not has_swtpm():
        return "the simulated VM has no TPM: swtpm is not installed (Debian, Ubuntu: apt install swtpm)"
    return None


def _demand_possible(fault: Fault | None, report_version: int, signing_key: VekKind) -> None:
    if report_version not in REPORT_VERSIONS:
        raise ConfigError(f"report version {report_version}: the simulator writes {REPORT_VERSIONS}")
    if fault is None:
        return
    if fault.effect.vcek_only and signing_key is not VekKind.VCEK:
        raise ConfigError(f"the fault {fault.value} is about a chip, not about a VLEK: let a VCEK sign")
    if report_version < fault.effect.since_version:
        least = fault.effect.since_version
        raise ConfigError(f"the fault {fault.value} needs report version {least}")
