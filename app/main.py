"""The application: settings in, objects built, routes wired.

What the settings alone can get wrong is built by `create_app`, so that a start is refused with one
line; what needs a running event loop is built in the lifespan, and closed there in reverse order.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import httpx
import structlog
from fastapi import FastAPI

from app import __version__
from app.api import (
    attester_routes,
    challenge_routes,
    ek_certificate_routes,
    health_routes,
    key_routes,
    simulator_routes,
    verifier_routes,
)
from app.api.bounded_body import BoundedBody
from app.api.docs_page import add_docs
from app.api.openapi import complete_openapi
from app.api.problems import register_problems
from app.api.readiness import Readiness
from app.api.request_context import RequestContext
from app.api.state import State
from app.assembly import (
    make_backend,
    make_ek_ca,
    make_end_point,
    make_kds,
    make_roots,
    make_vtpm,
    simulator_policy,
)
from app.attester.attester import Attester
from app.config import Settings
from app.errors import AttestError
from app.evidence.backend import EvidenceBackend, ProbeCheck
from app.evidence.simulator.backend import SimulatorBackend
from app.evidence.vtpm.vtpm import Vtpm
from app.telemetry.logs import configure_logging
from app.telemetry.metrics import Metrics
from app.trust.endorsements import EndorsementSource
from app.trust.kds import KdsClient
from app.trust.roots import TrustRoots
from app.trust.store import EndorsementStore
from app.verifier.ek_ca import EkCa
from app.verifier.key_challenges import KeyChallenges
from app.verifier.policies import PolicySet, read_policies, read_policy
from app.verifier.single_use import MemorySingleUseStore
from app.verifier.verifier import Verifier
from app.wire.session import Channel

_TITLE = "svsm-attest"
_DESCRIPTION = """Attests and verifies the vTPM of an AMD SEV-SNP confidential VM that runs under an SVSM.

The attester, inside the VM, answers a nonce with evidence: a report of the security processor, bound \
to the nonce and to the vTPM's endorsement key. The verifier, outside, appraises evidence and gives a \
verdict with every finding behind it. Every error is a problem document (RFC 9457).

Byte strings are standard base64 with padding unless they are named hexadecimal."""
_KDS_CONNECTIONS = 16

_log = structlog.get_logger(__name__)


def utc_now() -> datetime:
    """The time of day."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What the settings come to, before anything runs."""

    settings: Settings
    clock: Callable[[], datetime]
    metrics: Metrics
    backend: EvidenceBackend | None  # None for a mere verifier
    vtpm: Vtpm | None  # in place of what the settings name
    end_point: Channel | None  # where this service presents a TLS certificate itself
    roots: TrustRoots
    policies: PolicySet
    ek_ca: EkCa | None  # where the operator set one up

    @property
    def simulator(self) -> SimulatorBackend | None:
        """The simulator, where evidence comes from it."""
        return self.backend if isinstance(self.backend, SimulatorBackend) else None

    @property
    def trusted_simulator(self) -> SimulatorBackend | None:
        """The simulator of this very process, where this verifier is to trust it."""
        return self.simulator if self.settings.verifies and self.settings.allow_simulator else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trust:
    """What a running verifier stands on."""

    verifier: Verifier
    challenges: KeyChallenges
    store: EndorsementStore | None
    kds: KdsClient | None
    kds_detail: str


def create_app(
    settings: Settings | None = None,
    *,
    clock: Callable[[], datetime] = utc_now,
    backend: EvidenceBackend | None = None,
    vtpm: Vtpm | None = None,
) -> FastAPI:
    """Build the service.

    Args:
        settings: as loaded; None loads them here, which is what a server does that gets a factory.
        clock: the time of appraisal.
        backend: where evidence comes from, in place of what the settings name.
        vtpm: where quotes come from, in place of what backend and settings name.

    Raises:
        ConfigError: settings, trust roots or policies that cannot be used.
        PolicyError: a policy file that is not a policy.
        BackendError: the simulator's state directory cannot be used.
    """
    settings = settings or Settings.load()
    configure_logging(settings.log_level, settings.log_format)
    backend = (backend or make_backend(settings)) if settings.attests else None
    plan = _Plan(
        settings=settings,
        clock=clock,
        metrics=Metrics(),
        backend=backend,
        vtpm=vtpm,
        end_point=make_end_point(settings) if settings.attests else None,
        roots=make_roots(settings) if settings.verifies else TrustRoots.amd(),
        policies=_policies(settings, backend),
        ek_ca=make_ek_ca(settings, clock) if settings.verifies else None,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            try:
                state = await _build(plan, stack)
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
    app.add_middleware(RequestContext, metrics=plan.metrics)  # the outermost
    register_problems(app)
    complete_openapi(app)
    if settings.attests:
        app.include_router(attester_routes.router)
        app.include_router(key_routes.router)
    if settings.verifies:
        app.include_router(verifier_routes.router)
        app.include_router(ek_certificate_routes.router)
        app.include_router(challenge_routes.router)
    app.include_router(health_routes.router)
    if plan.simulator is not None:
        app.include_router(simulator_routes.router)
    add_docs(app)
    return app


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
        policies.append(simulator_policy())
        chosen = chosen or policies[-1].id
    return PolicySet(policies, chosen)


async def _build(plan: _Plan, stack: AsyncExitStack) -> State:
    settings = plan.settings
    state = State(metrics=plan.metrics)
    trust = None
    if plan.backend is not None:
        stack.push_async_callback(plan.backend.aclose)
        vtpm = plan.vtpm or make_vtpm(settings, plan.backend, plan.metrics.tpm_operation)
        stack.push_async_callback(vtpm.aclose)
        state["attester"] = Attester(
            plan.backend, interval_s=settings.interval_s, max_waiting=settings.max_waiting, vtpm=vtpm
        )
        state["end_point"] = plan.end_point
    if plan.simulator is not None:
        state["simulator"] = plan.simulator
    if settings.verifies:
        trust = await _trust(plan, stack)
        state["verifier"] = trust.verifier
        state["policies"] = plan.policies
        if plan.ek_ca is not None:
            state["ek_ca"] = plan.ek_ca
        state["challenges"] = trust.challenges
    roots = trust.verifier.roots.roots if trust else ()
    trusted = [root.name for root in roots if root.simulated]
    if trusted:
        _log.warning("simulator_trusted", roots=trusted, remedy="Never where real machines are verified")
    facts = {
        "role": settings.role,
        "backend": plan.backend.name if plan.backend else None,
        "simulated": bool(trusted or (plan.backend and plan.backend.simulated)),
        "allow_simulator": settings.allow_simulator,
        "version": __version__,
    }
    state["readiness"] = Readiness(facts, state.get("attester"), partial(_verifier_checks, plan, trust))
    plan.metrics.describe(**{name: str(value) for name, value in facts.items()})
    _log.info("started", **facts)
    return state


async def _trust(plan: _Plan, stack: AsyncExitStack) -> _Trust:
    settings, roots, simulator = plan.settings, plan.roots, plan.trusted_simulator
    store: EndorsementStore | None = None
    kds: KdsClient | None = None
    kds_detail = "not asked: evidence and store must hold everything"
    if simulator is not None:
        # Nothing simulated is to lie among what AMD signed: there is no store.
        roots = roots.with_root(await simulator.trust_root(), "simulator")
        kds = await _kds(plan, stack, simulator.kds.transport())
        kds_detail = "SIMULATED, in this process"
    else:
        store = _store(settings.store)
        # An attester on the simulator has no business with real chips.
        if not settings.offline and plan.simulator is None:
            kds = await _kds(plan, stack, None)
            kds_detail = settings.kds_url
    source = EndorsementSource(roots, store, kds, clock=plan.clock)
    challenges = KeyChallenges(
        MemorySingleUseStore(settings.max_challenges),
        lifetime_s=settings.challenge_lifetime_s,
        clock=plan.clock,
    )
    verifier = Verifier(source, roots, plan.clock, challenges)
    return _Trust(verifier=verifier, challenges=challenges, store=store, kds=kds, kds_detail=kds_detail)


async def _kds(plan: _Plan, stack: AsyncExitStack, transport: httpx.AsyncBaseTransport | None) -> KdsClient:
    client = httpx.AsyncClient(
        transport=transport,
        event_hooks=plan.metrics.kds_hooks(),
        limits=httpx.Limits(max_connections=_KDS_CONNECTIONS),
    )
    await stack.enter_async_context(client)
    return make_kds(plan.settings, client)


def _store(path: Path) -> EndorsementStore:
    """The store, with its folder made; where that fails the service works on and keeps nothing."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _log.warning("store_unusable", path=str(path), reason=error.strerror)
    return EndorsementStore(path)


def _verifier_checks(plan: _Plan, trust: _Trust | None) -> Iterator[ProbeCheck]:
    """What the verifier stands on. Only missing roots make it useless: evidence may bring the rest."""
    if trust is None:
        return
    roots = ", ".join(f"{root.name} ({root.origin})" for root in trust.verifier.roots.roots)
    yield ProbeCheck(name="trust-roots", ok=bool(roots), detail=roots)
    policies = plan.policies
    detail = f"{policies.chosen} {policies.get().digest}; known: {', '.join(policies.names)}"
    yield ProbeCheck(name="policy", ok=True, detail=detail)
    if plan.ek_ca is not None:
        detail = f"{plan.ek_ca.authority}, recorded in {plan.ek_ca.log.path}"
        yield ProbeCheck(name="ek-ca", ok=True, detail=detail)
    if trust.store is not None:
        writable = "writable" if os.access(trust.store.path, os.W_OK) else "not writable: nothing is kept"
        yield ProbeCheck(name="endorsement-store", ok=True, detail=f"{trust.store.path}, {writable}")
    trouble = trust.kds.trouble if trust.kds else None
    why = f"; not asked for now, because {trouble}" if trouble else ""
    yield ProbeCheck(name="kds", ok=True, detail=trust.kds_detail + why)
