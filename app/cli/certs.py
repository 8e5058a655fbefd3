"""`svsm-attest certs`: the endorsement store."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from app.assembly import make_roots, with_root_files
from app.cli import terminal
from app.cli.endorsement_fetch import Chip, FetchedItem, fetch_all, parse_tcb
from app.cli.failure import ExitCode, InputError, about
from app.cli.files import display_name, read_file
from app.cli.roles import command_settings, utc_now
from app.cli.terminal import BAD, CAUTION, FAINT, GOOD, columns, joined, styled
from app.errors import CollateralUnavailableError
from app.trust.intake import import_endorsements
from app.trust.offered import OfferedEndorsements
from app.trust.store import EndorsementStore, StoredEntry
from app.wire.product import ProductLine
from app.wire.report import AttestationReport
from app.wire.tcb import TcbVersion

_MAX_REPORT = 1 << 16

certs = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Fetch, import and list endorsements in the store."
)

StoreOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="The store, in place of the usual one.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@certs.command("fetch")
def fetch(
    *,
    line: Annotated[
        list[ProductLine] | None, typer.Option(help="A product line; may be repeated. Otherwise all.")
    ] = None,
    hwid: Annotated[
        str | None, typer.Option(metavar="HEX", help="The chip: 64 bytes, on Turin 8; with --tcb.")
    ] = None,
    tcb: Annotated[
        str | None,
        typer.Option(
            metavar="HEX|NAME=N,...",
            help="REPORTED_TCB as 16 digits, or bootloader=4,tee=0,snp=24,microcode=219 (Turin: fmc=0 too).",
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A raw report, which tells line, chip and TCB.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch chains and CRLs from AMD's KDS, and with a chip and its TCB the VCEK certificate.

    What does not lead to a root in force is not stored.
    """
    settings = command_settings()
    if settings.offline:
        raise CollateralUnavailableError("endorsements", "the settings say offline")
    lines = tuple(dict.fromkeys(line or ()))
    chip = _read_chip(lines, hwid, tcb, report)
    if chip is not None:
        lines = (chip.line,)
    target = EndorsementStore(store or settings.store)
    items = asyncio.run(fetch_all(settings, target, make_roots(settings), lines or tuple(ProductLine), chip))
    if as_json:
        terminal.print_json({"store": str(target.path), "fetched": [item.to_json() for item in items]})
    else:
        terminal.show(columns([_fetched_row(item) for item in items]))
        terminal.note(f"store: {target.path}")
    raise typer.Exit(ExitCode.DONE if all(item.problem is None for item in items) else ExitCode.ENDORSEMENTS)


@certs.command("import")
def import_(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="FILE|DIR...", help="PEM or DER files, folders of them, certificate tables."),
    ],
    *,
    store: StoreOption = None,
    trust_root: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Accept what leads to this ARK, too.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Put certificates and CRLs into the store: all of them, or none if one does not verify."""
    settings = command_settings()
    offered = OfferedEndorsements()
    for path in paths:
        found = OfferedEndorsements.from_paths([path])
        if found == OfferedEndorsements():
            raise InputError(
                str(path),
                "no certificate or CRL found",
                "Of a folder, files that end in .pem, .der, .crt, .cer, .cert or .crl are read.",
            )
        offered += found
    target = EndorsementStore(store or settings.store)
    entries = import_endorsements(
        target, offered, with_root_files(make_roots(settings), trust_root or ()), utc_now()
    )
    _show_entries(target, dict.fromkeys(entries), "imported", as_json=as_json)


@certs.command("list")
def list_(*, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List the store: what there is, and how long it is valid."""
    target = EndorsementStore(store or command_settings().store)
    _show_entries(target, target.entries(), "entries", as_json=as_json)


def _read_chip(
    lines: tuple[ProductLine, ...], hwid: str | None, tcb: str | None, report: Path | None
) -> Chip | None:
    if report is not None:
        if hwid is not None or tcb is not None:
            raise typer.BadParameter("--report tells chip and TCB: leave --hwid and --tcb out")
        return _chip_of_report(lines, report)
    if (hwid is None) != (tcb is None):
        raise typer.BadParameter("--hwid and --tcb go together")
    if hwid is None or tcb is None:
        return None
    if len(lines) != 1:
        raise typer.BadParameter("a chip is of exactly one --line")
    return Chip(lines[0], _parse_hwid(hwid, lines[0]), parse_tcb(tcb, lines[0]))


def _chip_of_report(lines: tuple[ProductLine, ...], path: Path) -> Chip:
    name = display_name(path)
    with about(name, "`svsm-attest inspect` says what the file is."):
        report = AttestationReport.parse(read_file(path, _MAX_REPORT))
        told = report.cpuid.product_line if report.cpuid else None
        if told is None and len(lines) != 1:
            raise InputError(name, "the report does not tell its product line", "Name it with --line.")
        line = told or lines[0]
        if lines and lines != (line,):
            raise InputError(name, f"the report is of a {line} processor", "Leave --line out.")
        if not any(report.chip_id):
            raise InputError(
                name,
                "CHIP_ID is zero: masked by the host, or signed by a VLEK",
                "Without a chip KDS has no certificate to give; it must come with the evidence.",
            )
        tcb = TcbVersion.parse(report.reported_tcb, line.tcb_layout)
    return Chip(line, report.chip_id[: line.hwid_size], tcb)


def _parse_hwid(text: str, line: ProductLine) -> bytes:
    try:
        hwid = bytes.fromhex(text)
    except ValueError as error:
        raise typer.BadParameter("--hwid is to be hexadecimal digits") from error
    if len(hwid) != line.hwid_size and not (len(hwid) > line.hwid_size and not any(hwid[line.hwid_size :])):
        raise typer.BadParameter(f"--hwid has {len(hwid)} bytes, a {line} chip has {line.hwid_size}")
    return hwid[: line.hwid_size]


def _fetched_row(item: FetchedItem) -> tuple[Text, Text, Text]:
    if item.problem is not None:
        return styled("failed", BAD), styled(item.what), styled(item.problem)
    return styled("fetched", GOOD), styled(item.what), styled(", ".join(item.paths), FAINT)


def _show_entries(
    store: EndorsementStore, entries: Iterable[StoredEntry], verb: str, *, as_json: bool
) -> None:
    found = list(entries)
    if as_json:
        terminal.print_json({"store": str(store.path), verb: [_entry_document(entry) for entry in found]})
        return
    rows = [
        (
            styled(*_state(entry)),
            styled(entry.what),
            styled(_day(entry.not_before)),
            styled(_day(entry.not_after)),
            joined((entry.path, FAINT), (f"  {entry.problem}" if entry.problem else "", BAD)),
        )
        for entry in found
    ]
    if rows:
        terminal.show(columns(rows, header=("State", "What", "From", "Until", "File")))
    terminal.note(f"store: {store.path}, {len(found)} {verb}")


def _entry_document(entry: StoredEntry) -> dict[str, Any]:
    return {
        "path": entry.path,
        "what": entry.what,
        "state": _state(entry)[0],
        "not_before": _time(entry.not_before),
        "not_after": _time(entry.not_after),
        "problem": entry.problem,
    }


def _state(entry: StoredEntry) -> tuple[str, str]:
    now = datetime.now(UTC)
    if entry.problem is not None:
        return "damaged", BAD
    if entry.not_after is not None and entry.not_after < now:
        return "over", CAUTION
    if entry.not_before is not None and entry.not_before > now:
        return "not yet", CAUTION
    return "valid", GOOD


def _day(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d}" if moment else ""


def _time(moment: datetime | None) -> str | None:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}" if moment else None
