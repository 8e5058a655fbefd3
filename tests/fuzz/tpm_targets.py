"""What a TPM says, and what people hand to one."""

from collections.abc import Callable
from typing import Any

from app.errors import TpmRefusedError, TpmUnavailableError, WireError
from app.tpm.causes import TpmCause, unavailable
from app.tpm.client import Tpm
from app.tpm.handles import ENDORSEMENT, TRANSIENT
from app.trust.tpm_key import verify_attest
from app.wire.cursor import Cursor
from app.wire.tpm import fields
from app.wire.tpm.attest import Attest, CertifyInfo, QuoteInfo
from app.wire.tpm.credential import CredentialBlob
from app.wire.tpm.duplicate import ImportBlob
from app.wire.tpm.pcr import PcrSelection
from app.wire.tpm.public import EccKey, TpmtPublic
from app.wire.tpm.signature import TpmtSignature, parse_signature
from tests.fuzz.target import Target
from tests.wire.tpm.statements import QUOTE_AK, QUOTE_NONCE

AK = TpmtPublic.parse(QUOTE_AK)
QUOTED = PcrSelection.of({"sha256": [0, 1, 2, 7, 16]})
NV_INDEX = 0x01C00002
_TIMEOUT_S = 0.02  # of a command that the TPM wants sent again and again


def check_key(raw: bytes, key: TpmtPublic) -> None:
    assert key.encode() == raw
    assert TpmtPublic.from_tpm2b(key.to_tpm2b()) == key
    assert len(key.name) in {34, 50, 66}
    assert key.jwk()["kty"] == ("EC" if isinstance(key.key, EccKey) else "RSA")
    assert key.template is None or key.encode()[:2] in {b"\0\1", b"\0\x23"}


def check_tpm2b(raw: bytes, key: TpmtPublic) -> None:
    assert key.to_tpm2b() == raw
    check_key(raw[2:], key)


def check_attest(raw: bytes, attest: Attest) -> None:
    assert attest.encode() == raw
    assert raw.startswith(b"\xffTCG\x80")
    assert isinstance(attest.attested, QuoteInfo if raw[5] == 0x18 else CertifyInfo)
    assert len(attest.qualified_signer) in {34, 50, 66}


def check_signature(raw: bytes, signature: TpmtSignature) -> None:
    assert signature.encode() == raw
    assert not verify_attest(AK, signature, b"something else")


def read_selection(raw: bytes) -> PcrSelection:
    cursor = Cursor("TPML_PCR_SELECTION", raw)
    selection = PcrSelection.read(cursor)
    cursor.end()
    return selection


def check_selection(raw: bytes, selection: PcrSelection) -> None:
    assert selection.encode() == raw
    assert PcrSelection.of(selection.names()) == selection


def check_credential(raw: bytes, blob: CredentialBlob) -> None:
    assert blob.to_tools_file() == raw
    assert CredentialBlob.parse(*blob.to_tpm2bs()) == blob


def read_import(raw: bytes) -> ImportBlob:
    cursor = Cursor("three parts", raw)
    parts = [fields.tpm2b(cursor, "part") for _ in range(3)]
    cursor.end()
    return ImportBlob.parse(*parts)


def check_import(raw: bytes, blob: ImportBlob) -> None:
    assert b"".join(blob.to_tpm2bs()) == raw
    assert len(blob.name) == 34


class _Recording:
    """A transport whose TPM gives the answers that lie in some bytes, one after another."""

    def __init__(self, answers: bytes) -> None:
        self._answers = answers

    def exchange(self, command: bytes, *, timeout_s: float) -> bytes:
        assert len(command) <= 4096
        assert timeout_s > 0
        size = int.from_bytes(self._answers[2:6], "big")
        if not 10 <= size <= len(self._answers):
            raise unavailable(TpmCause.GONE, "the recording ends")
        answer, self._answers = self._answers[:size], self._answers[size:]
        return answer

    def close(self) -> None: ...


def _satisfy_policy(tpm: Tpm) -> None:
    with tpm.policy_session(0x000B) as session:
        tpm.policy_secret(session, ENDORSEMENT)


# What is asked of the TPM; the first byte of an input chooses.
QUESTIONS: tuple[Callable[[Tpm], Any], ...] = (
    lambda tpm: tpm.startup(),
    lambda tpm: tpm.create_primary(ENDORSEMENT, QUOTE_AK),
    lambda tpm: tpm.read_public(TRANSIENT),
    lambda tpm: tpm.quote(TRANSIENT, QUOTE_NONCE, QUOTED),
    lambda tpm: tpm.certify(TRANSIENT, TRANSIENT + 1),
    lambda tpm: tpm.pcr_read(QUOTED),
    lambda tpm: tpm.pcr_banks(),
    lambda tpm: tpm.nv_read(NV_INDEX),
    lambda tpm: tpm.context_save(TRANSIENT),
    lambda tpm: tpm.handles(TRANSIENT),
    lambda tpm: tpm.properties(0x100, 8),
    _satisfy_policy,
)


def read_answers(raw: bytes) -> object:
    tpm = Tpm(_Recording(raw[1:]), timeout_s=_TIMEOUT_S)
    return QUESTIONS[raw[0] % len(QUESTIONS) if raw else 0](tpm)


def check_answers(raw: bytes, _: object) -> None:
    assert len(raw) > 10


TPM_TARGETS: dict[str, Target[Any]] = {
    "tpmt-public": Target(TpmtPublic.parse, (WireError,), check_key),
    "tpm2b-public": Target(TpmtPublic.from_tpm2b, (WireError,), check_tpm2b),
    "attest": Target(Attest.parse, (WireError,), check_attest),
    "tpmt-signature": Target(parse_signature, (WireError,), check_signature),
    "pcr-selection": Target(read_selection, (WireError,), check_selection),
    "credential-file": Target(CredentialBlob.from_tools_file, (WireError,), check_credential),
    "import-blob": Target(read_import, (WireError,), check_import),
    "tpm-answers": Target(read_answers, (TpmRefusedError, TpmUnavailableError), check_answers),
}
