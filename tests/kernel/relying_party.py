"""Who asks for evidence from outside and judges it, as far as nobody's signature is needed for that."""

from typing import TypeAlias

from app.appraisal.appraise import appraise
from app.appraisal.findings import CheckId, Finding, Outcome
from app.appraisal.policy import default_policy
from app.appraisal.quote import Quote, QuoteExpectation
from app.assembly import make_roots
from app.cli.roles import utc_now
from app.config import Settings
from app.trust.endorsements import Endorsements
from app.verifier.key_challenges import ChallengeAnswer, KeyChallenges
from app.verifier.single_use import MemorySingleUseStore
from app.wire.evidence import Evidence
from app.wire.manifest import parse_manifest
from app.wire.report import AttestationReport

# What holds although the stand-in's reports are signed by nobody.
OF_THE_TPM = (
    CheckId.REPORT_DATA,
    CheckId.VMPL,
    CheckId.VTPM_BINDING,
    CheckId.VTPM_EK_TEMPLATE,
    CheckId.VTPM_AK,
    CheckId.VTPM_AK_BINDING,
    CheckId.QUOTE_SIGNATURE,
    CheckId.QUOTE_NONCE,
    CheckId.QUOTE_SELECTION,
    CheckId.QUOTE_DIGEST,
    CheckId.VTPM_EVENT_LOG,
)
Findings: TypeAlias = dict[CheckId, Finding]
_NO_ENDORSEMENTS = Endorsements(
    leaf=None, intermediate=None, root=None, crl=None, crl_why="not looked for", signature_valid=False
)


def new_challenges() -> KeyChallenges:
    return KeyChallenges(MemorySingleUseStore(8), lifetime_s=600, clock=utc_now)


async def judged(
    nonce: bytes, evidence: Evidence, challenges: KeyChallenges, answer: ChallengeAnswer
) -> Findings:
    """What each check finds in evidence with a quote."""
    assert evidence.manifest is not None
    assert evidence.quote is not None
    result = appraise(
        report=AttestationReport.parse(evidence.report),
        manifest=parse_manifest(evidence.manifest),
        manifest_bytes=evidence.manifest,
        nonce=nonce,
        endorsements=_NO_ENDORSEMENTS,
        roots=make_roots(Settings()),
        policy=default_policy(),
        at=utc_now(),
        quote=Quote.parse(evidence.quote),
        expectation=QuoteExpectation(key_proof=await challenges.resolve(answer)),
    )
    return {finding.check: finding for finding in result.findings}


def objections(found: Findings) -> Findings:
    """Of the checks that can pass without a signature on the report, those that did not."""
    return {check: found[check] for check in OF_THE_TPM if found[check].outcome is not Outcome.PASSED}
