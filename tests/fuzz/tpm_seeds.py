"""Valid inputs to start from for everything about a TPM."""

import hashlib
import struct
from collections.abc import Iterator

from tests.fuzz.tpm_targets import NV_INDEX
from tests.wire.samples import COUNTING_EK, SWTPM_EK, p256_ek, p384_ek, signing_key, sized
from tests.wire.tpm import statements as of

KEYS = (SWTPM_EK, COUNTING_EK, p256_ek(), p384_ek(), signing_key(), signing_key(curve="P-384"))

_ACKNOWLEDGED = bytes.fromhex("0000 01 0000")
_QUALIFIED = of.QUOTE[6:42]  # a TPM2B_NAME


def tpm_seeds() -> Iterator[tuple[str, bytes]]:
    """(target, input) for every target about a TPM."""
    for key in KEYS:
        yield "tpmt-public", key
        yield "tpm2b-public", sized(key)
    for statement in (of.QUOTE, of.CERTIFY, of.LARGEST_QUOTE):
        yield "attest", statement
    for signature in (of.QUOTE_SIGNATURE, of.RSASSA, of.RSAPSS, of.ECDSA, of.HMAC):
        yield "tpmt-signature", signature
    for selection in ("00000001 000b 03 ffffff", "00000003 000b03ffffff 000d03800000 000c03000001"):
        yield "pcr-selection", bytes.fromhex(selection)
    for secret in (bytes(range(256)), bytes(384), of.POINT):
        yield "credential-file", of.TOOLS_HEAD + sized(of.ID_OBJECT) + sized(secret)
        yield "import-blob", sized(of.HMAC_KEY) + sized(of.DUPLICATE) + sized(secret)
    for question, answers in enumerate(_answers()):
        yield "tpm-answers", bytes([question]) + answers


def _answers() -> Iterator[bytes]:
    """What a TPM says to each of the QUESTIONS, in their order."""
    name = b"\x00\x0b" + hashlib.sha256(of.QUOTE_AK).digest()
    ticket = bytes.fromhex("8021 4000000b") + sized(bytes(32))
    creation = sized(bytes(64)) + sized(bytes(32)) + ticket
    yield _bare(b"")
    yield _authorized(sized(of.QUOTE_AK) + creation + sized(name), handle=0x80000000)
    yield _bare(sized(of.QUOTE_AK) + sized(name) + _QUALIFIED)
    yield _authorized(sized(of.QUOTE) + of.QUOTE_SIGNATURE)
    certified = of.statement("8017", sized(of.NAME) + sized(of.NAME))
    yield _authorized(sized(certified) + of.QUOTE_SIGNATURE, sessions=2)
    values = b"".join(sized(value) for value in of.QUOTE_PCRS.values())
    yield _bare(bytes.fromhex("00000007 00000001 000b 03 870001 00000005") + values)
    yield _bare(bytes.fromhex("00 00000005 00000002 000b 03 ffffff 000c 03 000000"))
    public = struct.pack(">IHI", NV_INDEX, 0x000B, 0x22040004 | 1 << 29) + sized(b"") + b"\x00\x05"
    nv_name = b"\x00\x0b" + hashlib.sha256(public).digest()
    yield _bare(sized(public) + sized(nv_name)) + _authorized(sized(b"hello"))
    yield _bare(bytes.fromhex("0000000000000001 80000000 4000000b") + sized(bytes(100)))
    yield _bare(bytes.fromhex("00 00000001 00000002 80000000 80000001"))
    yield _bare(bytes.fromhex("00 00000006 00000002 00000100 322e3000 00000102 000000a4"))
    flushed = _bare(b"")
    secret = _authorized(sized(b"") + bytes.fromhex("8023 4000000b 0000"))
    yield _bare(sized(bytes(16)), handle=0x03000000) + secret + flushed


def _bare(parameters: bytes, *, handle: int | None = None) -> bytes:
    body = (b"" if handle is None else handle.to_bytes(4, "big")) + parameters
    return struct.pack(">HII", 0x8001, 10 + len(body), 0) + body


def _authorized(parameters: bytes, *, handle: int | None = None, sessions: int = 1) -> bytes:
    head = b"" if handle is None else handle.to_bytes(4, "big")
    body = head + struct.pack(">I", len(parameters)) + parameters + sessions * _ACKNOWLEDGED
    return struct.pack(">HII", 0x8002, 10 + len(body), 0) + body
