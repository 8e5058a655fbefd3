"""`svsm-attest selftest`: a VM, checked from inside."""

import asyncio
import secrets
import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from app.appraisal.appraise import appraise
from app.appraisal.findings import CheckId, Finding, Outcome
from app.appraisal.policy import default_policy
from app.appraisal.result import AttestationResult
from app.assembly import make_backend, make_roots
from app.cli import terminal
from app.cli.failure import ExitCode
from app.cli.live_ek import NotComparedError, attested_ek, device_tcti, live_ek
from app.cli.roles import (
    Circumstances,
    command_settings,
    endorsement_source,
    utc_now,
)
from app.cli.serve import Backend
from app.cli.server import export_settings
from app.cli.terminal import BAD, CAUTION, FAINT, GOOD, STRONG, columns, joined, styled
from app.config import Settings
from app.errors import BackendError, CertificateError, CollateralUnavailableError, WireError
from app.evidence.backend import EvidenceBackend
from app.evidence.configfs import TPM_DEVICE
from app.evidence.simulator.backend import SimulatorBackend
from app.trust.endorsements import Endorsements, Provenance
from app.trust.offered import OfferedEndorsements
from app.wire.binding import NONCE_SIZE
from app.wire.certificate_table import CertificateTable
from app.wire.evidence import Evidence, Service
from app.wire.manifest import parse_manifest
from app.wire.report import AttestationReport


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


_STYLES = {Status.OK: GOOD, Status.WARN: CAUTION, Status.FAIL: BAD, Status.SKIP: FAINT}
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
_LIVE_EK = "vtpm.live_ek"
_NO_CERTIFICATES = (
    "A verifier needs them: have the host hand them out, let this machine or the verifier reach the KDS,"
    " or import them with `svsm-attest certs import`."
)


def selftest(
    *,
    backend: Annotated[
        Backend | None,
        typer.Option(help="Where evidence comes from; configfs unless settings say otherwise."),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never ask the KDS.")] = False,
    store: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The endorsement store, in place of the usual one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check everything that attestation needs, from inside the VM: one line each, with what to do.

    Provider and SVSM, one attestation, REPORT_DATA, VMPL, manifest, EK, certificates, chain and
    signature, and the EK against the live TPM. Exits with 0 if nothing failed, 4 if the backend
    gave no evidence, 1 otherwise.
    """
    export_settings({"backend": backend})
    settings = command_settings()
    if "backend" not in settings.model_fields_set:
        # Whoever runs this wants to know about this VM; the default of a service is the simulator.
        settings = settings.model_copy(update={"backend": Backend.CONFIGFS.value})
    examination = _Examination(settings, offline=offline or settings.offline, store=store or settings.store)
    asyncio.run(examination.run())
    lines = examination.lines
    failed = [line for line in lines if line.status is Status.FAIL]
    if as_json:
        terminal.print_json(
            {
                "ok": not failed,
                "backend": settings.backend,
                "simulated": settings.simulates,
                "checks": [asdict(line) for line in lines],
            }
        )
    else:
        _show(lines, simulated=settings.simulates)
    if examination.no_evidence:
        raise typer.Exit(ExitCode.BACKEND)
    raise typer.Exit(ExitCode.NOT_AFFIRMING if failed else ExitCode.DONE)


class _Examination:
    """Goes through the checks in the order in which one builds on the other."""

    def __init__(self, settings: Settings, *, offline: bool, store: Path) -> None:
        self._settings = settings
        self._offline = offline
        self._store = store
        self._nonce = secrets.token_bytes(NONCE_SIZE)
        self.lines: list[Line] = []
        self.no_evidence = False

    async def run(self) -> None:
        """Do all of it; nothing is raised but settings that cannot be used."""
        try:
            backend = make_backend(self._settings)
        except BackendError as error:
            self._fail("backend", error.reason, error.remedy)
            self.no_evidence = True
            return
        try:
            await self._probe(backend)
            evidence = await self._attest(backend)
            if evidence is not None:
                await self._examine(evidence, backend)
        finally:
            await backend.aclose()

    async def _probe(self, backend: EvidenceBackend) -> None:
        for check in (await backend.probe()).checks:
            # A check that another one kept from being made has no remedy of its own.
            bad = Status.FAIL if check.remedy else Status.SKIP
            status = Status.OK if check.ok else bad
            self.lines.append(Line(check.name, status, check.detail, check.remedy))

    async def _attest(self, backend: EvidenceBackend) -> Evidence | None:
        start = time.perf_counter()
        try:
            evidence = await backend.collect(self._nonce, Service.VTPM)
        except BackendError as error:
            self._fail("attestation", f"{error.cause}: {error.reason}", error.remedy)
            self.no_evidence = True
            return None
        elapsed_s = time.perf_counter() - start
        self._ok("attestation", f"a report of {len(evidence.report)} bytes in {elapsed_s:.2f} s")
        return evidence

    async def _examine(self, evidence: Evidence, backend: EvidenceBackend) -> None:
        try:
            report = AttestationReport.parse(evidence.report)
            manifest = parse_manifest(evidence.manifest) if evidence.manifest else None
        except WireError as error:
            self._fail("evidence", str(error), "Report this: a platform gave something malformed.")
            return
        simulator = backend if isinstance(backend, SimulatorBackend) else None
        how = Circumstances(
            roots=make_roots(self._settings),
            store=self._store,
            offline=self._offline,
            simulator=simulator if self._settings.allow_simulator else None,
        )
        async with endorsement_source(self._settings, how) as (source, roots):
            endorsements: Endorsements | None = None
            why = ""
            try:
                offered = OfferedEndorsements()
                if evidence.certificates:
                    offered = offered.with_table(CertificateTable.parse(evidence.certificates), "evidence")
                endorsements = await source.gather(report, offered, want_crl=False)
            except CollateralUnavailableError as error:
                why = str(error)
            except (WireError, CertificateError) as error:
                why = f"the host's certificate table cannot be used: {error}"
        result = appraise(
            report=report,
            manifest=manifest,
            manifest_bytes=evidence.manifest,
            nonce=self._nonce,
            endorsements=endorsements or _NO_ENDORSEMENTS,
            roots=roots,
            policy=default_policy(),
            at=utc_now(),
        )
        self._ok("manifest", str((result.claims.get("vtpm") or {}).get("manifest_kind", "none")))
        self._add_findings(result, _OF_THE_EVIDENCE)
        self._add_endorsements(result, endorsements, why)
        if evidence.manifest and not backend.simulated:
            self._compare_live_ek(evidence.manifest)

    def _compare_live_ek(self, manifest: bytes) -> None:
        try:
            attested = attested_ek(manifest)
            live = live_ek(attested, device_tcti(TPM_DEVICE))
        except NotComparedError as error:
            self.lines.append(Line(_LIVE_EK, Status.SKIP, f"not checked here: {error}"))
            return
        if live == attested:
            self._ok(_LIVE_EK, f"the TPM at {TPM_DEVICE} has the EK that the SVSM vouches for")
            return
        self._fail(
            _LIVE_EK,
            f"the TPM at {TPM_DEVICE} has another EK ({live.name.hex()}) than the SVSM vouches for"
            f" ({attested.name.hex()})",
            "Restart the VM: its endorsement seed was changed after the SVSM first read the EK, or this"
            " TPM is not the SVSM's.",
        )

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

    def _fail(self, name: str, detail: str, remedy: str) -> None:
        self.lines.append(Line(name, Status.FAIL, detail, remedy))


_NO_ENDORSEMENTS = Endorsements(
    leaf=None, intermediate=None, root=None, crl=None, crl_why="not looked for", signature_valid=False
)


def _line(finding: Finding) -> Line:
    status = _STATUSES[finding.outcome]
    detail = finding.why
    if status in {Status.FAIL, Status.WARN}:
        detail = f"{finding.why} Expected {finding.expected}, found {finding.actual}."
    return Line(finding.check.value, status, detail, finding.remedy)


def _show(lines: list[Line], *, simulated: bool) -> None:
    if simulated:
        terminal.show(styled("SIMULATED: this says nothing about any hardware.", BAD), Text())
    rows = []
    for line in lines:
        detail = styled(line.detail)
        if line.remedy and line.status is not Status.OK:
            detail = joined(detail, ("  do: ", STRONG), line.remedy)
        rows.append((styled(line.status.value, _STYLES[line.status]), styled(line.name), detail))
    failed = sum(line.status is Status.FAIL for line in lines)
    terminal.show(columns(rows), Text(), _summary(len(lines), failed))


def _summary(count: int, failed: int) -> Text:
    if failed:
        return joined((f"{failed} of {count} checks failed.", BAD))
    return joined((f"None of {count} checks failed.", GOOD))
