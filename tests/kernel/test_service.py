"""`svsm-attest serve` on the kernel's devices, and what a TPM can do to it.

The tests share one service, and the last one leaves no TPM.
"""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli.evidence_file import evidence_from
from app.tpm.causes import TpmCause
from app.verifier.key_challenges import ActivationAnswer, CertifyAnswer, ChallengeAnswer, KeyChallenge
from app.wire.tpm.duplicate import ImportBlob
from app.wire.tpm.public import TpmtPublic
from tests.acceptance import session
from tests.acceptance.tool_guest import b64, unb64
from tests.kernel.loadable import Provider
from tests.kernel.program import PATIENCE_S, Service, serving
from tests.kernel.relying_party import Findings, judged, new_challenges, objections
from tests.kernel.tpm_devices import Host, loaded

KEYS = ("p256", "rsa2048")


@pytest.fixture(scope="module")
def service(tpm_hardware: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An attester as it is installed."""
    del tpm_hardware
    with serving(tmp_path_factory.mktemp("service") / "log", execute=True, tpm_timeout_s="5") as running:
        yield running


def ask(service: Service, path: str, **body: Any) -> Any:
    answer = service.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def quote(service: Service) -> httpx.Response:
    return service.client.post("/quote", json={"nonce": b64(os.urandom(64)), "key": "p256"})


def cause(answer: httpx.Response) -> str:
    """Why the platform gave nothing."""
    assert answer.status_code == 503, answer.text
    problem = answer.json()
    assert problem["type"] == "urn:svsm-attest:problem:backend-unavailable"
    assert problem["remedy"]
    return str(problem["cause"])


def lives_on(service: Service) -> None:
    """It answers, has reports, and says why there are no quotes."""
    assert service.client.get("/livez").status_code == 200
    assert len(unb64(ask(service, "/attest", nonce=b64(os.urandom(64)))["report"])) == 1184
    assert service.client.get("/ek").json()["live"]["state"] == "not-compared"
    ready = service.client.get("/readyz")
    (check,) = (check for check in ready.json()["checks"] if check["name"] == "vtpm")
    assert ready.status_code == 200
    assert check["detail"].startswith("report-only, no quotes: ")
    assert check["remedy"]


def test_one_that_is_killed_in_mid_command_and_started_again(
    svsm: Provider, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    assert svsm.loaded
    with serving(tmp_path / "log", tpm_timeout_s="2") as doomed:
        assert quote(doomed).status_code == 200
        with Host().frozen():
            assert cause(quote(doomed)) == TpmCause.TIMEOUT
            doomed.process.kill()
            doomed.process.join(0.5)
            assert doomed.process.exitcode is None  # the kernel lets it go only when the TPM is done
        doomed.process.join(PATIENCE_S)
        assert doomed.process.exitcode == -signal.SIGKILL
    assert loaded() == ()
    assert quote(request.getfixturevalue("service")).status_code == 200
    assert loaded() == ()


def solved(service: Service, key: str, challenge: KeyChallenge) -> ChallengeAnswer:
    """The TPM's answer to a verifier's challenge."""
    blob = challenge.blob
    if isinstance(blob, ImportBlob):
        names = ("public_area", "duplicate", "encrypted_seed")
        parts = {name: b64(getattr(blob, name)) for name in names}
        made = ask(service, "/ak/activate", key=key, method="import", **parts)
        return CertifyAnswer.parse(challenge.id, unb64(made["certify_info"]), unb64(made["signature"]))
    credential_blob, encrypted_secret = map(b64, blob.to_tpm2bs())
    parts = {"credential_blob": credential_blob, "encrypted_secret": encrypted_secret}
    return ActivationAnswer(challenge.id, unb64(ask(service, "/ak/activate", key=key, **parts)["secret"]))


@pytest.mark.parametrize("method", ["activate", "import"])
@pytest.mark.parametrize("key", KEYS)
def test_report_key_and_quote_in_one_session(
    svsm: Provider, service: Service, ek: bytes, key: str, method: str
) -> None:
    nonce, challenges, calls = os.urandom(64), new_challenges(), svsm.calls
    keys = ask(service, "/ak", key=key)
    document = ask(service, "/attest", nonce=b64(nonce), quote={"key": key, "event_log": True})
    assert unb64(keys["ek_public"]) == unb64(document["manifest"]) == ek

    async def go() -> Findings:
        known = (TpmtPublic.parse(ek), TpmtPublic.parse(unb64(keys["ak_public"])))
        challenge = await (challenges.importing if method == "import" else challenges.activation)(*known)
        answer = solved(service, key, challenge)
        return await judged(nonce, evidence_from(document), challenges, answer)

    assert objections(asyncio.run(go())) == {}
    assert svsm.calls == calls + 1  # the device was asked for one report
    assert loaded() == ()


def test_the_ek_is_live(svsm: Provider, service: Service, ek: bytes) -> None:
    assert svsm.loaded
    ask(service, "/attest", nonce=b64(os.urandom(64)))
    told = service.client.get("/ek").json()
    assert (unb64(told["tpmt_public"]), told["live"]["state"]) == (ek, "matches")
    ready = service.client.get("/readyz").json()
    (check,) = (check for check in ready["checks"] if check["name"] == "vtpm")
    assert (ready["ready"], check["ok"], check["remedy"]) == (True, True, None)


@pytest.mark.parametrize("key", KEYS)
def test_a_quote_is_good_for_tpm2_checkquote(service: Service, tmp_path: Path, key: str) -> None:
    keys, nonce = ask(service, "/ak", key=key), os.urandom(64)
    made = ask(service, "/quote", nonce=b64(nonce), key=key)
    qualifying = session.qualifying(nonce, bytes.fromhex(keys["name"]), None)
    (tmp_path / "pem").write_text(keys["pem"])
    for name in ("attest", "signature"):
        (tmp_path / name).write_bytes(unb64(made[name]))
    command = ["tpm2_checkquote", "-Q", "-u", "pem", "-m", "attest", "-s", "signature", "-q"]
    for data, good in ((qualifying, True), (qualifying[:-1], False)):
        done = subprocess.run([*command, data.hex()], cwd=tmp_path, check=False, capture_output=True)
        assert (done.returncode == 0) is good


def test_a_challenge_of_tpm2_makecredential_is_solved(service: Service, ek: bytes, tmp_path: Path) -> None:
    secret, keys = os.urandom(32), ask(service, "/ak")
    (tmp_path / "ek").write_bytes(len(ek).to_bytes(2, "big") + ek)
    (tmp_path / "secret").write_bytes(secret)
    command = ["tpm2_makecredential", "-Q", "-T", "none", "-u", "ek", "-n", keys["name"]]
    subprocess.run([*command, "-s", "secret", "-o", "made"], cwd=tmp_path, check=True)
    made = (tmp_path / "made").read_bytes()[8:]  # after magic and version
    size = 2 + int.from_bytes(made[:2], "big")
    parts = {"credential_blob": b64(made[:size]), "encrypted_secret": b64(made[size:])}
    assert ask(service, "/ak/activate", **parts) == {"secret": b64(secret)}


def test_a_kernel_that_shows_no_event_log(service: Service, no_event_log: None) -> None:
    del no_event_log
    request = {"nonce": b64(os.urandom(64)), "event_log": True}
    assert cause(service.client.post("/quote", json=request)) == "event-log-unavailable"
    assert ask(service, "/quote", nonce=b64(os.urandom(64)))["event_log"] is None


def test_a_slow_tpm_is_waited_for(service: Service) -> None:
    with ThreadPoolExecutor(1) as other:
        with Host().frozen():
            pending = other.submit(quote, service)
            for _ in range(5):
                assert service.client.get("/livez").status_code == 200
            assert not pending.done()
        assert pending.result(PATIENCE_S).status_code == 200


def test_a_tpm_that_hangs_takes_nothing_with_it_but_quotes(svsm: Provider, service: Service) -> None:
    assert svsm.loaded
    with ThreadPoolExecutor(1) as other, Host().frozen():
        pending = other.submit(quote, service)
        while not pending.done():
            assert service.client.get("/livez").status_code == 200
        assert cause(pending.result()) == TpmCause.TIMEOUT
        assert cause(quote(service)) == TpmCause.STALLED
        lives_on(service)
    deadline = time.monotonic() + PATIENCE_S
    while (answer := quote(service)).status_code != 200:
        assert cause(answer) == TpmCause.STALLED
        assert time.monotonic() < deadline
    assert loaded() == ()


def test_a_tpm_that_is_gone_takes_nothing_with_it_but_quotes(svsm: Provider, service: Service) -> None:
    assert svsm.loaded
    Host().end_tpm()
    for _ in range(3):
        assert cause(quote(service)) == TpmCause.MALFORMED_ANSWER  # QEMU answers in its place, as a TPM 1.2
    lives_on(service)
    service.process.terminate()
    service.process.join(PATIENCE_S)
    assert service.process.exitcode == 0
