"""Routes of both roles: is the process alive, is it of use, and what has it done."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from app.api.state import MetricsDep, ReadinessDep
from app.telemetry.metrics import MEDIA_TYPE

router = APIRouter(tags=["operation"])


class MetricsResponse(Response):
    """Metrics as an answer."""

    media_type = MEDIA_TYPE


class LivenessDocument(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class CheckDocument(BaseModel):
    """One prerequisite."""

    model_config = ConfigDict(extra="forbid")

    name: str
    ok: bool
    detail: str
    remedy: str | None = Field(description="what to do where `ok` is false, or something optional is missing")


class ReadinessDocument(BaseModel):
    """Can this service do what its role asks for? Nothing is asked of the device to find out."""

    model_config = ConfigDict(extra="forbid")

    ready: bool = Field(description="did every check come out well?")
    role: Literal["attester", "verifier", "both"]
    backend: str | None = Field(description="where evidence comes from; null for a mere verifier")
    simulated: bool = Field(description="true where a simulator serves evidence, or is trusted")
    allow_simulator: bool = Field(description="the explicit setting")
    version: str
    checks: list[CheckDocument]


@router.get("/livez", operation_id="livez", summary="Is the process alive?")
async def livez() -> LivenessDocument:
    """Answers as long as the process can."""
    return LivenessDocument()


@router.get(
    "/readyz",
    response_model=ReadinessDocument,
    response_description="Ready",
    responses={503: {"model": ReadinessDocument, "description": "Not ready: a check says why"}},
    operation_id="readyz",
    summary="Can the service do its work?",
)
async def readyz(readiness: ReadinessDep) -> JSONResponse:
    """The prerequisites of the role, one by one."""
    document = await readiness.document()
    return JSONResponse(document, status_code=200 if document["ready"] else 503)


@router.get(
    "/metrics",
    response_class=MetricsResponse,
    response_description="Prometheus' text format",
    operation_id="metrics",
    summary="What has the service done?",
)
async def metrics(counted: MetricsDep) -> MetricsResponse:
    """Counters and histograms for Prometheus."""
    return MetricsResponse(counted.exposition())
