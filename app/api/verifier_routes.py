"""The verifier's route: one appraisal."""

from fastapi import APIRouter, Depends
from starlette.responses import JSONResponse

from app.api.media_types import JSON, Offers
from app.api.openapi import problems
from app.api.state import MetricsDep, PoliciesDep, VerifierDep
from app.api.strict_route import StrictRoute
from app.api.verdict_document import VerdictDocument
from app.api.verify_request import VerifyRequest
from app.appraisal.policy_document import policy_from

router = APIRouter(route_class=StrictRoute, tags=["verifier"])


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
    be had (503), which says nothing about trust. An answer to a challenge is used up by a verdict,
    whatever it says, and by nothing else.
    """
    policy = policy_from(body.policy) if isinstance(body.policy, dict) else policies.get(body.policy)
    result = await verifier.verify(
        body.evidence.to_evidence(),
        body.nonce,
        policy,
        expectation=body.expectation(),
        answer=body.answer(),
    )
    metrics.appraisal(result.verdict.value, simulated=result.endorsements["simulated"])
    return JSONResponse(result.document())
