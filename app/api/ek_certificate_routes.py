"""The verifier's routes for EK certificates: a nonce, and the certificate for evidence about it."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from app.api.fields import Nonce
from app.api.media_types import JSON, Offers
from app.api.openapi import problems
from app.api.state import MetricsDep, PoliciesDep, VerifierDep
from app.api.strict_route import StrictRoute
from app.api.verdict_document import VerdictDocument
from app.api.verify_request import AppraisalRequest
from app.appraisal.findings import Tier
from app.verifier.ek_ca import EkCa
from app.wire import b64

router = APIRouter(prefix="/ek-certificates", route_class=StrictRoute, tags=["verifier"])

_OFF = (
    "This verifier issues no EK certificates: its operator set no ek_ca_certificate, ek_ca_key and ek_ca_log."
)


async def _ek_ca(request: Request) -> EkCa:
    found: EkCa | None = getattr(request.state, "ek_ca", None)
    if found is None:
        raise HTTPException(404, _OFF)
    return found


EkCaDep = Annotated[EkCa, Depends(_ek_ca)]


class NonceDocument(BaseModel):
    """A nonce for one request."""

    model_config = ConfigDict(extra="forbid")

    nonce: Nonce = Field(description="64 random bytes, for the attester")
    expires_at: str = Field(description="RFC 3339")


class CertificateRequest(AppraisalRequest):
    """Evidence for a nonce of this verifier. The policy is the operator's: a request cannot choose one."""

    nonce: Nonce = Field(description="from POST /ek-certificates/nonces; this request uses it up")


class CertificateDocument(BaseModel):
    """An EK certificate, and the appraisal that it rests on."""

    model_config = ConfigDict(extra="forbid")

    certificate: str = Field(description="PEM")
    serial: str = Field(pattern="^[0-9a-f]{40}$", description="as in the verifier's record")
    not_before: str = Field(description="RFC 3339")
    not_after: str = Field(description="RFC 3339")
    ek_sha256: str = Field(pattern="^[0-9a-f]{64}$", description="of the bare TPMT_PUBLIC")
    verdict: Tier
    appraisal: VerdictDocument


@router.post(
    "/nonces",
    response_model=NonceDocument,
    response_description="A nonce, to be used once and soon",
    responses=problems(
        "malformed-request", "not-found", "not-acceptable", "rate-limited", "issuer-unavailable"
    ),
    dependencies=[Depends(Offers(JSON))],
    operation_id="ek_certificate_nonce",
    summary="A nonce for an EK certificate",
)
async def new_nonce(ek_ca: EkCaDep) -> JSONResponse:
    """An EK certificate takes evidence for a nonce of this verifier, which is to be used once and soon.

    Whoever asks for the certificate may be the very guest that makes the evidence: a nonce of its own
    choice would say nothing about time.
    """
    nonce, expires_at = await ek_ca.new_nonce()
    return JSONResponse({"nonce": b64.encode(nonce), "expires_at": _text(expires_at)})


@router.post(
    "",
    response_model=CertificateDocument,
    response_description="The certificate, which is on record",
    responses=problems(
        "malformed-request",
        "nonce-invalid",
        "not-affirmed",
        "not-found",
        "not-acceptable",
        "unsupported-media-type",
        "evidence-malformed",
        "report-version-unsupported",
        "collateral-unavailable",
        "issuer-unavailable",
    ),
    dependencies=[Depends(Offers(JSON))],
    operation_id="ek_certificate",
    summary="Certify the EK of an attested vTPM",
)
async def certify(
    body: CertificateRequest,
    ek_ca: EkCaDep,
    verifier: VerifierDep,
    policies: PoliciesDep,
    metrics: MetricsDep,
) -> JSONResponse:
    """A short-lived TCG-profile certificate, after an affirming appraisal under the operator's policy.

    The nonce is used up even where no certificate is given: the next attempt takes a new one.
    """
    issued = await ek_ca.issue(
        body.evidence.to_evidence(),
        body.nonce,
        verifier=verifier,
        policy=policies.get(),
        expectation=body.expectation(),
        answer=body.answer(),
    )
    result, certificate = issued.result, issued.certificate
    metrics.appraisal(result.verdict.value, simulated=result.endorsements["simulated"])
    return JSONResponse(
        {
            "certificate": issued.pem,
            "serial": issued.serial,
            "not_before": _text(certificate.not_valid_before_utc),
            "not_after": _text(certificate.not_valid_after_utc),
            "ek_sha256": issued.ek_sha256,
            "verdict": result.verdict.value,
            "appraisal": result.document(),
        }
    )


def _text(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"
