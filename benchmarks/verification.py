"""How much a warm verification costs beside the one P-384 verification that it cannot do without.

Everything is measured in one run on one machine; what counts are the ratios. In-process: a Verifier
with the chain memoised. Over HTTP: one worker, a few concurrent clients on loopback, each with its
connection kept. Evidence is the simulator's, so that the benchmark runs anywhere.
"""

import asyncio
import base64
import json
import os
import platform
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import cryptography
import httpx
import structlog
from cryptography.hazmat.backends.openssl.backend import backend
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from app import __version__
from app.appraisal.policy import Policy, default_policy
from app.evidence.simulator.backend import SimulatorBackend
from app.trust.endorsements import EndorsementSource
from app.trust.offered import OfferedEndorsements
from app.trust.roots import TrustRoots
from app.verifier.verifier import Verifier
from app.wire.evidence import Evidence, Service
from app.wire.report import AttestationReport

STATE = Path(".run/bench/simulator")
SECONDS = float(os.environ.get("BENCH_SECONDS", "5"))
CLIENTS = 4
START_S = 60


async def rate(once: Callable[[], Awaitable[object]]) -> float:
    """Calls per second over SECONDS, after a short warm-up."""
    for _ in range(20):
        await once()
    started, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < SECONDS:
        await once()
        done += 1
    return done / passed


async def bare_rate(report: AttestationReport, key: ec.EllipticCurvePublicKey) -> float:
    """What cryptography alone does: one ECDSA P-384 verification of the same 672 bytes."""
    signature = utils.encode_dss_signature(report.signature.r, report.signature.s)
    signed, algorithm = report.signed_bytes, ec.ECDSA(hashes.SHA384())

    async def once() -> None:
        key.verify(signature, signed, algorithm)

    return await rate(once)


async def in_process_rate(evidence: Evidence, nonce: bytes, roots: TrustRoots, policy: Policy) -> float:
    """Verifier.verify, chain and policy warm, logging off."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    verifier = Verifier(EndorsementSource(roots), roots, lambda: datetime.now(UTC))

    async def once() -> None:
        result = await verifier.verify(evidence, nonce, policy)
        if not result.genuine:
            raise RuntimeError("the benchmark's evidence is not genuine")
        result.document()

    return await rate(once)


async def http_rate(port: int) -> float:
    """POST /verify, CLIENTS at a time over kept connections."""
    url = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        nonce = base64.b64encode(secrets.token_bytes(64)).decode()
        evidence = (await client.post("/attest", json={"nonce": nonce})).raise_for_status().json()
        body = json.dumps({"nonce": nonce, "evidence": evidence}).encode()
        headers = {"Content-Type": "application/json"}

        async def many() -> None:
            answers = await asyncio.gather(
                *(client.post("/verify", content=body, headers=headers) for _ in range(CLIENTS))
            )
            for answer in answers:
                answer.raise_for_status()

        return await rate(many) * CLIENTS


def serve(port: int) -> subprocess.Popen[bytes]:
    """Both roles on the simulator, quiet, one worker."""
    environment = {
        **os.environ,
        "SVSM_ATTEST_ALLOW_SIMULATOR": "true",
        "SVSM_ATTEST_SIMULATOR_STATE_DIR": str(STATE),
        "SVSM_ATTEST_LOG_LEVEL": "error",
        "SVSM_ATTEST_PORT": str(port),
    }
    command = [str(Path(sys.executable).with_name("svsm-attest")), "serve"]
    server = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + START_S
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{port}/livez").raise_for_status()
        except httpx.HTTPError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return server


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def main() -> None:
    """Measure and print."""
    backend_ = SimulatorBackend(state_dir=STATE)
    nonce = secrets.token_bytes(64)
    evidence = await backend_.collect(nonce, Service.VTPM)
    if evidence.certificates is None:
        raise RuntimeError("the simulator gave no certificates")
    offered = OfferedEndorsements.from_table(evidence.certificates)
    roots = TrustRoots.amd().with_root(offered.roots[0], "simulator")
    key = offered.leaves[0].public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TypeError("the leaf has no elliptic-curve key")

    bare = await bare_rate(AttestationReport.parse(evidence.report), key)
    warm = await in_process_rate(evidence, nonce, roots, default_policy())
    port = free_port()
    server = serve(port)
    try:
        over_http = await http_rate(port)
    finally:
        server.terminate()
        server.wait()
    again = await bare_rate(AttestationReport.parse(evidence.report), key)
    bare = (bare + again) / 2

    print(f"svsm-attest {__version__}, Python {platform.python_version()} on {platform.machine()}")
    print(f"cryptography {cryptography.__version__} with {backend.openssl_version_text()}")
    print(f"{os.cpu_count()} cores, {SECONDS:g} s a figure")
    print(f"{'':34}{'per second':>12}{'of the bare rate':>18}")
    for name, figure in (
        ("bare P-384 verification", bare),
        ("in-process verification, warm", warm),
        (f"POST /verify, {CLIENTS} clients, one worker", over_http),
    ):
        print(f"{name:34}{figure:12.0f}{figure / bare:18.0%}")


if __name__ == "__main__":
    STATE.mkdir(parents=True, exist_ok=True)
    asyncio.run(main())
