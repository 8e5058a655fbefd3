"""Builds the image with buildah and runs the services of docker-compose.yml with podman.

The services' own keys (user, read_only, cap_drop, tmpfs, environment, ...) become podman's flags, so
that what is tested is the compose file as it stands. Differences that the test machine forces: host
network instead of published ports, runc, two resource limits, and a Debian base image made on the spot.
"""

import base64
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
WORK = REPOSITORY / ".run" / "image"
BASE = "localhost/svsm-attest-base:bookworm"
IMAGE = "localhost/svsm-attest:test"
DEMO_IMAGE = "localhost/svsm-attest-demo:test"
STORAGE = ("--storage-driver", "vfs", "--root", str(WORK / "storage"), "--runroot", str(WORK / "runroot"))
SUITE = "bookworm"
READY_S = 90


def run(*command: str, timeout_s: float = 900, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=True, text=True, timeout=timeout_s, **options)


def output(*command: str, timeout_s: float = 120) -> str:
    return run(*command, timeout_s=timeout_s, stdout=subprocess.PIPE).stdout


def podman(*arguments: str) -> tuple[str, ...]:
    return ("podman", *STORAGE, "--runtime", "runc", *arguments)


def skip(reason: str) -> None:
    print(f"SKIPPED: image-test: {reason}")
    sys.exit(0)


def mirror() -> str:
    """The main Debian mirror that this machine already uses."""
    listing = output("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)")
    for line in listing.splitlines():
        uri, _, component = [*line.split(), "", "", ""][:3]
        if component == "main" and "security" not in uri and "ubuntu" not in uri:
            return uri
    return ""


def make_base() -> None:
    """A minimal Debian with python3, imported as an image; kept between runs."""
    if subprocess.run(podman("image", "exists", BASE), check=False).returncode == 0:
        return
    uri = mirror()
    if not uri:
        skip("no Debian mirror among this machine's package sources")
    root = WORK / "rootfs"
    shutil.rmtree(root, ignore_errors=True)
    try:
        run(
            "debootstrap",
            "--variant=minbase",
            "--include=python3,python3-venv,ca-certificates",
            SUITE,
            str(root),
            uri,
            stdout=subprocess.DEVNULL,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        skip("debootstrap could not make a base image")
    archive = WORK / "base.tar"
    run("tar", "-C", str(root), "--numeric-owner", "-cf", str(archive), ".")
    run(*podman("import", str(archive), BASE), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    archive.unlink()
    shutil.rmtree(root)


def build(image: str, *how: str) -> None:
    run(
        "buildah",
        *STORAGE,
        "bud",
        "--isolation",
        "chroot",
        "--format",
        "docker",  # the OCI form drops HEALTHCHECK
        "--build-arg",
        f"BASE_IMAGE={BASE}",
        "-v",
        "/etc/ssl/certs:/etc/ssl/certs:ro",
        *how,
        "-t",
        image,
        str(REPOSITORY),
        stdout=subprocess.DEVNULL,
    )


def service(name: str) -> dict[str, Any]:
    compose = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    found: dict[str, Any] = compose["services"][name]
    return found


def image_of(name: str) -> str:
    """The image that a compose service is built as."""
    target = service(name)["build"]
    return IMAGE if target == "." else {"demo": DEMO_IMAGE}[target["target"]]


def flags(wanted: dict[str, Any]) -> list[str]:
    """The hardening of a compose service as podman's flags."""
    result = ["--network", "host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]
    if wanted.get("read_only"):
        result.append("--read-only")
    result += ["--user", wanted["user"]]
    result += [flag for capability in wanted["cap_drop"] for flag in ("--cap-drop", capability)]
    for option in wanted["security_opt"]:
        result += ["--security-opt", option.removesuffix(":true")]
    for mount in wanted["tmpfs"]:
        path, _, options = mount.partition(":")
        if "uid=" in options:
            # podman's tmpfs cannot belong to somebody: a fresh folder that does stands in for it.
            result += ["-v", f"{owned_folder(wanted['user'])}:{path}:rw,noexec,nosuid,nodev"]
        else:
            result += ["--tmpfs", mount]
    for key, value in wanted["environment"].items():
        result += ["--env", f"{key}={value}"]
    return result


def owned_folder(user: str) -> str:
    """An empty folder of that user, gone with the work folder."""
    folder = tempfile.mkdtemp(dir=WORK)
    uid, gid = (int(part) for part in user.split(":"))
    os.chown(folder, uid, gid)
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def call(port: int, path: str, body: object = None) -> tuple[int, Any]:
    answer = httpx.request("GET" if body is None else "POST", f"http://127.0.0.1:{port}{path}", json=body)
    return answer.status_code, answer.json()


@contextmanager
def running(name: str, *more: str) -> Iterator[int]:
    """A compose service in the background, until it answers; its log is shown if anything fails."""
    port = free_port()
    container = f"svsm-attest-{name}-{os.getpid()}"
    command = (
        "run",
        "--detach",
        "--name",
        container,
        *flags(service(name)),
        "--env",
        f"SVSM_ATTEST_PORT={port}",
    )
    run(*podman(*command, *more, image_of(name)), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + READY_S
        while True:
            try:
                if call(port, "/livez")[0] == 200:
                    break
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)
        yield port
        # The image's own health check, as an engine would run it.
        run(*podman("exec", container, "svsm-attest", "health"), stdout=subprocess.DEVNULL)
        user = output(*podman("exec", container, "python3", "-c", "import os; print(os.getuid())")).strip()
        assert user == service(name)["user"].partition(":")[0], user
    except BaseException:
        subprocess.run(podman("logs", container), check=False)
        raise
    finally:
        subprocess.run(
            podman("rm", "--force", "--time", "5", container), check=False, stdout=subprocess.DEVNULL
        )


def test_image_is_lean_and_says_what_it_is() -> None:
    found = json.loads(output("buildah", *STORAGE, "inspect", "--type", "image", IMAGE))["Docker"]["config"]
    assert found["User"] == "65532:65532", found["User"]
    assert found["Healthcheck"]["Test"] == ["CMD", "svsm-attest", "health"], found
    script = "for t in cc gcc g++ make ld pip swtpm; do command -v $t && exit 1; done; exit 0"
    run(*podman("run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", *LIMITS, IMAGE, "-c", script))


def test_demo_profile_attests_and_verifies() -> None:
    with running("demo") as port:
        status, ready = call(port, "/readyz")
        assert status == 200, ready
        assert ready["simulated"] is True, ready
        nonce = base64.b64encode(secrets.token_bytes(64)).decode()
        status, evidence = call(port, "/attest", {"nonce": nonce})
        assert status == 200, evidence
        status, verdict = call(port, "/verify", {"nonce": nonce, "evidence": evidence})
        assert status == 200, verdict
        assert (verdict["verdict"], verdict["genuine"]) == ("affirming", True), verdict
        assert verdict["endorsements"]["simulated"] is True, verdict
        other = base64.b64encode(secrets.token_bytes(64)).decode()
        status, verdict = call(port, "/verify", {"nonce": other, "evidence": evidence})
        assert verdict["verdict"] == "contraindicated", verdict


def test_demo_command_in_the_container_shows_the_whole_chain() -> None:
    hardened = [flag for flag in flags(service("demo")) if "SVSM_ATTEST_" not in flag and flag != "--env"]
    document = json.loads(output(*podman("run", "--rm", *hardened, DEMO_IMAGE, "demo", "--json")))
    verdict = document["verdict"]
    assert verdict["verdict"] == "affirming", verdict
    outcomes = {finding["check"]: finding["outcome"] for finding in verdict["findings"]}
    for check in ("vtpm.ak_binding", "vtpm.quote.signature", "vtpm.quote.nonce", "vtpm.event_log"):
        assert outcomes[check] == "passed", verdict


def test_demo_command_works_without_a_tpm_and_says_what_is_missing() -> None:
    hardened = [flag for flag in flags(service("demo")) if "SVSM_ATTEST_" not in flag and flag != "--env"]
    document = json.loads(output(*podman("run", "--rm", *hardened, IMAGE, "demo", "--json")))
    assert document["verdict"]["verdict"] == "affirming", document["verdict"]
    assert document["evidence"].get("quote") is None, document
    assert "apt install swtpm" in document["report_only"], document


def test_nothing_set_refuses_to_serve_the_simulator_beyond_loopback() -> None:
    command = podman("run", "--rm", *LIMITS, "--env", "SVSM_ATTEST_HOST=0.0.0.0", IMAGE)
    done = subprocess.run(command, check=False, text=True, capture_output=True, timeout=60)
    assert done.returncode == 2, done
    assert "simulator" in done.stderr, done.stderr


def test_attester_profile_without_configfs_says_what_is_missing() -> None:
    """No SVSM here: the service lives, is not ready, and names cause and remedy."""
    plain = (
        "--env",
        "SVSM_ATTEST_INSECURE_HTTP=true",
        "--env",
        "SVSM_ATTEST_TLS_CERTIFICATE=",
        "--env",
        "SVSM_ATTEST_TLS_KEY=",
    )
    with running("attester", *plain) as port:
        status, ready = call(port, "/readyz")
        assert status == 503, ready
        failed = [check for check in ready["checks"] if not check["ok"]]
        assert failed, ready
        assert failed[0]["remedy"], ready
        nonce = base64.b64encode(secrets.token_bytes(64)).decode()
        status, problem = call(port, "/attest", {"nonce": nonce})
        assert status == 503, problem
        assert problem["type"].endswith("backend-unavailable"), problem
        assert problem["remedy"], problem


def test_verifier_profile_starts_with_its_policies() -> None:
    plain = (
        "--env",
        "SVSM_ATTEST_INSECURE_HTTP=true",
        "--env",
        "SVSM_ATTEST_TLS_CERTIFICATE=",
        "--env",
        "SVSM_ATTEST_TLS_KEY=",
    )
    mount = ("-v", f"{REPOSITORY}/deploy/policies:/etc/svsm-attest/policies:ro")
    state = ("--tmpfs", "/var/lib/svsm-attest:mode=1777")
    with running("verifier", *plain, *mount, *state) as port:
        status, ready = call(port, "/readyz")
        assert status == 200, ready
        assert ready["simulated"] is False, ready


LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")


def main() -> int:
    WORK.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    make_base()
    built = time.monotonic()
    build(IMAGE)
    # From the image that is there already, not from a second build of the stage that makes it.
    build(DEMO_IMAGE, "--target", "demo", "--build-context", f"service=container-image://{IMAGE}")
    print(f"base image {built - started:.0f} s, build {time.monotonic() - built:.0f} s", flush=True)
    tests = [test for name, test in sorted(globals().items()) if name.startswith("test_")]
    failed = 0
    for test in tests:
        try:
            test()
        except Exception as error:  # noqa: BLE001 (one failure must not hide the others)
            failed += 1
            print(f"FAILED {test.__name__}: {error}", flush=True)
        else:
            print(f"passed {test.__name__}", flush=True)
    print(f"image-test: {len(tests) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
