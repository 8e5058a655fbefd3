"""The application: its commands, and the one place where errors become exit codes."""

import contextlib
import os
import sys
import traceback
from typing import Annotated, Any, ClassVar

import typer

from app import __version__
from app.cli.failure import ExitCode, Failure, failure_of
from app.cli.lazy_group import LazyCommand, LazyGroup
from app.errors import AttestError

PROGRAM = "svsm-attest"

_HELP = (
    "Evidence about the vTPM of an AMD SEV-SNP VM that runs under an SVSM, and its appraisal.\n\n"
    "Exit codes: 0 affirming, or done; 1 appraised, and something else; 2 usage, or input that is not what"
    " it claims to be; 3 endorsements or CRL unavailable; 4 backend unavailable or refused."
)

# Typer does not export the base of its usage errors; its BadParameter is directly below it.
_UsageError: Any = typer.BadParameter.__base__


class _Commands(LazyGroup):
    lazy: ClassVar = {
        "serve": LazyCommand("app.cli.serve:serve", "Run the service: attester, verifier or both."),
        "demo": LazyCommand(
            "app.cli.demo:demo", "Challenge, attest and verify over HTTP, with a simulated VM."
        ),
        "attest": LazyCommand(
            "app.cli.attest:attest", "Get evidence from this VM, or from an attester elsewhere."
        ),
        "verify": LazyCommand("app.cli.verify:verify", "Appraise evidence, or a bare SNP report."),
        "inspect": LazyCommand("app.cli.inspect:inspect", "Say what a file is, and decode it."),
        "measure": LazyCommand("app.cli.measure:measure", "Compute the launch digest of IGVM files."),
        "certs": LazyCommand("app.cli.certs:certs", "Fetch, import and list endorsements."),
        "selftest": LazyCommand(
            "app.cli.selftest:selftest", "Check a VM from inside: everything attestation needs."
        ),
        "policy": LazyCommand("app.cli.policy:policy", "Check an appraisal policy, or write a first one."),
        "ek-ca": LazyCommand("app.cli.ek_ca:ek_ca", "Set up the authority that certifies the EKs of vTPMs."),
        "ek-certificate": LazyCommand(
            "app.cli.ek_certificate:ek_certificate", "Have the EK of this VM's vTPM certified."
        ),
        "health": LazyCommand("app.cli.health:health", "Ask the local service whether it is well."),
    }


application = typer.Typer(
    cls=_Commands,
    name=PROGRAM,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


@application.callback(help=_HELP)
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def run(arguments: list[str]) -> int:
    """Run one command line; never raises, and never shows a traceback unasked.

    Returns:
        The exit status, as in ExitCode.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a replacement that tests put there
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    status = _run(arguments)
    try:
        sys.stdout.flush()
    except OSError as error:
        # What is still buffered cannot be written either, and would complain when the program ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        quiet = _quiet_end(error)
        return quiet if quiet is not None else _report(_failure(error), [])
    return status


def _run(arguments: list[str]) -> int:
    try:
        status = application(arguments, prog_name=PROGRAM, standalone_mode=False)
    except BaseException as error:  # noqa: BLE001 (whatever it is, it ends here)
        quiet = _quiet_end(error)
        return quiet if quiet is not None else _report(_failure(error), arguments)
    return status if isinstance(status, int) else ExitCode.DONE


def _quiet_end(error: BaseException) -> int | None:
    """The status of an end that needs no words; None where it needs some."""
    match error:
        case SystemExit():  # completion is done, or Typer met a closed pipe
            if isinstance(error.__context__, BrokenPipeError):
                return ExitCode.PIPE_CLOSED
            return error.code if isinstance(error.code, int) else ExitCode.INTERNAL
        case KeyboardInterrupt() | typer.Abort():
            return ExitCode.INTERRUPTED
        case BrokenPipeError():
            return ExitCode.PIPE_CLOSED
    # Making this one has printed the help.
    return ExitCode.UNUSABLE if type(error).__name__ == "NoArgsIsHelpError" else None


def _failure(error: Any) -> Failure:
    match error:
        case AttestError():
            return failure_of(error)
        case _UsageError():
            path = error.ctx.command_path if error.ctx else PROGRAM
            return Failure(
                exit_code=ExitCode.UNUSABLE,
                type="usage",
                detail=error.format_message(),
                remedy=f"See `{path} --help`.",
            )
        case OSError():  # files that are read have errors of their own: this is about what is written
            return Failure(
                exit_code=ExitCode.INTERNAL,
                type="system",
                detail=f"the system refused: {error.strerror or error}",
                remedy="Look whether the disk is full, and where standard output goes.",
            )
    if os.environ.get("SVSM_ATTEST_LOG_LEVEL", "").lower() == "debug":
        traceback.print_exception(error)
    return Failure(
        exit_code=ExitCode.INTERNAL,
        type="internal",
        detail=f"unexpected {type(error).__name__}: {error}",
        remedy="Please report it. SVSM_ATTEST_LOG_LEVEL=debug shows where it happened.",
    )


def _report(failure: Failure, arguments: list[str]) -> int:
    from app.cli import terminal  # noqa: PLC0415 (costs more than all of the above)

    if "--json" in arguments:
        with contextlib.suppress(OSError):  # it may be the very reason for this
            terminal.print_json(failure.problem())
    detail = failure.detail.replace("\n", "\n       ")  # several settings may be wrong at once
    with contextlib.suppress(OSError):
        terminal.note(terminal.joined(("error: ", terminal.BAD), detail))
        if failure.remedy:
            terminal.note(terminal.joined(("  do: ", terminal.STRONG), failure.remedy))
    return failure.exit_code
