"""Settings become objects: what the service and the commands build alike.

Imported by main and cli only. Nothing here runs or connects; whoever asks keeps and closes.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import httpx
import structlog

from app.appraisal.policy import Policy, ReferenceMeasurement, ReferenceValues, default_policy
from app.config import Settings
from app.errors import CertificateError, ConfigError
from app.evidence.backend import EvidenceBackend
from app.evidence.configfs import ConfigfsBackend
from app.evidence.simulator.backend import SimulatorBackend
from app.evidence.simulator.ek import EkKind
from app.evidence.simulator.faulty_vtpm import FaultyVtpm
from app.evidence.simulator.launch import Launch
from app.evidence.vtpm.event_log import read_event_log
from app.evidence.vtpm.vtpm import Vtpm
from app.tpm.transport import DeviceTransport
from app.trust.certificates import MAX_BUNDLE_SIZE, MAX_CERTIFICATE_SIZE, load_certificates
from app.trust.ek_authority import EkAuthority
from app.trust.ek_certificate import TpmModel
from app.trust.kds import KdsClient, KdsLimits
from app.trust.roots import TrustRoots
from app.trust.tls_end_point import server_end_point
from app.verifier.ek_ca import EkCa
from app.verifier.private_files import AppendLog, UnsafeFileError, read_private
from app.verifier.single_use import MemorySingleUseStore
from app.wire.session import Channel

SIMULATOR_POLICY = "simulator"
_SIMULATED = "the SIMULATED vTPM"
_MAX_EK_NONCES = 10_000
_EK_KINDS = {"rsa2048": EkKind.RSA_2048, "p256": EkKind.P_256, "p384": EkKind.P_384}

_log = structlog.get_logger(__name__)


def make_backend(settings: Settings) -> EvidenceBackend:
    """The source of evidence that the settings name.

    Raises:
        ConfigError: settings that contradict each other.
        BackendError: the simulator's state directory cannot be used.
    """
    if settings.backend == "configfs":
        return ConfigfsBackend(
            settings.configfs_path,
            interval_s=settings.interval_s,
            timeout_s=settings.device_timeout_s,
            fetch_certificates=settings.fetch_certificates,
            tpm_device=settings.tpm_device,
        )
    return make_simulator(settings, with_fault=True)


def make_simulator(settings: Settings, *, with_fault: bool = False) -> SimulatorBackend:
    """The simulator that the settings describe.

    Raises:
        ConfigError, BackendError: as `make_backend`.
    """
    return SimulatorBackend(
        line=settings.simulator_product,
        report_version=settings.simulator_report_version,
        signing_key=settings.simulator_signing_key,
        ek=_EK_KINDS[settings.simulator_ek],
        vtpm=settings.simulator_vtpm,
        fault=settings.simulator_fault if with_fault else None,
        state_dir=settings.simulator_state_dir,
        with_certificates=settings.simulator_certificates,
        interval_s=settings.interval_s if settings.simulates else 0.0,
    )


def make_vtpm(
    settings: Settings,
    backend: EvidenceBackend,
    observe: Callable[[str], AbstractContextManager[None]] | None = None,
) -> Vtpm:
    """The vTPM beside a source of evidence: the simulator's, or this machine's device.

    There need not be one: whoever asks is told why not, and looks again with the next request.

    Args:
        settings: its device, event log and bounds.
        backend: a simulator has its own.
        observe: as Vtpm.
    """
    kind: Callable[..., Vtpm] = Vtpm
    if isinstance(backend, SimulatorBackend) and backend.fault is not None:
        kind = partial(FaultyVtpm, effect=backend.fault.effect)
    make = partial(
        kind, timeout_s=settings.tpm_timeout_s, max_waiting=settings.tpm_max_waiting, observe=observe
    )
    if not isinstance(backend, SimulatorBackend):
        return make(
            partial(DeviceTransport, settings.tpm_device),
            name=str(settings.tpm_device),
            event_log=partial(read_event_log, settings.tpm_event_log),
        )
    template = _EK_KINDS[settings.simulator_ek].template
    return make(backend.open_vtpm, name=_SIMULATED, event_log=backend.event_log, ek_template=template)


def make_end_point(settings: Settings) -> Channel | None:
    """What a session can be bound to at this end: the certificate that the service presents, if it does.

    Raises:
        ConfigError: the certificate cannot be read.
    """
    path = settings.tls_certificate
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            return server_end_point(file.read(MAX_BUNDLE_SIZE))
    except OSError as error:
        raise ConfigError(f"tls_certificate {path} cannot be read: {error.strerror}") from error
    except CertificateError as error:
        _log.warning("no_channel_binding", tls_certificate=str(path), reason=error.reason)
        return None


def make_roots(settings: Settings) -> TrustRoots:
    """AMD's roots and those of the settings. A SIMULATED one among these takes allow_simulator.

    Raises:
        ConfigError: a file that cannot be read or holds no root, or a SIMULATED root.
    """
    roots = with_root_files(TrustRoots.amd(), settings.trust_roots)
    if any(root.simulated for root in roots.roots) and not settings.allow_simulator:
        raise ConfigError(
            "trust_roots holds a SIMULATED root: set SVSM_ATTEST_ALLOW_SIMULATOR=true if this is meant"
        )
    return roots


def with_root_files(roots: TrustRoots, files: Iterable[Path]) -> TrustRoots:
    """These roots and those in files, which are trusted because somebody named them.

    Raises:
        ConfigError: a file that cannot be read or holds no root.
    """
    for path in files:
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_BUNDLE_SIZE + 1)
            certificates = load_certificates(raw, str(path))
        except OSError as error:
            raise ConfigError(f"trust root {path} cannot be read: {error.strerror}") from error
        except CertificateError as error:
            raise ConfigError(f"trust root {path} cannot be used: {error.reason}") from error
        for certificate in certificates:
            try:
                roots = roots.with_root(certificate, "extra")
            except CertificateError as error:
                raise ConfigError(f"trust root {path} is not a root certificate: {error.reason}") from error
    return roots


def simulator_policy() -> Policy:
    """The built-in policy, and the simulator's image among the known ones."""
    known = ReferenceMeasurement(
        value=Launch().measurement.hex(),  # type: ignore[arg-type]  # read as in a document
        name="svsm-attest simulator",
        attest_feature=False,
    )
    references = ReferenceValues(measurements=(known,))
    return default_policy().model_copy(update={"id": SIMULATOR_POLICY, "reference_values": references})


def make_kds(settings: Settings, client: httpx.AsyncClient) -> KdsClient:
    """A KDS client within the bounds of the settings.

    Raises:
        ConfigError: a KDS that is not asked by https.
    """
    timeout_s = settings.kds_timeout_s
    limits = KdsLimits(
        connect_s=timeout_s,
        read_s=timeout_s,
        total_s=4 * timeout_s,
        remember_failure_s=settings.kds_negative_ttl_s,
    )
    return KdsClient(client, settings.kds_url, limits=limits)


def make_ek_ca(settings: Settings, clock: Callable[[], datetime]) -> EkCa | None:
    """The issuer of EK certificates that the settings name, or None.

    Raises:
        ConfigError: files that are not an authority's, that others can read, or a record that cannot
            be written.
    """
    certificate, key, log = settings.ek_ca_certificate, settings.ek_ca_key, settings.ek_ca_log
    if certificate is None or key is None or log is None:
        return None
    record = AppendLog(log)
    try:
        with certificate.open("rb") as file:
            raw = file.read(MAX_CERTIFICATE_SIZE + 1)
        authority = EkAuthority.load(
            raw,
            read_private(key, MAX_CERTIFICATE_SIZE),
            certificate_source=str(certificate),
            key_source=str(key),
        )
        record.demand_writable()
    except (CertificateError, UnsafeFileError, OSError) as error:
        raise ConfigError(f"EK CA: {error}") from error
    return EkCa(
        authority,
        record,
        tpm=TpmModel(
            manufacturer=settings.ek_tpm_manufacturer,
            model=settings.ek_tpm_model,
            version=settings.ek_tpm_version,
            revision=settings.ek_tpm_revision,
        ),
        lifetime=timedelta(seconds=settings.ek_certificate_lifetime_s),
        nonces=MemorySingleUseStore(_MAX_EK_NONCES),
        clock=clock,
    )
