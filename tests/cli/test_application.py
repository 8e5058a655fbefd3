"""The frame around every command: help, exit codes, and how errors reach their reader."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app import __version__
from app.cli import application
from app.cli.lazy_group import LazyCommand
from tests.cli.command_line import COMMAND, Cli, Program

COMMANDS = (
    "serve",
    "demo",
    "attest",
    "verify",
    "inspect",
    "measure",
    "certs",
    "selftest",
    "policy",
    "ek-ca",
    "ek-certificate",
    "health",
)


def test_help_lists_every_command_with_what_it_does(cli: Cli) -> None:
    ended = cli("--help")
    assert ended.status == 0
    for name in COMMANDS:
        assert f" {name} " in ended.out
    assert "endorsements or CRL unavailable" in ended.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_of_its_own(name: str, cli: Cli) -> None:
    ended = cli(name, "--help")
    assert ended.status == 0
    assert f"svsm-attest {name}" in ended.out


def test_help_needs_none_of_the_heavy_libraries() -> None:
    # What a user waits for before anything is shown.
    heavy = ("pydantic", "cryptography", "fastapi", "uvicorn", "httpx", "structlog", "yaml")
    script = (
        "import sys; from app.cli.application import run; run(['--help']);"
        f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_the_version(cli: Cli) -> None:
    ended = cli("--version")
    assert (ended.status, ended.out) == (0, f"svsm-attest {__version__}\n")


def test_no_command_shows_the_help_and_is_a_usage_error(cli: Cli) -> None:
    ended = cli()
    assert ended.status == 2
    assert "Commands" in ended.out
    assert cli("certs").status == 2


def test_a_mistyped_command_gets_a_suggestion(cli: Cli) -> None:
    ended = cli("verfy")
    assert ended.status == 2
    assert "Did you mean 'verify'?" in ended.err
    assert "--help" in ended.err
    assert ended.out == ""


def test_a_usage_error_with_json_is_one_problem_document(cli: Cli) -> None:
    ended = cli("verify", "--no-such-option", "--json")
    assert ended.status == 2
    problem = ended.json
    assert problem["type"] == "urn:svsm-attest:problem:usage"
    assert "--no-such-option" in problem["detail"]
    assert problem["exit_code"] == 2


def _raise(error: BaseException) -> Callable[..., object]:
    def load(*_: object) -> object:
        raise error

    return load


def test_a_fault_of_the_program_is_one_line_without_a_traceback(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LazyCommand, "load", _raise(RuntimeError("tripped")))
    ended = cli("health", "--json")
    assert ended.status == 70
    assert ended.json["type"].endswith(":internal")
    assert "RuntimeError: tripped" in ended.err
    assert "Traceback" not in ended.err


def test_a_fault_of_the_program_shows_where_it_happened_on_demand(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SVSM_ATTEST_LOG_LEVEL", "debug")
    monkeypatch.setattr(LazyCommand, "load", _raise(RuntimeError("tripped")))
    assert "Traceback" in cli("health").err


def test_an_interrupt_is_quiet(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LazyCommand, "load", _raise(KeyboardInterrupt()))
    ended = cli("health")
    assert (ended.status, ended.out, ended.err) == (130, "", "")


@pytest.mark.parametrize(("code", "status"), [(0, 0), (3, 3), ("text", 70)])
def test_whatever_a_library_exits_with_is_passed_on(
    code: object, status: int, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LazyCommand, "load", _raise(SystemExit(code)))
    assert cli("health").status == status


def test_a_closed_pipe_is_quiet(program: Program, vectors: Path) -> None:
    for option in ((), ("--json",)):
        reader, writer = os.pipe()
        os.close(reader)
        done = program(
            "inspect",
            vectors / "certtable" / "genoa-good.bin",
            *option,
            stdout=writer,
            stderr=subprocess.PIPE,
            capture_output=False,
        )
        os.close(writer)
        assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_said(program: Program, vectors: Path) -> None:
    for option in ((), ("--json",)):
        with Path("/dev/full").open("wb") as full:
            done = program(
                "inspect",
                vectors / "genoa-v5-a" / "report.bin",
                *option,
                stdout=full,
                stderr=subprocess.PIPE,
                capture_output=False,
            )
        assert done.returncode == 70
        assert b"No space left on device" in done.stderr
        assert b"Traceback" not in done.stderr


def test_output_in_another_encoding_loses_signs_but_not_the_result(program: Program, vectors: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    report = vectors / "genoa-v5-a" / "report.bin"
    done = program(
        "verify", "--report", report, "--certs", vectors / "certtable" / "genoa-good.bin", env=environment
    )
    assert done.returncode == 1
    assert b"Verdict:" in done.stdout
    assert done.stdout.isascii()


def _on_a_terminal(*arguments: str, **environment: str) -> str:
    """What the program writes to a terminal of 80 columns."""
    master, slave = pty.openpty()
    merged = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "50", **environment}
    merged = {name: value for name, value in merged.items() if value}
    with subprocess.Popen([COMMAND, *arguments], stdout=slave, stderr=slave, env=merged) as process:
        os.close(slave)
        written = b""
        while True:
            try:
                chunk = os.read(master, 65536)
            except OSError:  # the other side is closed
                break
            if not chunk:
                break
            written += chunk
        process.wait(60)
    os.close(master)
    return written.decode()


def test_colour_on_a_terminal_unless_it_is_not_wanted(surroundings: dict[str, str], vectors: Path) -> None:
    del surroundings
    arguments = (
        "verify",
        "--report",
        str(vectors / "milan-v2-debug-policy" / "report.bin"),
        "--certs",
        str(vectors / "milan-v2-debug-policy" / "vcek.der"),
        "--certs",
        str(vectors / "ca"),
    )
    coloured = _on_a_terminal(*arguments, NO_COLOR="", FORCE_COLOR="")
    plain = _on_a_terminal(*arguments, NO_COLOR="1", FORCE_COLOR="")
    assert "\x1b[32m" in coloured
    assert "\x1b[32m" not in plain
    for text in (coloured, plain):
        lines = [line for line in text.replace("\r", "").split("\n") if "\x1b" not in line]
        assert max(map(len, lines)) <= 80
        assert "CONTRAINDICATED" in text


def test_the_module_runs_like_the_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"svsm-attest {__version__}\n"


def test_completion_knows_commands_and_the_options_of_a_command(program: Program) -> None:
    for words, cword, wanted in (
        ("svsm-attest ver", "1", b"verify"),
        ("svsm-attest verify --report-d", "2", b"--report-data"),
        ("svsm-attest certs f", "2", b"fetch"),
    ):
        environment = {
            **os.environ,
            "_SVSM_ATTEST_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": cword,
        }
        done = program(env=environment)
        assert done.returncode == 0
        assert done.stdout.split() == [wanted]


def test_every_command_can_be_loaded() -> None:
    group = application._Commands
    assert tuple(group.lazy) == COMMANDS
    for name, command in group.lazy.items():
        loaded = command.load(name)
        assert loaded.name == name
        assert "\n" not in loaded.help.replace("\n\n", "")  # the terminal breaks lines, nobody else
