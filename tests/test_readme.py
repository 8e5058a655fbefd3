"""The README's lines work as printed."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.interop.software_tpm import demand

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text()
PRINTED_URL = "http://127.0.0.1:8080"
COMMAND = str(Path(sys.executable).with_name("svsm-attest"))
START_S = 90


def section(title: str) -> str:
    """The console block of a section."""
    body = README.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return "\n".join(re.findall(r"```console\n(.*?)```", body, re.DOTALL))


@pytest.fixture(scope="module")
def service(simulator_state: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What `make run` serves, on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "SVSM_ATTEST_ALLOW_SIMULATOR": "true",
        "SVSM_ATTEST_SIMULATOR_STATE_DIR": str(simulator_state),
        "SVSM_ATTEST_STORE": str(tmp_path_factory.mktemp("store")),
    }
    with subprocess.Popen([COMMAND, "serve", "--port", str(port)], env=environment) as server:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_S
        try:
            while True:
                try:
                    httpx.get(f"{url}/livez").raise_for_status()
                    break
                except httpx.HTTPError:
                    assert server.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            yield url
        finally:
            server.terminate()


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / ".venv").symlink_to(Path(sys.prefix))
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_round_trip_by_hand(service: str, tmp_path: Path) -> None:
    script = section("The same by hand")
    assert PRINTED_URL in script
    done = run(script.replace(PRINTED_URL, service), tmp_path)
    assert done.returncode == 0, done.stderr
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert (verdict["verdict"], verdict["endorsements"]["simulated"]) == ("affirming", True)
    assert "SIMULATED" in done.stdout


def test_down_to_the_pcrs(service: str, tmp_path: Path) -> None:
    demand("swtpm")
    (tmp_path / "nonce.bin").write_bytes(os.urandom(64))
    script = section("Down to what the VM booted")
    assert PRINTED_URL in script
    done = run(script.replace(PRINTED_URL, service), tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^passed +vtpm\.ak_binding ", done.stdout, re.MULTILINE)
    assert re.search(r"^passed +vtpm\.event_log ", done.stdout, re.MULTILINE)


def test_every_file_that_the_readme_points_to_is_there() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", README)
    assert targets
    assert [target for target in targets if not (REPOSITORY / target).exists()] == []


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    documents = [README, *(path.read_text() for path in REPOSITORY.glob("*.md"))]
    named = {name for text in documents for name in re.findall(r"\bmake ([a-z-]+)\b(?! sure)", text)}
    assert {name for name in named if f"\n{name}:" not in makefile} == set()
