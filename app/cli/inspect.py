"""`svsm-attest inspect`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from app.cli import terminal
from app.cli.failure import about
from app.cli.files import STDIN, display_name, read_file
from app.cli.inspection.identify import MAX_SIZE, identify
from app.cli.inspection.view import render
from app.cli.verdict_view import render_verdict
from app.wire.igvm.file import MAX_SIZE as MAX_IGVM_SIZE
from app.wire.igvm.fixed_header import MAGIC


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file, or - for standard input.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Say what a file is, by its content, and decode it.

    Reports (bare or wrapped), certificates, PEM bundles, CRLs, certificate tables, manifests of an
    SVSM, TPM public keys, quotes and signatures, firmware event logs, IGVM files, evidence and
    verdicts. Nothing is judged: that is what `verify` does.
    """
    raw = read_file(file, MAX_SIZE, larger=(MAGIC, MAX_IGVM_SIZE))
    name = display_name(file)
    with about(name):
        sheet = identify(raw)
    if as_json:
        terminal.print_json({"file": name, **sheet.to_json()})
    else:
        terminal.show(*render(sheet, name if str(file) == STDIN else file.name))
        if sheet.kind == "verdict":
            terminal.show(Text(), *render_verdict(sheet.document["verdict"]))
