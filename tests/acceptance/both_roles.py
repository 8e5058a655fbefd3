"""Attester and verifier behind a real socket, with the simulated processor within a test's reach."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from app.assembly import make_simulator
from app.config import Settings
from app.evidence.simulator.backend import SimulatorBackend
from app.evidence.vtpm.vtpm import Vtpm
from app.main import create_app
from tests.acceptance.tool_guest import Json, b64, unb64
from tests.api.service import outcomes, problem, served

ANSWERS_WITHIN_S = 120.0


class BothRoles:
    """The service at a URL.

    Args:
        url: where it listens.
        simulator: its backend.
    """

    def __init__(self, url: str, simulator: SimulatorBackend) -> None:
        self.url = url
        self.simulator = simulator
        self.client = httpx.Client(base_url=url, timeout=ANSWERS_WITHIN_S, trust_env=False)

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.client.post(path, json=body)

    def ask(self, path: str, **body: Any) -> Json:
        answer = self.post(path, **body)
        assert answer.status_code == 200, answer.text
        document: Json = answer.json()
        return document

    def verify(self, nonce: bytes, evidence: Json, **more: Any) -> Json:
        return self.ask("/verify", nonce=b64(nonce), evidence=evidence, **more)

    def challenge(self, ek: bytes, ak: bytes | None, **more: str) -> Json:
        keys = {"ek_public": b64(ek)} | ({} if ak is None else {"ak_public": b64(ak)})
        return self.ask("/ak-challenges", **keys, **more)

    def report(self, report_data: bytes, vmpl: int = 0) -> bytes:
        """A genuine report, as far as a simulated processor goes."""
        return self.simulator.processor.report(report_data, vmpl)


@contextlib.contextmanager
def both_roles(
    settings: Settings, *, reach: Callable[[SimulatorBackend], Vtpm] | None = None
) -> Iterator[BothRoles]:
    """The service on the simulator that the settings name, until the block ends.

    `reach` says how the attester gets at the simulated VM's TPM, if not directly.
    """
    simulator = make_simulator(settings)
    app = create_app(settings, backend=simulator, vtpm=reach(simulator) if reach else None)
    with served(app, settings.server_options()) as url:
        roles = BothRoles(url, simulator)
        with roles.client:
            yield roles


def whole_round(roles: BothRoles, key: str = "p256", *, method: str = "activate") -> Json:
    """Key, challenge, answer, evidence and verdict."""
    ak = roles.ask("/ak", key=key)
    challenge = roles.challenge(unb64(ak["ek_public"]), unb64(ak["ak_public"]), method=method)
    activation = {"challenge": challenge["challenge"], **answered(roles, challenge, key)}
    nonce = os.urandom(64)
    evidence = roles.ask("/attest", nonce=b64(nonce), quote={"key": key})
    return roles.verify(nonce, evidence, activation=activation)


def answered(roles: BothRoles, challenge: Json, key: str = "p256") -> Json:
    """What our attester answers to a challenge, as a verifier takes it."""
    parts = ("method", "credential_blob", "encrypted_secret", "public_area", "duplicate", "encrypted_seed")
    answer = roles.ask(
        "/ak/activate", key=key, **{name: challenge[name] for name in parts if name in challenge}
    )
    answer.pop("ak_public", None)
    return answer


def objections(verdict: Json) -> dict[str, str]:
    """What speaks against the evidence, other than that it is simulated."""
    found = outcomes(verdict)
    assert found.pop("snp.simulated") == "warned"
    return {check: outcome for check, outcome in found.items() if outcome in {"failed", "warned"}}


def why(verdict: Json, check: str) -> str:
    return next(str(finding["why"]) for finding in verdict["findings"] if finding["check"] == check)


def refused(answer: httpx.Response, *, status: int = 422, kind: str = "evidence-malformed") -> Json:
    """The problem document of a refusal."""
    assert (answer.status_code, problem(answer)) == (status, kind), answer.text
    document: Json = answer.json()
    return document
