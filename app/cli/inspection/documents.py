"""JSON documents of this project: evidence, verdicts, problems."""

from dataclasses import replace
from typing import Any

from app.api import strict_json
from app.cli.evidence_file import evidence_from, quote_from
from app.cli.failure import URN, InputError
from app.cli.inspection.manifest import manifest_sheet
from app.cli.inspection.quote import quote_sheet
from app.cli.inspection.report import report_sheet
from app.cli.inspection.sheet import Row, Section, Sheet
from app.cli.inspection.table import table_endorsements, table_sheet
from app.errors import AttestError, EvidenceError
from app.trust.vek import read_vek
from app.wire.certificate_table import CertificateTable
from app.wire.evidence import Evidence
from app.wire.manifest import parse_manifest
from app.wire.product import ProductLine
from app.wire.report import AttestationReport


def document_sheet(raw: bytes) -> Sheet:
    """Say which document a JSON text is, and lay it open.

    Raises:
        InputError: no JSON, or a document of another kind.
        EvidenceError, WireError: evidence that is not well formed.
    """
    try:
        value = strict_json.loads(raw)
    except ValueError as error:
        raise InputError("JSON", str(error)) from error
    if isinstance(value, dict):
        if {"verdict", "findings"} <= value.keys():
            return _verdict_sheet(value, len(raw))
        if str(value.get("type", "")).startswith(URN):
            return _problem_sheet(value, len(raw))
        if {"attest", "signature"} <= value.keys():
            return _quote_sheet(value, len(raw))
        if "report" in value or "profile" in value:
            return _evidence_sheet(evidence_from(value), len(raw))
        if "reference_values" in value or "root_of_trust" in value:
            raise InputError("JSON", "this is an appraisal policy", "Use `svsm-attest policy check`.")
        names = ", ".join(sorted(map(str, value))[:12])
        raise InputError(
            "JSON", f"neither evidence (no `report`) nor a verdict (no `findings`); members: {names}"
        )
    raise InputError("JSON", "an array is neither evidence nor a verdict")


def _evidence_sheet(evidence: Evidence, size: int) -> Sheet:
    report = _inside("/report", lambda: AttestationReport.parse(evidence.report))
    parts = []
    line = None
    if evidence.certificates:
        raw_table = evidence.certificates
        table = _inside("/certificates", lambda: CertificateTable.parse(raw_table))
        line = _line(table)
        parts.append(("certificates", table_sheet(table, len(raw_table))))
    parts.insert(0, ("report", report_sheet(report, line)))
    if evidence.manifest is not None:
        raw = evidence.manifest
        manifest = _inside("/manifest", lambda: parse_manifest(raw))
        parts.insert(1, ("manifest", manifest_sheet(manifest, len(raw))))
    if evidence.quote is not None:
        quote = evidence.quote
        parts.append(("quote", _inside("/quote", lambda: quote_sheet(quote))))
    facts = {
        "nonce": evidence.nonce and evidence.nonce.hex(),
        "service": evidence.service and evidence.service.value,
        "manifest version": evidence.manifest_version,
        "backend": evidence.backend,
        "boot id": evidence.boot_id,
        "collected at": evidence.collected_at and f"{evidence.collected_at:%Y-%m-%dT%H:%M:%SZ}",
    }
    rows = tuple(Row(name=name, value=str(value)) for name, value in facts.items() if value is not None)
    kind = "a bare SNP report" if evidence.manifest is None else "SVSM evidence"
    return Sheet(
        kind="evidence",
        title=f"Evidence document: {kind}",
        size=size,
        sections=(Section("Said beside it, and trusted by no verifier", rows),) if rows else (),
        parts=tuple(parts),
        document={"evidence": {name.replace(" ", "_"): value for name, value in facts.items()}},
    )


def _quote_sheet(value: dict[str, Any], size: int) -> Sheet:
    sheet = quote_sheet(quote_from(value))
    facts = {name: value[name] for name in ("qualifying_data", "channel_binding", "backend") if name in value}
    rows = tuple(Row(name=name.replace("_", " "), value=str(fact)) for name, fact in facts.items())
    beside = (Section("Said beside it, and trusted by no verifier", rows),) if rows else ()
    return replace(
        sheet, title=f"Quote document: {sheet.title}", size=size, sections=(*beside, *sheet.sections)
    )


def _inside(pointer: str, parse: Any) -> Any:
    try:
        return parse()
    except AttestError as error:
        raise EvidenceError(pointer, str(error)) from error


def _line(table: CertificateTable) -> ProductLine | None:
    leaves = table_endorsements(table).leaves
    return read_vek(leaves[0]).line if leaves else None


def _verdict_sheet(value: dict[str, Any], size: int) -> Sheet:
    return Sheet(kind="verdict", title="Verdict of an appraisal", size=size, document={"verdict": value})


def _problem_sheet(value: dict[str, Any], size: int) -> Sheet:
    rows = tuple(Row(name=str(name), value=str(member)) for name, member in value.items())
    return Sheet(
        kind="problem",
        title="Problem document: why a request was refused",
        size=size,
        sections=(Section("Problem", rows),),
        document={"problem": value},
    )
