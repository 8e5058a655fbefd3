"""Challenges, answered as the TPM with the keys would, and in every other way."""

import asyncio
import hashlib
import hmac
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest

from app.appraisal.key_proof import KeyProof, NoKeyProof, ProofMethod
from app.errors import RateLimitedError, WireError
from app.verifier.key_challenges import (
    SECRET_SIZE,
    ActivationAnswer,
    CertifyAnswer,
    ChallengeAnswer,
    KeyChallenge,
    KeyChallenges,
)
from app.verifier.single_use import MemorySingleUseStore
from app.wire.tpm import algorithms as alg
from app.wire.tpm.attest import Attest, CertifyInfo
from app.wire.tpm.credential import CredentialBlob
from app.wire.tpm.duplicate import ImportBlob
from app.wire.tpm.public import TpmtPublic
from app.wire.tpm.signature import HmacSignature
from tests.appraisal.quotes import AK, CLOCK, Making, ecc_ak
from tests.trust.test_credential import ONES, opened, seed_of
from tests.wire.samples import patched

T = TypeVar("T")
LIFETIME_S = 60.0
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
OTHER = ecc_ak(9).public
SCALAR = 5  # of the EKs on curves


class Recording(MemorySingleUseStore):
    """A store that shows what it was given."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seen: list[bytes] = []

    async def put(self, key: bytes, value: bytes, lifetime_s: float) -> None:
        await super().put(key, value, lifetime_s)
        self.seen.append(value)


@dataclass
class Bench:
    ek: bytes = ONES["P-256"][0]
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.store = Recording(3, lambda: self.seconds)
        self.challenges = KeyChallenges(self.store, lifetime_s=LIFETIME_S, clock=lambda: NOW)

    @staticmethod
    def run(coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run(coroutine)

    def activation(self, ak: TpmtPublic = AK.public) -> KeyChallenge:
        return self.run(self.challenges.activation(TpmtPublic.parse(self.ek), ak))

    def importing(self, ak: TpmtPublic | None = None) -> KeyChallenge:
        return self.run(self.challenges.importing(TpmtPublic.parse(self.ek), ak))

    def resolve(self, answer: ChallengeAnswer) -> KeyProof | NoKeyProof:
        return self.run(self.challenges.resolve(answer))

    def secret(self, challenge: KeyChallenge, name: bytes = AK.public.name) -> bytes:
        """What TPM2_ActivateCredential answers, of a TPM that has the key of this Name."""
        blob = challenge.blob
        assert isinstance(blob, CredentialBlob)
        seed = seed_of(self.ek, SCALAR, b"IDENTITY", blob.encrypted_secret)
        return opened(self.ek, seed, name, blob.id_object.integrity, blob.id_object.encrypted_identity)[2:]

    def activated(self, challenge: KeyChallenge) -> ActivationAnswer:
        return ActivationAnswer(challenge.id, self.secret(challenge))

    def certified(self, challenge: KeyChallenge, name: bytes = AK.public.name) -> CertifyAnswer:
        """What TPM2_Import, TPM2_Load and TPM2_Certify come to."""
        blob = challenge.blob
        assert isinstance(blob, ImportBlob)
        size = int.from_bytes(blob.duplicate[:2], "big")
        integrity, encrypted = blob.duplicate[2 : 2 + size], blob.duplicate[2 + size :]
        seed = seed_of(self.ek, SCALAR, b"DUPLICATE", blob.encrypted_seed)
        key = opened(self.ek, seed, blob.name, integrity, encrypted)[-32:]
        statement = certification(name).encode()
        mac = hmac.digest(key, hashlib.sha256(statement).digest(), "sha256")
        return CertifyAnswer.parse(challenge.id, statement, HmacSignature(alg.SHA256, mac).encode())


def certification(name: bytes) -> Attest:
    return Attest(
        qualified_signer=name,
        extra_data=b"",
        clock=CLOCK,
        firmware_version=1,
        attested=CertifyInfo(name, name),
    )


def why(found: KeyProof | NoKeyProof) -> str:
    assert isinstance(found, NoKeyProof), found
    return found.why


@pytest.mark.parametrize("kind", ONES)
def test_the_secret_proves_that_both_keys_are_in_one_tpm(kind: str) -> None:
    bench = Bench(ONES[kind][0])
    challenge = bench.activation()
    assert challenge.method is ProofMethod.ACTIVATE
    assert challenge.expires_at == NOW + timedelta(seconds=LIFETIME_S)
    found = bench.resolve(bench.activated(challenge))
    assert found == KeyProof(
        method=ProofMethod.ACTIVATE,
        ek_name=TpmtPublic.parse(bench.ek).name,
        ak_name=AK.public.name,
    )


@pytest.mark.parametrize("kind", ONES)
@pytest.mark.parametrize("ak", [None, AK.public])
def test_a_certification_proves_it_too(kind: str, ak: TpmtPublic | None) -> None:
    bench = Bench(ONES[kind][0])
    challenge = bench.importing(ak)
    assert challenge.method is ProofMethod.IMPORT
    found = bench.resolve(bench.certified(challenge))
    assert found == KeyProof(
        method=ProofMethod.IMPORT,
        ek_name=TpmtPublic.parse(bench.ek).name,
        ak_name=AK.public.name,
    )


def test_a_challenge_is_answered_once() -> None:
    bench = Bench()
    answer = bench.activated(bench.activation())
    assert isinstance(bench.resolve(answer), KeyProof)
    assert "answered before" in why(bench.resolve(answer))


def test_a_wrong_answer_uses_a_challenge_up() -> None:
    bench = Bench()
    answer = bench.activated(bench.activation())
    assert "not the secret" in why(bench.resolve(replace(answer, secret=bytes(SECRET_SIZE))))
    assert "answered before" in why(bench.resolve(answer))


def test_a_challenge_expires() -> None:
    bench = Bench()
    in_time, too_late = (bench.activated(bench.activation()) for _ in range(2))
    bench.seconds = LIFETIME_S - 0.001
    assert isinstance(bench.resolve(in_time), KeyProof)
    bench.seconds = LIFETIME_S
    assert "has expired" in why(bench.resolve(too_late))


def test_an_unknown_challenge_has_no_answer() -> None:
    assert "unknown" in why(Bench().resolve(ActivationAnswer("no such challenge", bytes(32))))


@pytest.mark.parametrize(
    "change",
    [
        lambda secret: secret[:-1],
        lambda secret: secret + b"\0",
        lambda secret: bytes([secret[0] ^ 1]) + secret[1:],
        lambda secret: hashlib.sha256(secret).digest(),
        lambda _: b"",
    ],
)
def test_nothing_but_the_secret_is_the_secret(change: Any) -> None:
    bench = Bench()
    answer = bench.activated(bench.activation())
    assert "not the secret" in why(bench.resolve(replace(answer, secret=change(answer.secret))))


def test_the_secret_of_one_challenge_is_not_that_of_another() -> None:
    bench = Bench()
    first, second = bench.activation(), bench.activation()
    crossed = ActivationAnswer(first.id, bench.secret(second))
    assert "not the secret" in why(bench.resolve(crossed))


def test_a_tpm_with_another_key_cannot_read_the_secret() -> None:
    bench = Bench()
    with pytest.raises(AssertionError):
        bench.secret(bench.activation(), OTHER.name)


def test_each_challenge_is_answered_in_its_own_way() -> None:
    bench = Bench()
    activation, importing = bench.activation(), bench.importing()
    certified = bench.certified(importing)
    assert "another way" in why(bench.resolve(replace(certified, challenge=activation.id)))
    assert "another way" in why(bench.resolve(ActivationAnswer(importing.id, bytes(32))))


def test_a_certification_by_another_key_proves_nothing() -> None:
    bench = Bench()
    answer = bench.certified(bench.importing())
    other = bench.importing()
    assert "not made with the key" in why(bench.resolve(replace(answer, challenge=other.id)))


@pytest.mark.parametrize("hash_alg", [alg.SHA256, alg.SHA384])
def test_a_wrong_mac_proves_nothing(hash_alg: int) -> None:
    bench = Bench()
    answer = bench.certified(bench.importing())
    wrong = HmacSignature(hash_alg, bytes(alg.HASH_SIZES[hash_alg]))
    assert "not made with the key" in why(bench.resolve(replace(answer, signature=wrong)))


def test_a_certification_of_another_key_than_the_challenge_names_proves_nothing() -> None:
    bench = Bench()
    answer = bench.certified(bench.importing(AK.public), OTHER.name)
    assert "about another key" in why(bench.resolve(answer))


def test_what_an_open_challenge_certifies_is_what_is_proven() -> None:
    bench = Bench()
    found = bench.resolve(bench.certified(bench.importing(), OTHER.name))
    assert isinstance(found, KeyProof)
    assert found.ak_name == OTHER.name


@pytest.mark.parametrize(
    ("certify_info", "signature", "pointer"),
    [
        (certification(AK.public.name).encode() + b"\0", b"", "/activation/certify_info"),
        (Making().attest().encode(), b"", "/activation/certify_info"),
        (b"", b"", "/activation/certify_info"),
        (certification(AK.public.name).encode(), b"", "/activation/signature"),
        (
            certification(AK.public.name).encode(),
            HmacSignature(alg.SHA256, bytes(32)).encode() + b"\0",
            "/activation/signature",
        ),
    ],
)
def test_a_malformed_certification_is_no_answer(certify_info: bytes, signature: bytes, pointer: str) -> None:
    with pytest.raises(WireError) as caught:
        CertifyAnswer.parse("any", certify_info, signature)
    assert caught.value.pointer == pointer


@pytest.mark.parametrize("bit", [1, 4, 5, 6, 7, 10, 16, 17, 18])
def test_a_key_that_is_no_ek_gets_no_challenge(bit: int) -> None:
    attributes = int.from_bytes(Bench().ek[4:8], "big") ^ 1 << bit
    bench = Bench(patched(Bench().ek, (4, attributes.to_bytes(4, "big"))))
    for challenge in (bench.activation, bench.importing):
        with pytest.raises(WireError, match="no TCG EK template"):
            challenge()
    assert not bench.store.seen


def test_as_many_wait_as_the_store_holds() -> None:
    bench = Bench()
    first = bench.activated(bench.activation())
    bench.importing()
    bench.activation()
    with pytest.raises(RateLimitedError) as caught:
        bench.activation()
    assert 0 < caught.value.retry_after_s <= LIFETIME_S
    assert isinstance(bench.resolve(first), KeyProof)
    bench.activation()


def test_no_secret_is_kept_or_shown() -> None:
    bench = Bench()
    challenge = bench.activation()
    answer = bench.activated(challenge)
    assert answer.secret not in bench.store.seen[0]
    assert len(bench.store.seen[0]) <= 200
    assert answer.secret.hex() not in repr(answer)
    assert repr(answer.secret) not in repr(answer)


def test_no_two_challenges_are_alike() -> None:
    bench = Bench()
    first, second = bench.activation(), bench.activation()
    assert first.id != second.id
    assert bench.secret(first) != bench.secret(second)
    assert len(bench.secret(first)) == SECRET_SIZE
