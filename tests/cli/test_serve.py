"""`serve`: the service starts as told, refuses in one line, and ends in good order."""

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.cli.server import _bind, export_settings
from tests.cli.command_line import COMMAND, Cli

STARTS_WITHIN_S = 60


@contextmanager
def serving(log: Path, *arguments: str) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """The service in a process of its own, and the port that it took."""
    environment = {**os.environ, "SVSM_ATTEST_LOG_FORMAT": "json"}
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            [COMMAND, "serve", "--port", "0", *arguments], stderr=stderr, env=environment
        ) as process,
    ):
        try:
            deadline = time.monotonic() + STARTS_WITHIN_S
            while not (found := re.search(r'"url": "https?://127\.0\.0\.1:(\d+)"', log.read_text())):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield process, int(found[1])
        finally:
            process.kill()


def get(url: str) -> dict[str, object]:
    context = ssl._create_unverified_context()  # noqa: S323
    with urllib.request.urlopen(url, timeout=10, context=context) as response:  # noqa: S310
        answer: dict[str, object] = json.load(response)
    return answer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal_and_ends_well(
    number: signal.Signals, surroundings: dict[str, str], tmp_path: Path
) -> None:
    del surroundings
    log = tmp_path / "log"
    with serving(log, "--role", "verifier") as (process, port):
        assert get(f"http://127.0.0.1:{port}/readyz")["role"] == "verifier"
        process.send_signal(number)
        assert process.wait(30) == 0
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert {"listening", "started", "stopped", "Application shutdown complete."} <= set(events)


def test_flags_win_over_the_environment_and_that_over_the_file(
    surroundings: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del surroundings
    config = tmp_path / "settings.toml"
    config.write_text('role = "attester"\nbackend = "configfs"\nallow_simulator = false\n')
    monkeypatch.setenv("SVSM_ATTEST_BACKEND", "simulator")
    with serving(tmp_path / "log", "--config", str(config), "--role", "both", "--allow-simulator") as (
        _,
        port,
    ):
        ready = get(f"http://127.0.0.1:{port}/readyz")
    assert (ready["role"], ready["backend"], ready["allow_simulator"]) == ("both", "simulator", True)


def test_tls(surroundings: dict[str, str], tmp_path: Path, cli: Cli) -> None:
    del surroundings
    done = subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"),
            *("-days", "1", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"),
        ],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("openssl cannot make a certificate here")
    flags = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    with serving(tmp_path / "log", "--role", "verifier", *flags) as (_, port):
        assert get(f"https://127.0.0.1:{port}/livez") == {"status": "alive"}
        assert cli("health", "--url", f"https://127.0.0.1:{port}").status == 0
        assert cli("health", "--url", f"http://127.0.0.1:{port}").status == 1


@pytest.mark.parametrize(
    ("arguments", "environment", "status", "said"),
    [
        (("--host", "0.0.0.0"), {}, 2, "the backend is the simulator"),  # noqa: S104
        (("--host", "0.0.0.0", "--role", "verifier"), {}, 2, "there is no TLS"),  # noqa: S104
        (("--config", "/nonexistent.toml"), {}, 2, "No such file"),
        (("--tls-cert", "/nonexistent"), {}, 2, "is not a file"),
        (("--policy", "nobody"), {}, 2, "policy nobody is not known"),
        (("--policy", "/nonexistent.yaml"), {}, 2, "is not a file"),
        (("--role", "spectator"), {}, 2, "spectator"),
        (
            ("--host", "256.256.256.256", "--insecure-http", "--role", "verifier"),
            {},
            2,
            "cannot be listened on",
        ),
        ((), {"SVSM_ATTEST_PRT": "1"}, 2, "did you mean SVSM_ATTEST_PORT?"),
        ((), {"SVSM_ATTEST_SIMULATOR_STATE_DIR": "/proc/nowhere"}, 4, "state directory"),
        (("--allow-simulator",), {"SVSM_ATTEST_KDS_URL": "http://kds.example"}, 2, "https"),
    ],
)
def test_a_start_is_refused_with_a_line_and_a_code(
    arguments: tuple[str, ...],
    environment: dict[str, str],
    status: int,
    said: str,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ended = cli("serve", "--port", "0", *arguments)
    assert ended.status == status, ended.err
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""


def test_tls_files_that_are_none(cli: Cli, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    ended = cli("serve", "--port", "0", "--tls-cert", empty, "--tls-key", empty)
    assert (ended.status, "PEM" in ended.err) == (2, True)


def test_what_is_not_given_is_not_exported(surroundings: dict[str, str]) -> None:
    del surroundings
    export_settings({"role": None, "insecure_http": False, "allow_simulator": True, "port": 0})
    assert "SVSM_ATTEST_ROLE" not in os.environ
    assert "SVSM_ATTEST_INSECURE_HTTP" not in os.environ
    assert os.environ["SVSM_ATTEST_ALLOW_SIMULATOR"] == "true"
    assert os.environ["SVSM_ATTEST_PORT"] == "0"


def test_no_answer_waits_for_a_delayed_acknowledgement(surroundings: dict[str, str]) -> None:
    """A connection sends what it has: the option is the listener's, and connections inherit it."""
    del surroundings
    listener = _bind("127.0.0.1", 0)
    with listener, socket.create_connection(listener.getsockname()), listener.accept()[0] as connection:
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
