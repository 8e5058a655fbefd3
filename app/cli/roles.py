"""The roles inside a command: this machine's backend, and a verifier of its own.

Built from the same settings as the service, where a command's options do not say otherwise.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx

from app.appraisal.policy import Policy, ReferenceMeasurement, ReferenceValues, default_policy
from app.cli.failure import InputError
from app.cli.files import display_name, read_file
from app.config import PREFIX, Settings
from app.errors import CertificateError
from app.evidence.backend import EvidenceBackend
from app.evidence.configfs import ConfigfsBackend
from app.evidence.simulator.backend import SimulatorBackend
from app.evidence.simulator.ek import EkKind
from app.evidence.simulator.launch import Launch
from app.telemetry.logs import configure_logging
from app.trust.certificates import MAX_BUNDLE_SIZE, load_certificates
from app.trust.endorsements import EndorsementSource
from app.trust.kds import KdsClient, KdsLimits
from app.trust.roots import TrustRoots
from app.trust.store import EndorsementStore
from app.verifier.policies import PolicySet, read_policies, read_policy
from app.verifier.verifier import Verifier

SIMULATOR_POLICY = "simulator"
_EK_KINDS = {"rsa2048": EkKind.RSA_2048, "p256": EkKind.P_256, "p384": EkKind.P_384}
_POLICY_SUFFIXES = {".yaml", ".yml", ".json"}


def utc_now() -> datetime:
    """The time of day."""
    return datetime.now(UTC)


def command_settings(config: Path | None = None) -> Settings:
    """The settings, and logs that leave the terminal to the command unless the operator wants them.

    Raises:
        ConfigError: settings that cannot be used.
    """
    settings = Settings.load(config)
    wanted = f"{PREFIX}LOG_LEVEL" in os.environ
    configure_logging(settings.log_level if wanted else "error", settings.log_format)
    return settings


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
        fault=settings.simulator_fault if with_fault else None,
        state_dir=settings.simulator_state_dir,
        with_certificates=settings.simulator_certificates,
    )


def make_roots(settings: Settings, more: Iterable[Path] = ()) -> TrustRoots:
    """AMD's roots, those of the settings, and those in the files of `more`.

    A SIMULATED root among those of the settings takes allow_simulator, as in the service; a file
    of `more` was named for this very run, and the result says what it is.

    Raises:
        InputError: a file that cannot be read.
        CertificateError: a file without a root certificate.
    """
    roots = _with_files(TrustRoots.amd(), settings.trust_roots)
    if any(root.simulated for root in roots.roots) and not settings.allow_simulator:
        raise InputError(
            "trust_roots",
            "a SIMULATED root is among them",
            "Set SVSM_ATTEST_ALLOW_SIMULATOR=true if this is meant.",
        )
    return _with_files(roots, more)


def _with_files(roots: TrustRoots, files: Iterable[Path]) -> TrustRoots:
    for path in files:
        name = display_name(path)
        for certificate in load_certificates(read_file(path, MAX_BUNDLE_SIZE), name):
            try:
                roots = roots.with_root(certificate, "extra")
            except CertificateError as error:
                raise CertificateError(name, f"not a root certificate: {error.reason}") from error
    return roots


def choose_policy(settings: Settings, wish: str | None, *, simulator: bool = False) -> Policy:
    """The policy of that file or name; without a wish the one that the settings choose.

    Raises:
        PolicyError: no such policy, or a document that is not one.
        ConfigError: a file or folder that cannot be read.
    """
    policies = list(read_policies(settings.policy_dir)) if settings.policy_dir else []
    if simulator:
        policies.append(simulator_policy())
    wish = wish or settings.policy or (SIMULATOR_POLICY if simulator else None)
    if wish is not None and is_policy_file(wish):
        return read_policy(Path(wish))
    return PolicySet(policies).get(wish)


def is_policy_file(wish: str) -> bool:
    """Is this the path of a policy, and not its name?"""
    return "/" in wish or Path(wish).suffix in _POLICY_SUFFIXES


def simulator_policy() -> Policy:
    """The built-in policy, and the simulator's image among the known ones."""
    known = ReferenceMeasurement(
        value=Launch().measurement.hex(),  # type: ignore[arg-type]  # read as in a document
        name="svsm-attest simulator",
        attest_feature=False,
    )
    references = ReferenceValues(measurements=(known,))
    return default_policy().model_copy(update={"id": SIMULATOR_POLICY, "reference_values": references})


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """How a command verifies.

    Args:
        roots: the roots in force, without the simulator's.
        store: where endorsements are kept.
        offline: never ask the KDS.
        simulator: trust this simulator's root, and ask its KDS instead of AMD's.
        clock: the time of appraisal.
    """

    roots: TrustRoots
    store: Path
    offline: bool = False
    simulator: SimulatorBackend | None = None
    clock: Callable[[], datetime] = utc_now


@asynccontextmanager
async def endorsement_source(
    settings: Settings, how: Circumstances
) -> AsyncIterator[tuple[EndorsementSource, TrustRoots]]:
    """Where endorsements are looked for, with its connections open, and the roots in force."""
    async with AsyncExitStack() as stack:
        roots = how.roots
        store: EndorsementStore | None = EndorsementStore(how.store)
        if how.simulator is not None:
            roots = roots.with_root(await how.simulator.trust_root(), "simulator")
            store = None  # nothing simulated is to lie among what AMD signed
        kds = None
        if how.simulator is not None or not how.offline:
            transport = how.simulator.kds.transport() if how.simulator else None
            client = await stack.enter_async_context(httpx.AsyncClient(transport=transport))
            kds = make_kds(settings, client)
        yield EndorsementSource(roots, store, kds, clock=how.clock), roots


@asynccontextmanager
async def local_verifier(settings: Settings, how: Circumstances) -> AsyncIterator[Verifier]:
    """A verifier in this process, with its connections open."""
    async with endorsement_source(settings, how) as (source, roots):
        yield Verifier(source, roots, how.clock)


def make_kds(settings: Settings, client: httpx.AsyncClient) -> KdsClient:
    """A KDS client within the bounds of the settings.

    Raises:
        ConfigError: a KDS that is not asked by https.
    """
    timeout_s = settings.kds_timeout_s
    limits = KdsLimits(connect_s=timeout_s, read_s=timeout_s, total_s=4 * timeout_s)
    return KdsClient(client, settings.kds_url, limits=limits)
