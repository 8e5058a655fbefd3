"""The verifier's route: one appraisal."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from starlette.responses import JSONResponse

from app.api.evidence_document import EvidenceDocument
from app.api.fields import Nonce
from app.api.media_types import JSON, Offers
from app.api.openapi import problems
from app.api.state import MetricsDep, PoliciesDep, VerifierDep
from app.api.strict_route import StrictRoute
from app.api.verdict_document import VerdictDocument
from app.appraisal.policy_document import policy_from

router = APIRouter(route_class=StrictRoute, tags=["verifier"])

_POLICY_SCHEMA = {
    "anyOf": [
        {"type": "string", "description": "the name of a policy that this verifier knows"},
        {"type": "object", "description": "a whole policy, as docs/reference/policy.md has it"},
        {"type": "null", "description": "the policy that the operator chose"},
    ]
}


def _name_or_document(value: object) -> object:
    if value is None or isinstance(value, str | dict):
        return value
    raise ValueError("want the name of a policy, or a policy as an object")


class VerifyRequest(BaseModel):
    """Evidence, the nonce it was asked for with, and by what policy to appraise it."""

    model_config = ConfigDict(extra="forbid")

    nonce: Nonce = Field(description="the nonce of the caller; of a bare report the expected REPORT_DATA")
    evidence: EvidenceDocument
    policy: Annotated[
        str | dict[str, Any] | None, BeforeValidator(_name_or_document), WithJsonSchema(_POLICY_SCHEMA)
    ] = None


@router.post(
    "/verify",
    response_model=VerdictDocument,
    response_description="A finished appraisal, whatever it came to",
    responses=problems(
        "malformed-request",
        "nonce-invalid",
        "policy-invalid",
        "not-acceptable",
        "unsupported-media-type",
        "evidence-malformed",
        "report-version-unsupported",
        "collateral-unavailable",
    ),
    dependencies=[Depends(Offers(JSON))],
    operation_id="verify",
    summary="Appraise evidence",
)
async def verify(
    body: VerifyRequest, verifier: VerifierDep, policies: PoliciesDep, metrics: MetricsDep
) -> JSONResponse:
    """Every check of the profile reports, and together they make the verdict.

    Evidence that is malformed gets no verdict (422), nor does evidence whose endorsements could not
    be had (503), which says nothing about trust.
    """
    policy = policy_from(body.policy) if isinstance(body.policy, dict) else policies.get(body.policy)
    result = await verifier.verify(body.evidence.to_evidence(), body.nonce, policy)
    metrics.appraisal(result.verdict.value, simulated=result.endorsements["simulated"])
    return JSONResponse(result.document())
