"""The application: settings in, objects built, routes wired.

What the settings alone can get wrong is built by `create_app`, so that a start is refused with one
line; what needs a running event loop is built in the lifespan, and closed there in reverse order.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import structlog
from fastapi import FastAPI

from app import __version__
from app.api import attester_routes, health_routes, simulator_routes, verifier_routes
from app.api.bounded_body import BoundedBody
from app.api.docs_page import add_docs
from app.api.openapi import complete_openapi
from app.api.problems import register_problems
from app.api.readiness import Readiness
from app.api.request_context import RequestContext
from app.api.state import State
from app.appraisal.policy import Policy, ReferenceMeasurement, ReferenceValues, default_policy
from app.attester.attester import Attester
from app.config import Settings
from app.errors import AttestError, CertificateError, ConfigError
from app.evidence.backend import EvidenceBackend, ProbeCheck
from app.evidence.configfs import ConfigfsBackend
from app.evidence.simulator.backend import SimulatorBackend
from app.evidence.simulator.ek import EkKind
from app.telemetry.logs import configure_logging
from app.telemetry.metrics import Metrics
from app.trust.certificates import MAX_BUNDLE_SIZE, load_certificates
from app.trust.endorsements import EndorsementSource
from app.trust.kds import KdsClient, KdsLimits
from app.trust.roots import TrustRoots
from app.trust.store import EndorsementStore
from app.verifier.policies import PolicySet, read_policies, read_policy
from app.verifier.verifier import Verifier

_TITLE = "svsm-attest"
_DESCRIPTION = """Attests and verifies the vTPM of an AMD SEV-SNP confidential VM that runs under an SVSM.

The attester, inside the VM, answers a nonce with evidence: a report of the security processor, bound \
to the nonce and to the vTPM's endorsement key. The verifier, outside, appraises evidence and gives a \
verdict with every finding behind it. Every error is a problem document (RFC 9457).

Byte strings are standard base64 with padding unless they are named hexadecimal."""
_EK_KINDS = {"rsa2048": EkKind.RSA_2048, "p256": EkKind.P_256, "p384": EkKind.P_384}
_KDS_CONNECTIONS = 16

_log = structlog.get_logger(__name__)


def utc_now() -> datetime:
    """The time of day."""
    return datetime.now(UTC)


@dataclass(slots=True)
class _Parts:
    """What one application is built of; `kds` is set in the lifespan."""

    settings: Settings
    clock: Callable[[], datetime]
    metrics: Metrics
    backend: EvidenceBackend | None
    roots: TrustRoots
    policies: PolicySet
    kds: KdsClient | None = None
    kds_detail: str = "not asked: evidence and store must hold every certificate"
    attester: Attester | None = field(init=False, default=None)

    @property
    def simulator(self) -> SimulatorBackend | None:
        return self.backend if isinstance(self.backend, SimulatorBackend) else None

    @property
    def trusted_simulator(self) -> SimulatorBackend | None:
        """The simulator of this very process, where this verifier is to trust it."""
        settings = self.settings
        return self.simulator if settings.verifies and settings.allow_simulator else None


def create_app(
    settings: Settings | None = None,
    *,
    clock: Callable[[], datetime] = utc_now,
    backend: EvidenceBackend | None = None,
) -> FastAPI:
    """Build the service.

    Args:
        settings: as loaded; None loads them here, which is what a server does that gets a factory.
        clock: the time of appraisal.
        backend: where evidence comes from, in place of what the settings name.

    Raises:
        ConfigError: settings, trust roots or policies that cannot be used.
        PolicyError: a policy file that is not a policy.
        BackendError: the simulator's state directory cannot be used.
    """
    settings = settings or Settings.load()
    configure_logging(settings.log_level, settings.log_format)
    backend = (backend or _backend(settings)) if settings.attests else None
    parts = _Parts(
        settings=settings,
        clock=clock,
        metrics=Metrics(),
        backend=backend,
        roots=_roots(settings),
        policies=_policies(settings, backend),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            try:
                state = await _build(parts, stack)
            except AttestError as error:
                _log.error("start_failed", reason=str(error))
                raise
            yield state
        _log.info("stopped")

    app = FastAPI(
        title=_TITLE,
        description=_DESCRIPTION,
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.add_middleware(BoundedBody, max_body_bytes=settings.max_body_bytes)
    app.add_middleware(RequestContext, metrics=parts.metrics)  # the outermost
    register_problems(app)
    complete_openapi(app)
    if settings.attests:
        app.include_router(attester_routes.router)
    if settings.verifies:
        app.include_router(verifier_routes.router)
    app.include_router(health_routes.router)
    if parts.simulator is not None:
        app.include_router(simulator_routes.router)
    add_docs(app)
    return app


def _backend(settings: Settings) -> EvidenceBackend:
    if settings.backend == "configfs":
        return ConfigfsBackend(
            settings.configfs_path,
            interval_s=settings.interval_s,
            timeout_s=settings.device_timeout_s,
            fetch_certificates=settings.fetch_certificates,
        )
    return SimulatorBackend(
        line=settings.simulator_product,
        report_version=settings.simulator_report_version,
        signing_key=settings.simulator_signing_key,
        ek=_EK_KINDS[settings.simulator_ek],
        fault=settings.simulator_fault,
        state_dir=settings.simulator_state_dir,
        with_certificates=settings.simulator_certificates,
    )


def _roots(settings: Settings) -> TrustRoots:
    """AMD's roots and the operator's own."""
    roots = TrustRoots.amd()
    for path in settings.trust_roots if settings.verifies else ():
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_BUNDLE_SIZE + 1)
            for certificate in load_certificates(raw, str(path)):
                roots = roots.with_root(certificate, "extra")
        except OSError as error:
            raise ConfigError(f"trust root {path} cannot be read: {error.strerror}") from error
        except CertificateError as error:
            raise ConfigError(f"trust root {path} cannot be used: {error.reason}") from error
    if any(root.simulated for root in roots.roots) and not settings.allow_simulator:
        raise ConfigError("trust_roots holds a SIMULATED root: set allow_simulator=true if this is meant")
    return roots


def _policies(settings: Settings, backend: EvidenceBackend | None) -> PolicySet:
    if not settings.verifies:
        return PolicySet()
    policies = read_policies(settings.policy_dir) if settings.policy_dir else []
    chosen = settings.policy
    if settings.policy_file is not None:
        policy = read_policy(settings.policy_file)
        chosen = policy.id
        if policy not in policies:
            policies.append(policy)
    if settings.allow_simulator and isinstance(backend, SimulatorBackend):
        policies.append(_simulator_policy(backend))
        chosen = chosen or policies[-1].id
    return PolicySet(policies, chosen)


def _simulator_policy(simulator: SimulatorBackend) -> Policy:
    """The built-in policy, and the simulator's image among the known ones."""
    known = ReferenceMeasurement(
        value=simulator.measurement.hex(),  # type: ignore[arg-type]  # read as in a document
        name="svsm-attest simulator",
        attest_feature=False,
    )
    references = ReferenceValues(measurements=(known,))
    return default_policy().model_copy(update={"id": "simulator", "reference_values": references})


async def _build(parts: _Parts, stack: AsyncExitStack) -> State:
    settings, metrics = parts.settings, parts.metrics
    state = State(metrics=metrics)
    if parts.backend is not None:
        stack.push_async_callback(parts.backend.aclose)
        parts.attester = state["attester"] = Attester(
            parts.backend, interval_s=settings.interval_s, max_waiting=settings.max_waiting
        )
    if parts.simulator is not None:
        state["simulator"] = parts.simulator
    if settings.verifies:
        state["verifier"] = await _verifier(parts, stack)
        state["policies"] = parts.policies
    simulated = (parts.backend is not None and parts.backend.simulated) or any(
        root.simulated for root in parts.roots.roots
    )
    facts = {
        "role": settings.role,
        "backend": parts.backend.name if parts.backend else None,
        "simulated": simulated,
        "allow_simulator": settings.allow_simulator,
        "version": __version__,
    }
    state["readiness"] = Readiness(facts, parts.attester, lambda: _verifier_checks(parts))
    metrics.describe(**{name: str(value) for name, value in facts.items()})
    _log.info("started", **facts)
    return state


async def _verifier(parts: _Parts, stack: AsyncExitStack) -> Verifier:
    settings = parts.settings
    simulator = parts.trusted_simulator
    store: EndorsementStore | None = EndorsementStore(settings.store)
    if simulator is not None:
        parts.roots = parts.roots.with_root(await simulator.trust_root(), "simulator")
        _log.warning("simulator_trusted", remedy="Never where real machines are verified")
        store = None  # nothing simulated is to lie among what AMD signed
    else:
        _prepare(settings.store)
    parts.kds = await _kds(parts, stack)
    source = EndorsementSource(parts.roots, store, parts.kds, clock=parts.clock)
    return Verifier(source, parts.roots, parts.clock)


async def _kds(parts: _Parts, stack: AsyncExitStack) -> KdsClient | None:
    """The KDS that this verifier asks: AMD's, the simulated one, or none."""
    settings, simulator = parts.settings, parts.trusted_simulator
    if simulator is None and (settings.offline or parts.simulator is not None):
        return None
    client = httpx.AsyncClient(
        transport=simulator.kds.transport() if simulator else None,
        event_hooks=parts.metrics.kds_hooks(),
        limits=httpx.Limits(max_connections=_KDS_CONNECTIONS),
    )
    await stack.enter_async_context(client)
    timeout_s = settings.kds_timeout_s
    limits = KdsLimits(
        connect_s=timeout_s,
        read_s=timeout_s,
        total_s=4 * timeout_s,
        remember_failure_s=settings.kds_negative_ttl_s,
    )
    parts.kds_detail = "SIMULATED, in this process" if simulator else settings.kds_url
    return KdsClient(client, settings.kds_url, limits=limits)


def _prepare(store: Path) -> None:
    """Make the folder; where that fails the service works on and keeps nothing."""
    try:
        store.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _log.warning("store_unusable", path=str(store), reason=error.strerror)


def _verifier_checks(parts: _Parts) -> Iterator[ProbeCheck]:
    """What the verifier stands on. Only missing roots make it useless: evidence may bring the rest."""
    if not parts.settings.verifies:
        return
    roots = ", ".join(f"{root.name} ({root.origin})" for root in parts.roots.roots)
    yield ProbeCheck(name="trust-roots", ok=bool(parts.roots.roots), detail=roots)
    policies = parts.policies
    detail = f"{policies.chosen} {policies.get().digest}; known: {', '.join(policies.names)}"
    yield ProbeCheck(name="policy", ok=True, detail=detail)
    if parts.trusted_simulator is None:
        store = parts.settings.store
        writable = "writable" if os.access(store, os.W_OK) else "not writable: nothing is kept"
        yield ProbeCheck(name="endorsement-store", ok=True, detail=f"{store}, {writable}")
    trouble = parts.kds.trouble if parts.kds else None
    detail = f"{parts.kds_detail}; not asked for now, because {trouble}" if trouble else parts.kds_detail
    yield ProbeCheck(name="kds", ok=True, detail=detail)
