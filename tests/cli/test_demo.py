"""`demo`: the whole round trip, watched passing and failing, and repeated by hand."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.command_line import COMMAND, Cli
from tests.interop.software_tpm import demand

STARTS_WITHIN_S = 90


def test_the_round_trip_is_affirmed_and_says_that_it_is_simulated(cli: Cli) -> None:
    demand("swtpm")
    ended = cli("demo")
    assert ended.status == 0, ended.err
    lines = ended.out.split("\n")
    assert lines[0].startswith("SIMULATED: ")
    steps = [line.split()[1] for line in lines if re.match(r"  [1-5] ", line)]
    assert steps == ["challenge", "key", "activate", "attest", "verify"]
    links = re.findall(
        r"^(?:holds(?:, with a warning)?|not asked|broken)  +(\w+)(?: key)?  ", ended.out, re.MULTILINE
    )
    assert links == ["root", "signing", "report", "SVSM", "EK", "AK", "quote", "PCRs", "boot"]
    assert "broken" not in ended.out
    assert re.search(r"^holds +PCRs +24 of sha256: 0=[0-9a-f]{8}", ended.out, re.MULTILINE)
    assert re.search(r"^holds +boot +Secure Boot on ", ended.out, re.MULTILINE)
    assert "vTPM EK RSA-2048 (L-1)" in ended.out
    assert "passed     vtpm.binding" in ended.out
    assert re.search(r"^Verdict: AFFIRMING .*SIMULATED", ended.out, re.MULTILINE)
    assert "curl" not in ended.out


def test_without_a_tpm_it_says_what_is_missing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SVSM_ATTEST_SIMULATOR_VTPM", "none")
    ended = cli("demo")
    assert ended.status == 0, ended.err
    assert re.search(r"^  2 key +none: report only, no quote +.*swtpm", ended.out, re.MULTILINE)
    assert re.search(r"^holds +EK ", ended.out, re.MULTILINE)
    assert re.search(r"^not asked +AK +none ", ended.out, re.MULTILINE)
    assert re.search(r"^not asked +quote +none proven ", ended.out, re.MULTILINE)


def test_the_same_as_json(cli: Cli) -> None:
    ended = cli("demo", "--json", "--product", "Turin", "--report-version", "3", "--signing-key", "vlek")
    assert ended.status == 0
    document = ended.json
    assert document["simulated"] is True
    assert document["verdict"]["claims"]["snp"]["product"] == "Turin"
    assert document["verdict"]["claims"]["snp"]["version"] == 3
    assert document["verdict"]["endorsements"]["leaf"] == "vlek"
    assert document["evidence"]["nonce"] == document["nonce"]


@pytest.mark.parametrize(
    ("fault", "status"),
    [("snp.vmpl", 1), ("snp.chain:expired", 1), ("kds.throttled", 3), ("vtpm.binding", 1)],
)
def test_a_fault_is_watched_failing(fault: str, status: int, cli: Cli) -> None:
    listed = cli("demo", "--fault", "list").out
    if f"\n{fault} " not in listed:
        fault = next(line.split()[0] for line in listed.split("\n") if "KDS" in line)
    ended = cli("demo", "--fault", fault)
    assert ended.status == status
    if status == 1:
        assert "Verdict: CONTRAINDICATED" in ended.out
        assert f"failed     {fault.partition(':')[0]}" in ended.out
    else:
        assert "The fault: " in ended.out
        assert "error: " in ended.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--fault", "snp.nonsense"), "--fault list"),
        (("--report-version", "4"), "REPORT_VERSION"),
        (("--product", "Venice"), "Venice"),
        (("--port", "70000"), "65535"),
        (("--fault", "snp.product", "--report-version", "2"), "needs report version 3"),
    ],
)
def test_what_cannot_be_simulated(arguments: tuple[str, ...], said: str, cli: Cli) -> None:
    ended = cli("demo", *arguments, "--json")
    assert ended.status == 2
    assert said in ended.json["detail"]


def test_a_port_that_is_taken(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = cli("demo", "--port", port, "--json")
    assert ended.status == 2
    assert f"127.0.0.1 port {port}: cannot be listened on" in ended.json["detail"]
    assert "--port" in ended.json["remedy"]


def test_a_state_directory_that_cannot_be_used(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SVSM_ATTEST_SIMULATOR_STATE_DIR", "/proc/nowhere")
    ended = cli("demo", "--json")
    assert (ended.status, "Traceback" in ended.err) == (4, False)


def test_serving_on_and_the_lines_that_repeat_it(surroundings: dict[str, str], tmp_path: Path) -> None:
    """What `make run` shows is copied into a shell, as it stands."""
    del surroundings
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    output = tmp_path / "output"
    with (
        output.open("wb") as stdout,
        subprocess.Popen([COMMAND, "demo", "--serve", "--port", "0"], stdout=stdout, env=os.environ) as demo,
    ):
        try:
            deadline = time.monotonic() + STARTS_WITHIN_S
            while "Ctrl-C stops." not in output.read_text():
                assert demo.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            text = output.read_text()
            lines = [line for line in text.split("\n") if line.startswith(("NONCE=", "curl "))]
            assert len(lines) == 3
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
            assert '"verdict":"affirming"' in done.stdout
            assert '"simulated":true' in done.stdout
            assert (tmp_path / "evidence.json").stat().st_size > 0
        finally:
            demo.send_signal(signal.SIGINT)
        assert demo.wait(30) == 0
