"""`svsm-attest policy`."""

import asyncio
import hashlib
import re
import sys
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from app.appraisal.findings import GENUINE, QUOTED, CheckId, Outcome
from app.appraisal.policy import Policy, default_policy
from app.appraisal.policy_document import MAX_SIZE, parse_policy
from app.appraisal.result import AttestationResult
from app.assembly import make_roots, make_simulator
from app.attester.endorsement_key import endorsement_key
from app.cli import terminal
from app.cli.certificate_table import signing_leaf
from app.cli.evidence_file import MAX_SIZE as MAX_EVIDENCE
from app.cli.evidence_file import read_evidence_bytes
from app.cli.failure import ExitCode, InFileError, InputError, about
from app.cli.files import display_name, read_file
from app.cli.policy_draft import Observation, draft_policy
from app.cli.policy_view import policy_document, render_policy
from app.cli.roles import Circumstances, command_settings, local_verifier, utc_now
from app.config import Settings
from app.errors import CollateralUnavailableError, WireError
from app.evidence.simulator.launch import Launch
from app.trust.names import is_simulated
from app.trust.offered import OfferedEndorsements
from app.trust.vek import read_vek
from app.wire import manifest as manifest_format
from app.wire.certificate_table import CertificateTable
from app.wire.evidence import Evidence
from app.wire.manifest import parse_manifest, vtpm_manifest
from app.wire.product import ProductLine
from app.wire.report import AttestationReport
from app.wire.tpm.pcr import PcrValues

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_NAME = 256

policy = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Check an appraisal policy, or write a first one."
)


@policy.command("check")
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML or JSON (- for standard input).")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Say whether a policy can be used, and what it asks for."""
    name = display_name(file)
    raw = read_file(file, MAX_SIZE)
    with about(name, "docs/reference/policy.md describes every key."):
        found = parse_policy(raw, file.name)
    if as_json:
        terminal.print_json(policy_document(found))
    else:
        terminal.show(*render_policy(found, name))


@policy.command("init")
def init(
    *,
    source: Annotated[
        Path, typer.Option("--from", metavar="FILE", help="Evidence as JSON, or a raw report of 1184 bytes.")
    ],
    manifest: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The raw manifest, where --from is a raw report.")
    ] = None,
    certs: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR|FILE", help="Certificates to verify the observation with."),
    ] = None,
    line: Annotated[
        ProductLine | None, typer.Option(help="The product line, where nothing else tells it.")
    ] = None,
    policy_id: Annotated[
        str, typer.Option("--id", help="The policy's id, which shows in results.")
    ] = "observed",
    name: Annotated[str | None, typer.Option(help="What to call the launch digest.")] = None,
    enrol_ek: Annotated[
        bool, typer.Option("--enrol-ek", help="Demand this very EK, which most SVSMs change at every start.")
    ] = False,
    allow_simulator: Annotated[
        bool, typer.Option("--allow-simulator", help="Write a policy for SIMULATED evidence.")
    ] = False,
) -> None:
    """Write a policy from observed evidence, as commented YAML on standard output.

    It trusts what was observed: read it before use. Evidence that turns out not to be genuine gets
    no policy; whether it could be verified is written into its head. Nobody is asked over the network.
    """
    if not _ID.fullmatch(policy_id):
        raise typer.BadParameter(f"--id {policy_id!r}: letters, digits, . _ - and at most 64 of them")
    settings = command_settings()
    now = utc_now()
    name = name if name is not None else f"observed {now:%Y-%m-%d}"
    if not 1 <= len(name) <= _MAX_NAME:
        raise typer.BadParameter(f"--name has {len(name)} characters, want 1 to {_MAX_NAME}")
    seen = _observe(source, manifest, OfferedEndorsements.from_paths(certs or ()))
    if seen.is_simulated and not allow_simulator:
        raise InputError(
            seen.name,
            "this is SIMULATED evidence, and a policy from it would approve software that only pretends",
            "Use evidence from a real VM, or --allow-simulator if this is meant.",
        )
    how = Circumstances(
        roots=make_roots(settings),
        store=settings.store,
        offline=True,
        simulator=make_simulator(settings) if seen.is_simulated else None,
        clock=lambda: now,
    )
    standing, result = _verify(settings, how, seen)
    if result is not None and not result.genuine and not seen.is_simulated:
        _refuse(seen, result)
    observed = replace(_observation(seen, standing, line, now), pcrs=_quoted_pcrs(seen, result))
    text = draft_policy(observed, policy_id=policy_id, name=name, enrol_ek=enrol_ek)
    drafted = parse_policy(text.encode(), "the drafted policy")
    sys.stdout.write(text)
    terminal.note(terminal.joined(("note: ", terminal.STRONG), f"{standing} Read every line before use."))
    if result is not None:
        _note_what_fails(settings, how, seen, drafted)


@dataclass(frozen=True, slots=True)
class _Seen:
    name: str
    evidence: Evidence
    report: AttestationReport
    offered: OfferedEndorsements  # the evidence's own table included

    @property
    def is_simulated(self) -> bool:
        certificates = (*self.offered.leaves, *self.offered.intermediates, *self.offered.roots)
        return (
            self.evidence.backend == "simulator"
            or self.report.measurement == Launch().measurement
            or any(is_simulated(one.subject) or is_simulated(one.issuer) for one in certificates)
        )


def _observe(source: Path, manifest: Path | None, offered: OfferedEndorsements) -> _Seen:
    name = display_name(source)
    raw = read_file(source, MAX_EVIDENCE)
    if raw.lstrip().startswith(b"{"):
        if manifest is not None:
            raise typer.BadParameter("an evidence document holds its manifest: leave --manifest out")
        evidence = read_evidence_bytes(raw, name)
    else:
        evidence = Evidence(
            report=raw,
            manifest=read_file(manifest, manifest_format.MAX_SIZE) if manifest is not None else None,
        )
    with about(name, "`svsm-attest inspect` says what the file is."):
        report = AttestationReport.parse(evidence.report)
        if evidence.certificates:
            offered = offered.with_table(CertificateTable.parse(evidence.certificates), "certificates")
    if evidence.manifest is not None:
        with about(display_name(manifest) if manifest is not None else name):
            parse_manifest(evidence.manifest)
    return _Seen(name, evidence, report, offered)


def _verify(settings: Settings, how: Circumstances, seen: _Seen) -> tuple[str, AttestationResult | None]:
    """What can be said of the evidence, in one sentence, and the appraisal if there could be one."""
    try:
        result = _appraise(settings, how, seen, default_policy())
    except CollateralUnavailableError as error:
        return f"NOT VERIFIED: {error}.", None
    if seen.is_simulated:
        return "SIMULATED: this policy approves a simulator, which proves nothing about hardware.", result
    root = result.endorsements["root"]
    return f"Verified: a security processor under {root} signed this report. Freshness was not.", result


def _appraise(settings: Settings, how: Circumstances, seen: _Seen, by: Policy) -> AttestationResult:
    # The evidence is held against itself: that its own nonce fits says nothing about freshness.
    nonce = seen.report.report_data if seen.evidence.manifest is None else seen.evidence.nonce

    async def run() -> AttestationResult:
        async with local_verifier(settings, how) as verifier:
            return await verifier.verify(seen.evidence, nonce, by, offered=seen.offered)

    try:
        return asyncio.run(run())
    except WireError as error:
        raise InFileError(seen.name, error) from error


def _refuse(seen: _Seen, result: AttestationResult) -> None:
    wrong = [
        finding
        for finding in result.findings
        if finding.check in GENUINE and finding.outcome is not Outcome.PASSED
    ]
    terminal.note(
        terminal.joined(
            ("error: ", terminal.BAD), f"{seen.name}: this evidence is not genuine, so no policy is written"
        )
    )
    for finding in wrong:
        terminal.note(f"  {finding.check.value}: {finding.why}")
    raise typer.Exit(ExitCode.NOT_AFFIRMING)


def _note_what_fails(settings: Settings, how: Circumstances, seen: _Seen, drafted: Policy) -> None:
    result = _appraise(settings, how, seen, drafted)
    failed = {finding.check for finding in result.findings if finding.outcome is Outcome.FAILED}
    for finding in result.findings:
        if finding.check in QUOTED and CheckId.VTPM_AK_BINDING in failed:
            continue  # it follows: nobody could challenge the key
        # Nobody was asked for a CRL, and that evidence is SIMULATED has been said.
        known = finding.outcome is Outcome.WARNED and finding.check in {CheckId.REVOCATION, CheckId.SIMULATED}
        if finding.outcome in {Outcome.FAILED, Outcome.WARNED} and not known:
            terminal.note(
                terminal.joined(
                    ("note: ", terminal.CAUTION),
                    f"under this policy the evidence itself does not pass {finding.check}: {finding.why}",
                )
            )


def _observation(seen: _Seen, standing: str, line: ProductLine | None, now: datetime) -> Observation:
    report, manifest = seen.report, seen.evidence.manifest
    leaf = signing_leaf(report, seen.offered)
    vek = read_vek(leaf) if leaf is not None else None
    told = report.cpuid.product_line if report.cpuid else None
    ek = endorsement_key(manifest) if manifest is not None else None
    return Observation(
        source=seen.name,
        standing=standing,
        at=now,
        report=report,
        line=told or (vek.line if vek is not None else None) or line,
        vek=vek,
        vtpm=vtpm_manifest(parse_manifest(manifest)) if manifest is not None else None,
        ek=ek,
        ek_sha256=hashlib.sha256(ek.encode()).hexdigest() if ek is not None else None,
        has_manifest=manifest is not None,
    )


def _quoted_pcrs(seen: _Seen, result: AttestationResult | None) -> PcrValues | None:
    """The registers, if a key signed them; whose key that is the policy will ask."""
    if seen.evidence.quote is None or result is None:
        return None
    passed = {finding.check for finding in result.findings if finding.outcome is Outcome.PASSED}
    holds = {CheckId.QUOTE_SIGNATURE, CheckId.QUOTE_DIGEST} <= passed
    return seen.evidence.quote.pcrs if holds else None
