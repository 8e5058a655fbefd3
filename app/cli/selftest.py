"""`svsm-attest selftest`: a VM, checked from inside."""

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from app.cli import terminal
from app.cli.examination import Examination, Line, Status
from app.cli.failure import ExitCode
from app.cli.roles import command_settings
from app.cli.serve import Backend
from app.cli.server import export_settings
from app.cli.terminal import BAD, CAUTION, FAINT, GOOD, STRONG, columns, joined, styled

_STYLES = {Status.OK: GOOD, Status.WARN: CAUTION, Status.FAIL: BAD, Status.SKIP: FAINT}


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
    signature; and, where there is a TPM, its EK against the manifest's, an attestation key with both
    ways to tie it to the EK, a quote, and the event log. Exits with 0 if nothing failed, 4 if the
    backend gave no evidence, 1 otherwise.
    """
    export_settings({"backend": backend})
    settings = command_settings()
    if "backend" not in settings.model_fields_set:
        # Whoever runs this wants to know about this VM; the default of a service is the simulator.
        settings = settings.model_copy(update={"backend": Backend.CONFIGFS.value})
    examination = Examination(settings, offline=offline or settings.offline, store=store or settings.store)
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
