"""Has an attester show that attestation key and EK of its evidence are in one TPM."""

from collections.abc import Mapping
from typing import Any

from app.cli.failure import InputError, ServiceError
from app.cli.service import ServiceClient
from app.evidence.vtpm.ak_kind import AkKind
from app.verifier.key_challenges import ActivationAnswer, KeyChallenges
from app.wire import b64
from app.wire.evidence import Evidence
from app.wire.manifest import manifest_ek, parse_manifest
from app.wire.tpm.credential import CredentialBlob
from app.wire.tpm.public import TpmtPublic

_KINDS = {"P-256": AkKind.P256, "RSA-2048": AkKind.RSA2048}


class KeyActivation:
    """The keys of evidence, and the attester that is to show where they are.

    Args:
        attester: a client of it.
        evidence: with a quote, and with a manifest that names an EK.
        source: what errors call the evidence.

    Raises:
        InputError: on construction, for other evidence, or a key that attesters do not have.
        WireError: a key that is malformed.
    """

    def __init__(self, attester: ServiceClient, evidence: Evidence, source: str) -> None:
        if evidence.quote is None:
            raise InputError(source, "--attester goes with evidence that has a quote, and this has none")
        ek = manifest_ek(parse_manifest(evidence.manifest)) if evidence.manifest is not None else None
        if ek is None:
            raise InputError(source, "the evidence names no EK, so there is nothing to tie the key to")
        self._attester = attester
        self._source = source
        self._ek = ek
        self._ak = TpmtPublic.parse(evidence.quote.ak_public)
        if self._ak.algorithm not in _KINDS:
            raise InputError(
                source, f"the attestation key is {self._ak.algorithm}; attesters have no such key"
            )

    def by_verifier(self, verifier: ServiceClient) -> dict[str, Any]:
        """The answer to a verifier's challenge, as `POST /verify` takes it.

        Raises:
            ServiceError: verifier or attester refused, did not answer, or answered something else.
            InputError: the attester has another key.
        """
        keys = {"ek_public": b64.encode(self._ek.encode()), "ak_public": b64.encode(self._ak.encode())}
        challenge = verifier.ask("/ak-challenges", keys)
        try:
            parts = {name: challenge[name] for name in ("credential_blob", "encrypted_secret")}
            name = challenge["challenge"]
        except KeyError as error:
            raise ServiceError(f"{verifier.url}/ak-challenges", f"the answer has no {error}") from error
        return {"challenge": name, "secret": b64.encode(self._open(parts))}

    async def by_ourselves(self, challenges: KeyChallenges) -> ActivationAnswer:
        """The answer to a challenge of this very process.

        Raises:
            WireError: the EK follows no TCG template.
            InputError: the attester has another key.
            ServiceError: the attester refused, did not answer, or answered something else.
        """
        challenge = await challenges.activation(self._ek, self._ak)
        assert isinstance(challenge.blob, CredentialBlob)  # noqa: S101 (what an activation has)
        names = ("credential_blob", "encrypted_secret")
        parts = dict(zip(names, map(b64.encode, challenge.blob.to_tpm2bs()), strict=True))
        return ActivationAnswer(challenge.id, self._open(parts))

    def _open(self, parts: Mapping[str, Any]) -> bytes:
        kind = {"key": _KINDS[self._ak.algorithm].value}
        keys = self._attester.ask("/ak", kind)
        if keys.get("ak_public") != b64.encode(self._ak.encode()):
            raise InputError(
                self._source,
                "the attestation key is another one than the attester's",
                "Ask for evidence anew: the TPM was reset since, or this is another attester.",
            )
        request = {**kind, "method": "activate", **parts}
        answer = self._attester.ask("/ak/activate", request)
        try:
            return b64.decode(str(answer["secret"]))
        except (KeyError, ValueError) as error:
            raise ServiceError(f"{self._attester.url}/ak/activate", "the answer has no secret") from error
