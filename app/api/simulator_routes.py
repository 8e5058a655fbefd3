"""Routes of an attester on the simulator: its root and its KDS, for verifiers elsewhere.

With them a verifier of ours, or one of another make, can be pointed at the simulator as it would
be pointed at AMD.
"""

from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.api.openapi import problems
from app.api.state import SimulatorDep

router = APIRouter(prefix="/simulator", tags=["simulator"])

_ERROR = 400
_MEDIA_TYPES = ("application/octet-stream", "application/x-pem-file", "application/pkix-crl")
_BINARY: dict[int | str, dict[str, Any]] = {
    200: {"content": {name: {"schema": {"type": "string", "format": "binary"}} for name in _MEDIA_TYPES}}
}


class PemResponse(Response):
    """A certificate as an answer."""

    media_type = "application/x-pem-file"


@router.get(
    "/ark.pem",
    response_class=PemResponse,
    response_description="The simulated root",
    responses=problems("backend-unavailable"),
    operation_id="simulated_root",
    summary="The root that vouches for the simulator",
)
async def ark(simulator: SimulatorDep) -> PemResponse:
    """A certificate that says SIMULATED. Trusting it takes the setting `allow_simulator`."""
    root = await simulator.trust_root()
    return PemResponse(root.public_bytes(Encoding.PEM))


@router.get(
    "/kds/{path:path}",
    response_class=Response,
    response_description="A certificate, a chain or a CRL, as AMD's KDS has them",
    responses=_BINARY
    | problems("malformed-request", "forbidden", "not-found", "rate-limited", "backend-unavailable"),
    operation_id="simulated_kds",
    summary="AMD's KDS, for simulated chips",
)
async def kds(path: str, request: Request, simulator: SimulatorDep) -> Response:
    """Paths and queries as AMD 57230 has them: `vcek/v1/Genoa/cert_chain`, `vcek/v1/Genoa/crl`, and so on."""
    query = request.scope["query_string"].decode("latin-1")
    answer = await simulator.kds.answer(f"/{path}", query)
    if answer.status >= _ERROR:
        raise HTTPException(answer.status, "So the simulated KDS answers here.", headers=answer.headers)
    return Response(answer.body, answer.status, headers=answer.headers)
