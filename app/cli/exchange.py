"""The whole exchange of a relying party, over HTTP: one nonce, one key, one verdict.

Attester and verifier never talk to each other; everything goes through here, and nothing that
goes through here has to be secret.
"""

import secrets
import time
from typing import Any

from app.api.evidence_document import EvidenceDocument
from app.cli.service import ServiceClient
from app.wire import b64
from app.wire.binding import NONCE_SIZE
from app.wire.evidence import Evidence, Service

DEFAULT_KEY = "p256"


class Exchange:
    """One nonce's way, step by step; `took_s` has how long the last step took.

    Every step may raise ServiceError.

    Args:
        attester: who is asked for evidence.
        verifier: who appraises it.
    """

    def __init__(self, attester: ServiceClient, verifier: ServiceClient) -> None:
        self.nonce = secrets.token_bytes(NONCE_SIZE)
        self.evidence: Evidence | None = None
        self.activation: dict[str, Any] | None = None
        self.took_s = 0.0
        self._attester = attester
        self._verifier = verifier

    def ask_key(self, key: str = DEFAULT_KEY) -> dict[str, Any]:
        """The attestation key, and the EK of the TPM that has it: what `POST /ak` answers."""
        return self._timed(self._attester, "/ak", {"key": key})

    def challenge(self, key: dict[str, Any]) -> dict[str, Any]:
        """A challenge that only the TPM with both keys can answer: what `POST /ak-challenges` answers."""
        request = {"ek_public": key["ek_public"], "ak_public": key["ak_public"]}
        return self._timed(self._verifier, "/ak-challenges", request)

    def activate(self, challenge: dict[str, Any], key: str = DEFAULT_KEY) -> None:
        """Have the TPM answer the challenge; the verifier gets its answer beside the evidence."""
        request = {"key": key} | {
            name: challenge[name] for name in ("method", "credential_blob", "encrypted_secret")
        }
        answer = self._timed(self._attester, "/ak/activate", request)
        self.activation = {"challenge": challenge["challenge"], "secret": answer["secret"]}

    def attest(self, key: str | None = None) -> Evidence:
        """Evidence of the SVSM; with a key also a quote over every PCR, and the event log."""
        start = time.perf_counter()
        quote = {"key": key, "event_log": True} if key is not None else None
        self.evidence = self._attester.attest(self.nonce, Service.ALL if key else Service.VTPM, quote=quote)
        self.took_s = time.perf_counter() - start
        return self.evidence

    def verify(self) -> dict[str, Any]:
        """The verdict on the evidence."""
        request = {"nonce": b64.encode(self.nonce), "evidence": self.document()}
        if self.activation is not None:
            request["activation"] = self.activation
        start = time.perf_counter()
        verdict = self._verifier.verify(request)
        self.took_s = time.perf_counter() - start
        return verdict

    def document(self) -> dict[str, Any] | None:
        """The evidence as JSON."""
        if self.evidence is None:
            return None
        return EvidenceDocument.from_evidence(self.evidence).model_dump(mode="json")

    def _timed(self, service: ServiceClient, path: str, request: dict[str, Any]) -> dict[str, Any]:
        start = time.perf_counter()
        answer = service.ask(path, request)
        self.took_s = time.perf_counter() - start
        return answer
