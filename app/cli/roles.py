"""The roles inside a command: this machine's backend, and a verifier of its own.

Built from the same settings as the service, where a command's options do not say otherwise.
"""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx

from app.appraisal.policy import Policy
from app.assembly import SIMULATOR_POLICY, make_backend, make_kds, make_vtpm, simulator_policy
from app.attester.attester import Attester
from app.config import PREFIX, Settings
from app.evidence.simulator.backend import SimulatorBackend
from app.telemetry.logs import configure_logging
from app.trust.endorsements import EndorsementSource
from app.trust.roots import TrustRoots
from app.trust.store import EndorsementStore
from app.verifier.key_challenges import KeyChallenges
from app.verifier.policies import PolicySet, read_policies, read_policy
from app.verifier.verifier import Verifier

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
async def local_attester(settings: Settings) -> AsyncIterator[Attester]:
    """An attester in this process, on this machine's backend and vTPM, or the simulator's.

    Raises:
        ConfigError, BackendError: as `make_backend`.
    """
    async with AsyncExitStack() as stack:
        backend = make_backend(settings)
        stack.push_async_callback(backend.aclose)
        vtpm = make_vtpm(settings, backend)
        stack.push_async_callback(vtpm.aclose)
        yield Attester(backend, interval_s=settings.interval_s, max_waiting=settings.max_waiting, vtpm=vtpm)


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
async def local_verifier(
    settings: Settings, how: Circumstances, challenges: KeyChallenges | None = None
) -> AsyncIterator[Verifier]:
    """A verifier in this process, with its connections open."""
    async with endorsement_source(settings, how) as (source, roots):
        yield Verifier(source, roots, how.clock, challenges)
