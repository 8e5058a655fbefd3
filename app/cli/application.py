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
        "certs": LazyCommand("app.cli.certs:certs", "Fetch, import and list endorsements."),
        "selftest": LazyCommand(
            "app.cli.selftest:selftest", "Check a VM from inside: everything attestation needs."
        ),
        "policy": LazyCommand("app.cli.policy:policy", "Check an appraisal policy, or write a first one."),
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
    """Run one command line; never raises, and never shows a traceback.

    Returns:
        The exit status, as in ExitCode.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a replacement that tests put there
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        status = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered has no reader either, and would complain when the program ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.PIPE_CLOSED
    return status


def _run(arguments: list[str]) -> int:
    try:
        status = application(arguments, prog_name=PROGRAM, standalone_mode=False)
    except AttestError as error:
        return _report(failure_of(error), arguments)
    except _UsageError as error:
        return _report_usage(error, arguments)
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 (the last resort)
        if os.environ.get("SVSM_ATTEST_LOG_LEVEL", "").lower() == "debug":
            traceback.print_exc()
        return _report(_internal(error), arguments)
    return status if isinstance(status, int) else ExitCode.DONE


def _report_usage(error: Any, arguments: list[str]) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else PROGRAM
    if type(error).__name__ == "NoArgsIsHelpError":  # making it has printed the help
        return ExitCode.UNUSABLE
    return _report(
        Failure(
            exit_code=ExitCode.UNUSABLE,
            type="usage",
            title="The command line cannot be understood",
            detail=error.format_message(),
            remedy=f"See `{path} --help`.",
        ),
        arguments,
    )


def _internal(error: Exception) -> Failure:
    return Failure(
        exit_code=ExitCode.INTERNAL,
        type="internal",
        title="A fault of this program",
        detail=f"unexpected {type(error).__name__}: {error}",
        remedy="Please report it. SVSM_ATTEST_LOG_LEVEL=debug shows where it happened.",
    )


def _report(failure: Failure, arguments: list[str]) -> int:
    from app.cli import terminal  # noqa: PLC0415 (costs more than all of the above)

    if "--json" in arguments:
        terminal.print_json(failure.problem())
    terminal.note(terminal.joined(("error: ", terminal.BAD), failure.detail))
    if failure.remedy:
        terminal.note(terminal.joined(("  do: ", terminal.STRONG), failure.remedy))
    return failure.exit_code
