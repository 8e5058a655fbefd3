"""Quotes by keys that live outside any TPM: they sign what no TPM would, and so make every negative."""

import functools
import hashlib
from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from app.appraisal.key_proof import KeyProof, ProofMethod
from app.appraisal.quote import Quote, QuoteExpectation
from app.appraisal.subject import Subject
from app.wire.binding import expected_report_data
from app.wire.event_log import EventLog
from app.wire.evidence import QuoteEvidence
from app.wire.session import NO_CHANNEL, Channel, Session
from app.wire.tpm import algorithms as alg
from app.wire.tpm.attest import Attest, ClockInfo, QuoteInfo
from app.wire.tpm.pcr import PcrSelection, PcrValues
from app.wire.tpm.public import EccKey, RsaKey, TpmtPublic
from app.wire.tpm.signature import EcdsaSignature, RsaSignature, TpmtSignature
from tests.appraisal.subjects import EK, NONCE, REPORT, subject

# fixedTPM fixedParent sensitiveDataOrigin userWithAuth restricted sign
AK_ATTRIBUTES = 0x00050072
ENDORSEMENT = bytes.fromhex("4000000b")
OWNER = bytes.fromhex("40000001")
_HASHES: dict[int, hashes.HashAlgorithm] = {
    alg.SHA256: hashes.SHA256(),
    alg.SHA384: hashes.SHA384(),
    alg.SHA512: hashes.SHA512(),
}
_CURVES: dict[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1()}


@dataclass(frozen=True)
class Ak:
    """An attestation key whose private half is here."""

    public: TpmtPublic
    private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

    def changed(self, **members: Any) -> "Ak":
        """The same key, described otherwise."""
        return Ak(replace(self.public, **members), self.private)

    def sign(self, message: bytes, scheme: int | None = None, hash_alg: int | None = None) -> TpmtSignature:
        """In the key's own scheme and hash, unless told otherwise."""
        scheme = scheme or self.public.scheme
        hash_alg = hash_alg or self.public.scheme_hash or alg.SHA256
        hashed = _HASHES[hash_alg]
        if isinstance(self.private, rsa.RSAPrivateKey):
            how: padding.PKCS1v15 | padding.PSS = padding.PKCS1v15()
            if scheme == alg.RSAPSS:
                how = padding.PSS(padding.MGF1(hashed), hashed.digest_size)
            return RsaSignature(scheme, hash_alg, self.private.sign(message, how, hashed))
        r, s = utils.decode_dss_signature(self.private.sign(message, ec.ECDSA(hashed)))
        size = (self.private.curve.key_size + 7) // 8
        return EcdsaSignature(hash_alg, r.to_bytes(size, "big"), s.to_bytes(size, "big"))


def ecc_ak(scalar: int = 2, curve: alg.Curve = alg.P256, hash_alg: int = alg.SHA256) -> Ak:
    """An ECDSA key; another scalar is another key."""
    private = ec.derive_private_key(scalar, _CURVES[curve.name])
    point = private.public_key().public_numbers()
    return Ak(_public(EccKey(curve=curve, x=point.x, y=point.y), alg.ECDSA, hash_alg), private)


@functools.cache
def _rsa_private() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def rsa_ak(scheme: int = alg.RSASSA, hash_alg: int = alg.SHA256) -> Ak:
    """An RSA-2048 key."""
    private = _rsa_private()
    key = RsaKey(bits=2048, modulus=private.public_key().public_numbers().n)
    return Ak(_public(key, scheme, hash_alg), private)


def _public(key: RsaKey | EccKey, scheme: int, hash_alg: int) -> TpmtPublic:
    return TpmtPublic(
        name_alg=alg.SHA256,
        attributes=AK_ATTRIBUTES,
        auth_policy=b"",
        symmetric_bits=None,
        scheme=scheme,
        scheme_hash=hash_alg,
        key=key,
    )


AK = ecc_ak()
CLOCK = ClockInfo(clock_ms=120_000, reset_count=7, restart_count=2, safe=True)
VALUES = PcrValues.of({"sha256": {pcr: hashlib.sha256(bytes([pcr])).digest() for pcr in range(24)}})


@dataclass(frozen=True, kw_only=True)
class Making:
    """How a quote is made; what is left out is as it should be."""

    ak: Ak = AK
    signer: Ak | None = None  # None: the key itself
    nonce: bytes = NONCE
    channel: Channel = NO_CHANNEL
    report: bytes | None = None  # None: of the same session
    extra_data: bytes | None = None
    values: PcrValues = VALUES
    shown: PcrValues | None = None  # None: those that were quoted
    selection: PcrSelection | None = None  # None: of the values
    clock: ClockInfo = CLOCK
    hierarchy: bytes = ENDORSEMENT
    scheme: int | None = None
    hash_alg: int | None = None
    event_log: EventLog | bytes | None = None

    @property
    def session(self) -> Session:
        return Session(self.nonce, self.ak.public.name, self.channel)

    @property
    def report_data(self) -> bytes:
        """REPORT_DATA of the session's report."""
        return expected_report_data(self.session.report_nonce, EK)

    def attest(self) -> Attest:
        """What is signed."""
        report = self.report or replace(REPORT, report_data=self.report_data).encode()
        extra = self.session.qualifying_data(report) if self.extra_data is None else self.extra_data
        digest = self.values.digest(self.ak.public.scheme_hash or alg.SHA256)
        return Attest(
            qualified_signer=self.ak.public.qualified_name(self.hierarchy),
            extra_data=extra,
            clock=self.clock,
            firmware_version=0x2019102300163636,
            attested=QuoteInfo(self.selection or self.values.selection, digest),
        )

    def evidence(self) -> QuoteEvidence:
        """The quote as an attester would hand it out."""
        statement = self.attest().encode()
        signature = (self.signer or self.ak).sign(statement, self.scheme, self.hash_alg)
        event_log = self.event_log.encode() if isinstance(self.event_log, EventLog) else self.event_log
        return QuoteEvidence(
            ak_public=self.ak.public.encode(),
            attest=statement,
            signature=signature.encode(),
            pcrs=self.shown or self.values,
            event_log=event_log,
        )


def proof(ak: Ak = AK, ek: bytes = EK, method: ProofMethod = ProofMethod.ACTIVATE) -> KeyProof:
    """What an answered challenge to these keys gives."""
    return KeyProof(method=method, ek_name=TpmtPublic.parse(ek).name, ak_name=ak.public.name)


def quoted(making: Making | None = None, **changes: Any) -> Subject:
    """The good subject with a quote in one session with its report; `changes` as for `subject`."""
    making = making or Making()
    expectation = changes.pop("expectation", QuoteExpectation(key_proof=proof(making.ak)))
    found = subject(**{"report_data": making.report_data, **changes})
    quote = changes.get("quote", Quote.parse(making.evidence()))
    return replace(found, quote=quote, expectation=expectation)
