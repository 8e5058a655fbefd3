"""Challenges that tie an attestation key to an EK: given out, kept, and held against their answers.

A challenge is good for one answer, right or wrong, and for a short time. What is kept of it is an
opaque record of at most 200 bytes in a store that replicas may share.
Sources: TCG TPM 2.0 Library, Part 1, 24 (credentials); TCG EK-Based Key Attestation with TPM Firmware
Version (keys to import).
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Self, TypeAlias

from app.appraisal.key_proof import KeyProof, NoKeyProof, ProofMethod
from app.errors import WireError, member
from app.trust.credential import make_credential, make_import, verify_certify_mac
from app.verifier.single_use import SingleUseStore
from app.wire.cursor import Cursor
from app.wire.tpm import fields
from app.wire.tpm.attest import STRUCTURE as ATTEST
from app.wire.tpm.attest import TYPE_OFFSET, Attest, CertifyInfo
from app.wire.tpm.credential import CredentialBlob
from app.wire.tpm.duplicate import ImportBlob
from app.wire.tpm.public import STRUCTURE as PUBLIC
from app.wire.tpm.public import TpmtPublic
from app.wire.tpm.signature import TpmtSignature, parse_signature

SECRET_SIZE = 32
_ID_BYTES = 16
_METHODS = {1: ProofMethod.ACTIVATE, 2: ProofMethod.IMPORT}
_CODES = {method: code for code, method in _METHODS.items()}

_GONE = "The challenge is unknown, has expired, or was answered before."
_OTHER_WAY = "The challenge is one that is answered in another way."
_WRONG_SECRET = "The answer is not the secret of the challenge."  # noqa: S105 (a sentence)
_WRONG_MAC = "The certification was not made with the key of the challenge."
_OTHER_KEY = "The certification is about another key than the challenge."


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChallenge:
    """A challenge as it is given out."""

    id: str
    method: ProofMethod
    blob: CredentialBlob | ImportBlob
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class ActivationAnswer:
    """What TPM2_ActivateCredential gave back."""

    challenge: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class CertifyAnswer:
    """What TPM2_Certify gave back."""

    challenge: str
    certify_info: bytes  # TPMS_ATTEST
    signature: TpmtSignature
    ak_name: bytes  # what it certifies

    @classmethod
    def parse(cls, challenge: str, certify_info: bytes, signature: bytes) -> Self:
        """Read a TPMS_ATTEST about a key, and the TPMT_SIGNATURE over it.

        Raises:
            WireError: malformed, or a statement about something else.
        """
        with member("/activation/certify_info"):
            attested = Attest.parse(certify_info).attested
            if not isinstance(attested, CertifyInfo):
                raise WireError(ATTEST, TYPE_OFFSET, "a quote, want a certification")
        with member("/activation/signature"):
            return cls(challenge, certify_info, parse_signature(signature), attested.name)


ChallengeAnswer: TypeAlias = ActivationAnswer | CertifyAnswer


class KeyChallenges:
    """Gives out challenges and judges the answers.

    Args:
        store: where they wait; it bounds how many.
        lifetime_s: seconds until a challenge expires.
        clock: the time of day, for the expiry that callers are told.
    """

    def __init__(self, store: SingleUseStore, *, lifetime_s: float, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._lifetime_s = lifetime_s
        self._clock = clock

    async def activation(self, ek: TpmtPublic, ak: TpmtPublic) -> KeyChallenge:
        """A secret that comes out only of a TPM that has both keys.

        Raises:
            WireError: `ek` follows no TCG EK template.
            RateLimitedError: too many challenges wait for their answers.
        """
        _demand_ek(ek)
        secret = secrets.token_bytes(SECRET_SIZE)
        blob = make_credential(ek, ak.name, secret)
        return await self._keep(_Record(ProofMethod.ACTIVATE, ek.name, ak.name, _digest(secret)), blob)

    async def importing(self, ek: TpmtPublic, ak: TpmtPublic | None = None) -> KeyChallenge:
        """A key to certify the attestation key with, which need not be known yet.

        Raises:
            WireError: `ek` follows no TCG EK template.
            RateLimitedError: too many challenges wait for their answers.
        """
        _demand_ek(ek)
        made = make_import(ek)
        name = ak.name if ak is not None else b""
        return await self._keep(_Record(ProofMethod.IMPORT, ek.name, name, made.key), made.blob)

    async def resolve(self, answer: ChallengeAnswer) -> KeyProof | NoKeyProof:
        """What an answer proves; whatever that is, its challenge is used up."""
        raw = await self._store.take(_key(answer.challenge))
        if raw is None:
            return NoKeyProof(_GONE)
        record = _Record.decode(raw)
        if isinstance(answer, ActivationAnswer):
            return _activated(record, answer)
        return _certified(record, answer)

    async def _keep(self, record: "_Record", blob: CredentialBlob | ImportBlob) -> KeyChallenge:
        name = secrets.token_urlsafe(_ID_BYTES)
        await self._store.put(_key(name), record.encode(), self._lifetime_s)
        expires_at = self._clock() + timedelta(seconds=self._lifetime_s)
        return KeyChallenge(id=name, method=record.method, blob=blob, expires_at=expires_at)


@dataclass(frozen=True, slots=True)
class _Record:
    """What is kept of a challenge."""

    method: ProofMethod
    ek_name: bytes
    ak_name: bytes  # empty where the key was not known yet
    secret: bytes = field(repr=False)  # SHA-256 of the secret; of a key to import the key itself

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        cursor = Cursor("challenge record", raw)
        method = _METHODS[cursor.integer(1, "method")]
        ek_name, ak_name = fields.tpm2b(cursor, "EK Name"), fields.tpm2b(cursor, "AK Name")
        record = cls(method, ek_name, ak_name, cursor.take(SECRET_SIZE, "secret"))
        cursor.end()
        return record

    def encode(self) -> bytes:
        names = fields.to_tpm2b(self.ek_name) + fields.to_tpm2b(self.ak_name)
        return bytes([_CODES[self.method]]) + names + self.secret


def _activated(record: _Record, answer: ActivationAnswer) -> KeyProof | NoKeyProof:
    if record.method is not ProofMethod.ACTIVATE:
        return NoKeyProof(_OTHER_WAY)
    if not hmac.compare_digest(_digest(answer.secret), record.secret):
        return NoKeyProof(_WRONG_SECRET)
    return KeyProof(method=record.method, ek_name=record.ek_name, ak_name=record.ak_name)


def _certified(record: _Record, answer: CertifyAnswer) -> KeyProof | NoKeyProof:
    if record.method is not ProofMethod.IMPORT:
        return NoKeyProof(_OTHER_WAY)
    if not verify_certify_mac(record.secret, answer.certify_info, answer.signature):
        return NoKeyProof(_WRONG_MAC)
    if record.ak_name not in (b"", answer.ak_name):
        return NoKeyProof(_OTHER_KEY)
    return KeyProof(method=record.method, ek_name=record.ek_name, ak_name=answer.ak_name)


def _demand_ek(ek: TpmtPublic) -> None:
    if ek.template is None:
        reason = "follows no TCG EK template: a TPM may do other things with such a key than with an EK"
        raise WireError(PUBLIC, 0, reason)


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


def _key(challenge: str) -> bytes:
    return b"ak-challenge:" + challenge.encode()
