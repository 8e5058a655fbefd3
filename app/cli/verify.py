"""`svsm-attest verify`."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from app.api.evidence_document import ChannelBinding, EvidenceDocument
from app.appraisal.quote import Quote, QuoteExpectation
from app.assembly import make_roots, make_simulator, with_root_files
from app.cli import channel_option, pcr_option, terminal
from app.cli.certificate_table import merged_table
from app.cli.evidence_file import read_evidence
from app.cli.failure import ExitCode, InFileError, about
from app.cli.files import STDIN, display_name, read_64_bytes, read_file
from app.cli.key_activation import KeyActivation
from app.cli.roles import (
    Circumstances,
    choose_policy,
    command_settings,
    is_policy_file,
    local_verifier,
    utc_now,
)
from app.cli.service import ServiceClient
from app.cli.verdict_view import render_verdict
from app.errors import EvidenceError, WireError
from app.trust.certificates import MAX_BUNDLE_SIZE, MAX_CRL_SIZE, load_crl
from app.trust.endorsements import OfferedEndorsements
from app.verifier.key_challenges import KeyChallenges
from app.verifier.policies import read_policy
from app.verifier.single_use import MemorySingleUseStore
from app.wire import b64
from app.wire import manifest as manifest_format
from app.wire.evidence import Evidence
from app.wire.manifest import parse_manifest
from app.wire.report import AttestationReport
from app.wire.session import NO_CHANNEL

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)")
_MAX_REPORT = 1 << 16  # far more than a report has, so that the error can say how many there are
_LIFETIME_S = 600.0  # of a challenge that never leaves this process
_INSPECT = "`svsm-attest inspect` says what the file is, and how to unwrap a report."


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is to be appraised, from where, and the nonce to hold it against."""

    evidence: Evidence
    source: str
    nonce: bytes | None


def verify(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="EVIDENCE.json",
            help="An evidence document (- for stdin). More files count as --certs, so *.der works there.",
        ),
    ] = None,
    *,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A raw report of 1184 bytes, instead of a document.")
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The raw manifest that --report vouches for.")
    ] = None,
    nonce: Annotated[
        str | None,
        typer.Option(metavar="HEX|FILE", help="The 64 bytes that you had the attester bind the report to."),
    ] = None,
    report_data: Annotated[
        str | None,
        typer.Option(metavar="HEX|FILE", help="The REPORT_DATA that a report without a manifest must have."),
    ] = None,
    certs: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR|FILE", help="PEM or DER files, folders of them, or a raw certificate table."
        ),
    ] = None,
    crl: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A revocation list, PEM or DER.")
    ] = None,
    trust_root: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Trust one more ARK for this run; the result shows it."),
    ] = None,
    policy: Annotated[
        str | None, typer.Option(metavar="FILE|NAME", help="The appraisal policy, by file or by name.")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="RFC3339", help="Appraise as of this time, such as 2026-11-23T07:00:00Z."),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never ask the KDS.")] = False,
    store: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The endorsement store, in place of the usual one.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Have the verifier at this URL appraise it.")
    ] = None,
    pcrs: Annotated[
        str | None,
        typer.Option(
            metavar=pcr_option.METAVAR, help="The PCRs that you had quoted; the policy's if left out."
        ),
    ] = None,
    channel_binding: Annotated[
        str | None,
        typer.Option(
            metavar=channel_option.METAVAR,
            help="The channel that the session must be bound to, such as tls-server-end-point:cert.pem.",
        ),
    ] = None,
    attester: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Have this attester show that its quote is by the EK's TPM."),
    ] = None,
    allow_simulator: Annotated[
        bool, typer.Option("--allow-simulator", help="Trust this machine's simulator. For development only.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as one JSON document.")] = False,
) -> None:
    """Appraise evidence, or a bare SNP report, and say what every check found.

    Certificates come from the evidence, from --certs, from the store, or from AMD's KDS; it does
    not matter from where, because they must lead to AMD's roots, which are pinned in the program.
    """
    evidence, more = _split(files or [], is_raw=report is not None, takes_more=bool(certs or crl))
    certs = [*(certs or ()), *more]
    _demand_one_stdin([evidence, report, manifest], [nonce, report_data], [*certs, *(crl or ())])
    settings = command_settings()
    subject = _read_subject(evidence, report, manifest, nonce, report_data)
    expectation = QuoteExpectation(
        pcrs=pcr_option.read_pcrs(pcrs) if pcrs is not None else None,
        channel=channel_option.read_channel(channel_binding) if channel_binding is not None else NO_CHANNEL,
    )
    offered = _read_offered(certs, crl or ())
    if url is not None:
        local = {"--at": at, "--offline": offline, "--trust-root": trust_root, "--store": store}
        _demand_none(local | {"--allow-simulator": allow_simulator}, "goes with --url: that verifier decides")
        document = _verify_elsewhere(url, subject, offered, policy, expectation, attester)
    else:
        moment = _parse_time(at) if at is not None else None
        trust_simulator = allow_simulator or (settings.allow_simulator and settings.simulates)
        how = Circumstances(
            roots=with_root_files(make_roots(settings), trust_root or ()),
            store=store or settings.store,
            offline=offline or settings.offline,
            simulator=make_simulator(settings) if trust_simulator else None,
            clock=(lambda: moment) if moment else utc_now,
        )
        chosen = choose_policy(settings, policy, simulator=trust_simulator)
        challenges = KeyChallenges(MemorySingleUseStore(1), lifetime_s=_LIFETIME_S, clock=utc_now)

        async def appraise() -> dict[str, Any]:
            answer = None
            if attester is not None:
                with ServiceClient(attester) as client:
                    activation = KeyActivation(client, subject.evidence, subject.source)
                    answer = await activation.by_ourselves(challenges)
            async with local_verifier(settings, how, challenges) as verifier:
                result = await verifier.verify(
                    subject.evidence,
                    subject.nonce,
                    chosen,
                    offered=offered,
                    expectation=expectation,
                    answer=answer,
                )
            return result.document()

        try:
            document = asyncio.run(appraise())
        except (WireError, EvidenceError) as error:
            raise InFileError(subject.source, error, _INSPECT) from error
    if subject.nonce is None:
        _note_missing_nonce(subject.evidence)
    if subject.evidence.quote is not None and attester is None:
        _note_missing_attester()
    if as_json:
        terminal.print_json(document)
    else:
        terminal.show(*render_verdict(document))
    raise typer.Exit(exit_code_of(document))


def _split(files: list[Path], *, is_raw: bool, takes_more: bool) -> tuple[Path | None, list[Path]]:
    """The evidence document, and files that a shell put behind --certs or --crl by expanding a name."""
    if is_raw and takes_more:
        return None, files
    named = [file for file in files if file.suffix == ".json" or str(file) == STDIN]
    evidence = named[0] if len(named) == 1 else (files[0] if files else None)
    more = [file for file in files if file is not evidence]
    if more and not takes_more:
        raise typer.BadParameter(f"one evidence document, please; {more[0]} is another file")
    return evidence, more


def exit_code_of(document: dict[str, Any]) -> ExitCode:
    """0 for an affirming verdict, 1 for every other."""
    return ExitCode.DONE if document.get("verdict") == "affirming" else ExitCode.NOT_AFFIRMING


def _read_subject(
    evidence: Path | None,
    report: Path | None,
    manifest: Path | None,
    nonce: str | None,
    report_data: str | None,
) -> _Subject:
    if (evidence is None) == (report is None):
        raise typer.BadParameter("give either EVIDENCE.json or --report FILE")
    if manifest is not None and report is None:
        raise typer.BadParameter("--manifest goes with --report; an evidence document holds its manifest")
    if evidence is not None:
        found, source = read_evidence(evidence), display_name(evidence)
        _demand_readable(found, source, source)
    else:
        assert report is not None  # noqa: S101 (one of the two is given)
        found = Evidence(
            report=read_file(report, _MAX_REPORT),
            manifest=read_file(manifest, manifest_format.MAX_SIZE) if manifest is not None else None,
        )
        source = display_name(report)
        _demand_readable(found, source, display_name(manifest) if manifest is not None else source)
    return _Subject(found, source, _read_nonce(found, nonce, report_data))


def _demand_readable(evidence: Evidence, report_source: str, manifest_source: str) -> None:
    """Say which file is to blame before anything is looked up."""
    with about(report_source, _INSPECT):
        AttestationReport.parse(evidence.report)
        if evidence.quote is not None:
            Quote.parse(evidence.quote)
    if evidence.manifest is not None:
        with about(manifest_source, _INSPECT):
            parse_manifest(evidence.manifest)


def _read_nonce(evidence: Evidence, nonce: str | None, report_data: str | None) -> bytes | None:
    if nonce is not None and report_data is not None:
        raise typer.BadParameter("--nonce and --report-data exclude each other")
    if evidence.manifest is not None and report_data is not None:
        raise typer.BadParameter(
            "--report-data is for a report without a manifest; give the --nonce, from which and from the"
            " manifest REPORT_DATA is computed"
        )
    if report_data is not None:
        return read_64_bytes(report_data, "--report-data")
    return read_64_bytes(nonce, "--nonce") if nonce is not None else None


def _note_missing_nonce(evidence: Evidence) -> None:
    option = "--report-data" if evidence.manifest is None else "--nonce"
    inside = " The nonce inside the evidence is its maker's word." if evidence.nonce else ""
    terminal.note(
        terminal.joined(
            ("note: ", terminal.CAUTION), f"without {option} nothing tells whether this is fresh.{inside}"
        )
    )


def _note_missing_attester() -> None:
    what = "without --attester only the SVSM itself could show that the quote is by the EK's TPM."
    terminal.note(terminal.joined(("note: ", terminal.CAUTION), what))


def _read_offered(certs: Sequence[Path], crls: Sequence[Path]) -> OfferedEndorsements:
    offered = OfferedEndorsements()
    for path in certs:
        if str(path) == STDIN:
            offered += OfferedEndorsements.from_bytes(read_file(path, MAX_BUNDLE_SIZE), display_name(path))
        else:
            offered += OfferedEndorsements.from_paths([path])
    for path in crls:
        offered += OfferedEndorsements(crls=(load_crl(read_file(path, MAX_CRL_SIZE), display_name(path)),))
    return offered


def _verify_elsewhere(
    url: str,
    subject: _Subject,
    offered: OfferedEndorsements,
    policy: str | None,
    expectation: QuoteExpectation,
    attester: str | None,
) -> dict[str, Any]:
    if subject.nonce is None:
        raise typer.BadParameter("a verifier wants the --nonce (of a bare report: --report-data)")
    evidence = merged_table(subject.evidence, offered)
    request: dict[str, Any] = {
        "nonce": b64.encode(subject.nonce),
        "evidence": EvidenceDocument.from_evidence(evidence).model_dump(mode="json"),
    }
    if policy is not None:
        request["policy"] = (
            read_policy(Path(policy)).model_dump(mode="json", exclude_unset=True)
            if is_policy_file(policy)
            else policy
        )
    if expectation.pcrs is not None:
        request["pcrs"] = expectation.pcrs.names()
    if expectation.channel != NO_CHANNEL:
        channel = expectation.channel
        request["channel_binding"] = {
            "type": ChannelBinding.of(channel.type).value,
            "value": b64.encode(channel.value),
        }
    with ServiceClient(url) as verifier:
        if attester is not None:
            with ServiceClient(attester) as client:
                activation = KeyActivation(client, subject.evidence, subject.source)
                request["activation"] = activation.by_verifier(verifier)
        return verifier.verify(request)


def _parse_time(text: str) -> datetime:
    if not _RFC3339.fullmatch(text):
        raise typer.BadParameter(
            f"--at {text!r} is not RFC 3339 with a time zone, such as 2026-11-23T07:00:00Z"
        )
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"--at {text!r}: {error}") from error


def _demand_none(options: Mapping[str, object], why: str) -> None:
    given = [name for name, value in options.items() if value]
    if given:
        raise typer.BadParameter(f"no {' or '.join(given)} {why}")


def _demand_one_stdin(*groups: Sequence[object]) -> None:
    if sum(str(value) == STDIN for group in groups for value in group) > 1:
        raise typer.BadParameter("standard input (-) can be read once only")
