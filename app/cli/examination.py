"""What `selftest` goes through: everything that attestation needs, from inside the VM."""

import secrets
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from app.api.pcr_fields import every_pcr
from app.appraisal.appraise import appraise
from app.appraisal.findings import CheckId, Finding, Outcome
from app.appraisal.key_proof import KeyProof, NoKeyProof
from app.appraisal.policy import default_policy
from app.appraisal.quote import NO_EXPECTATION, Quote, QuoteExpectation
from app.appraisal.result import AttestationResult
from app.assembly import make_roots
from app.attester.attester import Attester, QuoteWish
from app.attester.endorsement_key import LiveState
from app.cli.roles import Circumstances, endorsement_source, local_attester, utc_now
from app.config import Settings
from app.errors import (
    BackendError,
    CertificateError,
    ChallengeRefusedError,
    CollateralUnavailableError,
    WireError,
)
from app.evidence.backend import ProbeCheck
from app.evidence.simulator.backend import SimulatorBackend
from app.evidence.vtpm.ak_kind import AkKind
from app.evidence.vtpm.refusal import VtpmCause
from app.evidence.vtpm.vtpm import CHECK as VTPM
from app.trust.endorsements import Endorsements, Provenance
from app.trust.offered import OfferedEndorsements
from app.verifier.key_challenges import (
    ActivationAnswer,
    CertifyAnswer,
    ChallengeAnswer,
    KeyChallenge,
    KeyChallenges,
)
from app.verifier.single_use import MemorySingleUseStore
from app.wire.binding import NONCE_SIZE
from app.wire.certificate_table import CertificateTable
from app.wire.evidence import Evidence, Service
from app.wire.manifest import Manifest, manifest_ek, parse_manifest
from app.wire.report import AttestationReport
from app.wire.tpm.duplicate import ImportBlob


class Status(StrEnum):
    """What became of one check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Line:
    """One check; `remedy` says what to do where it did not come out well."""

    name: str
    status: Status
    detail: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class _Parsed:
    """Evidence, read."""

    evidence: Evidence
    report: AttestationReport
    manifest: Manifest | None
    quote: Quote | None


@dataclass(frozen=True, slots=True)
class _Proofs:
    """What the attestation key's answers to a challenge of each kind show."""

    activated: KeyProof | NoKeyProof
    certified: KeyProof | NoKeyProof


_STATUSES = {
    Outcome.PASSED: Status.OK,
    Outcome.WARNED: Status.WARN,
    Outcome.FAILED: Status.FAIL,
    Outcome.NOT_REQUESTED: Status.SKIP,
}
_OF_THE_EVIDENCE = (
    CheckId.REPORT_DATA,
    CheckId.VMPL,
    CheckId.VTPM_BINDING,
    CheckId.VTPM_MANIFEST_VERSION,
    CheckId.VTPM_EK_TEMPLATE,
    CheckId.POLICY_DEBUG,
    CheckId.POLICY_MIGRATE_MA,
    CheckId.FIRMWARE,
    CheckId.TCB_MINIMUM,
    CheckId.PLATFORM_INFO,
)
_OF_THE_KEY = (CheckId.VTPM_AK, CheckId.VTPM_AK_BINDING)
_OF_THE_QUOTE = (
    CheckId.QUOTE_SIGNATURE,
    CheckId.QUOTE_NONCE,
    CheckId.QUOTE_SELECTION,
    CheckId.QUOTE_DIGEST,
    CheckId.VTPM_EVENT_LOG,
)
_OF_THE_ENDORSEMENTS = (
    CheckId.CHAIN,
    CheckId.SIGNATURE,
    CheckId.VEK_KIND,
    CheckId.VEK_TCB,
    CheckId.VEK_HWID,
    CheckId.PRODUCT,
)
_PLACES = {
    Provenance.OFFERED: "the host handed them out with the report",
    Provenance.STORE: "the store has the leaf of this chip and TCB",
    Provenance.KDS: "the KDS gave the leaf of this chip and TCB",
}
_KEY = AkKind.P256
_LIVE_EK = "vtpm.live_ek"
_QUOTE = "vtpm.quote"
_IMPORT = "vtpm.ak_import"
_CHALLENGE_LIFETIME_S = 600.0  # the TPM has its own deadline, and answers before
_NO_CERTIFICATES = (
    "A verifier needs them: have the host hand them out, let this machine or the verifier reach the KDS,"
    " or import them with `svsm-attest certs import`."
)


class Examination:
    """Goes through the checks in the order in which one builds on the other.

    The device is asked once, with a quote in the same session where there is a TPM.
    """

    def __init__(self, settings: Settings, *, offline: bool, store: Path) -> None:
        self._settings = settings
        self._offline = offline
        self._store = store
        self._nonce = secrets.token_bytes(NONCE_SIZE)
        self.lines: list[Line] = []
        self.no_evidence = False

    async def run(self) -> None:
        """Do all of it; nothing is raised but settings that cannot be used."""
        async with AsyncExitStack() as stack:
            try:
                attester = await stack.enter_async_context(local_attester(self._settings))
            except BackendError as error:
                self._fail("backend", error.reason, error.remedy)
                self.no_evidence = True
                return
            wish = await self._try_quote(attester) if await self._probe(attester) else None
            evidence = await self._attest(attester, wish)
            parsed = self._parse(evidence) if evidence is not None else None
            if parsed is not None:
                await self._examine(parsed, attester)

    async def _probe(self, attester: Attester) -> bool:
        """Whether the TPM answers."""
        checks = (await attester.probe()).checks
        self.lines += map(_probe_line, checks)
        return any(check.name == VTPM and check.remedy is None for check in checks)

    async def _try_quote(self, attester: Attester, *, with_event_log: bool = True) -> QuoteWish | None:
        """What the TPM can quote, found out before the device is asked, which is the scarcer of the two."""
        wish = QuoteWish(key=_KEY, pcrs=every_pcr(), with_event_log=with_event_log)
        start = time.perf_counter()
        try:
            await attester.quote(self._nonce, wish)
        except BackendError as error:
            if with_event_log and error.cause == VtpmCause.EVENT_LOG:
                self.lines.append(Line("event log", Status.SKIP, error.reason, error.remedy))
                return await self._try_quote(attester, with_event_log=False)
            self._fail(_QUOTE, f"{error.cause}: {error.reason}", error.remedy)
            return None
        took_ms = 1000 * (time.perf_counter() - start)
        self._ok(_QUOTE, f"every register of the SHA-256 bank in {took_ms:.0f} ms")
        return wish

    async def _attest(self, attester: Attester, wish: QuoteWish | None) -> Evidence | None:
        start = time.perf_counter()
        try:
            evidence = await attester.attest(self._nonce, Service.VTPM, quote=wish)
        except BackendError as error:
            self._fail("attestation", f"{error.cause}: {error.reason}", error.remedy)
            self.no_evidence = True
            return None
        elapsed_s = time.perf_counter() - start
        self._ok("attestation", f"a report of {len(evidence.report)} bytes in {elapsed_s:.2f} s")
        return evidence

    def _parse(self, evidence: Evidence) -> _Parsed | None:
        try:
            return _Parsed(
                evidence,
                AttestationReport.parse(evidence.report),
                parse_manifest(evidence.manifest) if evidence.manifest else None,
                Quote.parse(evidence.quote) if evidence.quote else None,
            )
        except WireError as error:
            self._fail("evidence", str(error), "Report this: a platform gave something malformed.")
            return None

    async def _examine(self, parsed: _Parsed, attester: Attester) -> None:
        proofs = await self._prove_key(parsed, attester)
        endorsements, result = await self._appraise(parsed, attester, proofs)
        self._ok("manifest", str((result.claims.get("vtpm") or {}).get("manifest_kind", "none")))
        self._add_findings(result, _OF_THE_EVIDENCE)
        await self._compare_live_ek(attester)
        if parsed.quote is not None:
            self._add_findings(result, _OF_THE_KEY)
            self._add_import(proofs)
            self._add_findings(result, _OF_THE_QUOTE)
        self._add_endorsements(result, *endorsements)

    async def _prove_key(self, parsed: _Parsed, attester: Attester) -> _Proofs | None:
        """Challenge the attestation key both ways, as a verifier would."""
        ek = manifest_ek(parsed.manifest) if parsed.manifest else None
        if parsed.quote is None or ek is None or ek.template is None:
            return None
        challenges = KeyChallenges(MemorySingleUseStore(2), lifetime_s=_CHALLENGE_LIFETIME_S, clock=utc_now)
        try:
            ak = (await attester.attestation_key(_KEY)).ak
        except BackendError as error:
            unproven = NoKeyProof(f"The TPM did not hand out its attestation key: {error.reason}.")
            return _Proofs(unproven, unproven)
        return _Proofs(
            await _answered(challenges, attester, await challenges.activation(ek, ak)),
            await _answered(challenges, attester, await challenges.importing(ek, ak)),
        )

    async def _appraise(
        self, parsed: _Parsed, attester: Attester, proofs: _Proofs | None
    ) -> tuple[tuple[Endorsements | None, str], AttestationResult]:
        backend = attester.backend
        simulator = backend if isinstance(backend, SimulatorBackend) else None
        how = Circumstances(
            roots=make_roots(self._settings),
            store=self._store,
            offline=self._offline,
            simulator=simulator if self._settings.allow_simulator else None,
        )
        table = parsed.evidence.certificates
        async with endorsement_source(self._settings, how) as (source, roots):
            endorsements: Endorsements | None = None
            why = ""
            try:
                offered = OfferedEndorsements()
                if table:
                    offered = offered.with_table(CertificateTable.parse(table), "evidence")
                endorsements = await source.gather(parsed.report, offered, want_crl=False)
            except CollateralUnavailableError as error:
                why = str(error)
            except (WireError, CertificateError) as error:
                why = f"the host's certificate table cannot be used: {error}"
        result = appraise(
            report=parsed.report,
            manifest=parsed.manifest,
            manifest_bytes=parsed.evidence.manifest,
            nonce=self._nonce,
            endorsements=endorsements or _NO_ENDORSEMENTS,
            roots=roots,
            policy=default_policy(),
            at=utc_now(),
            quote=parsed.quote,
            expectation=QuoteExpectation(key_proof=proofs.activated) if proofs else NO_EXPECTATION,
        )
        return (endorsements, why), result

    async def _compare_live_ek(self, attester: Attester) -> None:
        ek = await attester.endorsement_key()
        if ek is None:
            self.lines.append(Line(_LIVE_EK, Status.SKIP, "The manifest holds no EK."))
        elif ek.live.state is LiveState.MATCHES:
            self._ok(_LIVE_EK, "The TPM has the EK that the SVSM vouches for.")
        else:
            status = Status.FAIL if ek.live.state is LiveState.DIFFERS else Status.SKIP
            self.lines.append(Line(_LIVE_EK, status, str(ek.live.why), ek.live.remedy))

    def _add_import(self, proofs: _Proofs | None) -> None:
        if proofs is None:
            return
        if isinstance(proofs.certified, NoKeyProof):
            remedy = "A verifier needs one way only: credential activation is enough where that works."
            self._fail(_IMPORT, proofs.certified.why, remedy)
        else:
            self._ok(_IMPORT, "A key that a verifier wrapped for the EK certified the attestation key.")

    def _add_endorsements(
        self, result: AttestationResult, endorsements: Endorsements | None, why: str
    ) -> None:
        if endorsements is None:
            self.lines.append(Line("certificates", Status.SKIP, why, _NO_CERTIFICATES))
            return
        origin = endorsements.leaf_from
        self._ok("certificates", _PLACES[origin] if origin else "the report names no key to certify")
        self._add_findings(result, _OF_THE_ENDORSEMENTS)

    def _add_findings(self, result: AttestationResult, checks: tuple[CheckId, ...]) -> None:
        found = {finding.check: finding for finding in result.findings}
        self.lines += [_line(found[check]) for check in checks if check in found]

    def _ok(self, name: str, detail: str) -> None:
        self.lines.append(Line(name, Status.OK, detail))

    def _fail(self, name: str, detail: str, remedy: str | None) -> None:
        self.lines.append(Line(name, Status.FAIL, detail, remedy))


_NO_ENDORSEMENTS = Endorsements(
    leaf=None, intermediate=None, root=None, crl=None, crl_why="not looked for", signature_valid=False
)


async def _answered(
    challenges: KeyChallenges, attester: Attester, challenge: KeyChallenge
) -> KeyProof | NoKeyProof:
    try:
        return await challenges.resolve(await _answer(attester, challenge))
    except (BackendError, ChallengeRefusedError, WireError) as error:
        return NoKeyProof(f"The TPM did not answer the challenge: {error}.")


async def _answer(attester: Attester, challenge: KeyChallenge) -> ChallengeAnswer:
    blob = challenge.blob
    if isinstance(blob, ImportBlob):
        made = await attester.certify(_KEY, blob)
        return CertifyAnswer.parse(challenge.id, made.certify_info, made.signature)
    return ActivationAnswer(challenge.id, await attester.activate(_KEY, blob))


def _probe_line(check: ProbeCheck) -> Line:
    if check.ok:  # with a remedy: something optional is missing
        status = Status.OK if check.remedy is None else Status.SKIP
    else:  # a check that another one kept from being made has no remedy of its own
        status = Status.SKIP if check.remedy is None else Status.FAIL
    return Line(check.name, status, check.detail, check.remedy)


def _line(finding: Finding) -> Line:
    status = _STATUSES[finding.outcome]
    detail = finding.why
    if status in {Status.FAIL, Status.WARN}:
        detail = f"{finding.why} Expected {finding.expected}, found {finding.actual}."
    return Line(finding.check.value, status, detail, finding.remedy)
