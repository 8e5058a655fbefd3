"""What the lifespan of the application makes and the routes reach through `request.state`."""

from typing import Annotated, TypedDict

from fastapi import Depends
from starlette.requests import Request

from app.api.readiness import Readiness
from app.attester.attester import Attester
from app.evidence.simulator.backend import SimulatorBackend
from app.telemetry.metrics import Metrics
from app.verifier.ek_ca import EkCa
from app.verifier.key_challenges import KeyChallenges
from app.verifier.policies import PolicySet
from app.verifier.verifier import Verifier
from app.wire.session import Channel


class State(TypedDict, total=False):
    """Members are missing where the role, or the backend, has no use for them."""

    metrics: Metrics
    readiness: Readiness
    attester: Attester
    end_point: Channel | None
    simulator: SimulatorBackend
    verifier: Verifier
    policies: PolicySet
    ek_ca: EkCa
    challenges: KeyChallenges


# Coroutines, because FastAPI sends plain functions to a thread.


async def _metrics(request: Request) -> Metrics:
    found: Metrics = request.state.metrics
    return found


async def _readiness(request: Request) -> Readiness:
    found: Readiness = request.state.readiness
    return found


async def _attester(request: Request) -> Attester:
    found: Attester = request.state.attester
    return found


async def _end_point(request: Request) -> Channel | None:
    found: Channel | None = request.state.end_point
    return found


async def _simulator(request: Request) -> SimulatorBackend:
    found: SimulatorBackend = request.state.simulator
    return found


async def _verifier(request: Request) -> Verifier:
    found: Verifier = request.state.verifier
    return found


async def _policies(request: Request) -> PolicySet:
    found: PolicySet = request.state.policies
    return found


async def _challenges(request: Request) -> KeyChallenges:
    found: KeyChallenges = request.state.challenges
    return found


MetricsDep = Annotated[Metrics, Depends(_metrics)]
ReadinessDep = Annotated[Readiness, Depends(_readiness)]
AttesterDep = Annotated[Attester, Depends(_attester)]
EndPointDep = Annotated[Channel | None, Depends(_end_point)]
SimulatorDep = Annotated[SimulatorBackend, Depends(_simulator)]
VerifierDep = Annotated[Verifier, Depends(_verifier)]
PoliciesDep = Annotated[PolicySet, Depends(_policies)]
ChallengesDep = Annotated[KeyChallenges, Depends(_challenges)]
