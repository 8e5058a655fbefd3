"""What is no quote at all: malformed parts, each named by its place."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.appraisal.quote import Quote
from app.errors import WireError
from app.wire.evidence import QuoteEvidence
from app.wire.tpm import algorithms as alg
from app.wire.tpm.attest import Attest, CertifyInfo
from app.wire.tpm.signature import HmacSignature
from tests.appraisal.measured import log, secure_boot
from tests.appraisal.quotes import AK, Making, rsa_ak

LOG = log(*secure_boot()).encode()
EVIDENCE = Making(event_log=LOG).evidence()
PARTS = ("ak_public", "attest", "signature", "event_log")


def refused(evidence: QuoteEvidence) -> WireError:
    with pytest.raises(WireError) as caught:
        Quote.parse(evidence)
    return caught.value


def put(part: str, change: Callable[[bytes], bytes]) -> QuoteEvidence:
    changed: dict[str, Any] = {part: change(getattr(EVIDENCE, part))}
    return replace(EVIDENCE, **changed)


def test_every_part_is_read() -> None:
    quote = Quote.parse(EVIDENCE)
    assert (quote.ak, quote.attest.attested) == (AK.public, quote.info)
    assert quote.event_log is not None
    assert quote.event_log.encode() == LOG
    assert Quote.parse(replace(EVIDENCE, event_log=None)).event_log is None


@pytest.mark.parametrize("part", PARTS)
def test_a_trailing_byte_is_refused_wherever_it_is(part: str) -> None:
    error = refused(put(part, lambda raw: raw + b"\x01"))
    assert error.pointer == f"/evidence/quote/{part}"
    assert "0x" in str(error)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("keep", [0, 1, 9])
def test_a_part_that_is_cut_short_is_refused(part: str, keep: int) -> None:
    assert refused(put(part, lambda raw: raw[:keep])).pointer == f"/evidence/quote/{part}"


def test_a_certification_is_no_quote() -> None:
    name = AK.public.name
    certified = replace(Attest.parse(EVIDENCE.attest), attested=CertifyInfo(name, name))
    error = refused(replace(EVIDENCE, attest=certified.encode()))
    assert (error.pointer, error.offset) == ("/evidence/quote/attest", 4)
    assert "want a quote" in error.reason


def test_what_no_tpm_made_is_no_quote() -> None:
    error = refused(put("attest", lambda raw: b"\xfe" + raw[1:]))
    assert "not made by a TPM" in error.reason


@pytest.mark.parametrize("part", ["attest", "signature", "ak_public"])
def test_sha_1_is_refused_by_name(part: str) -> None:
    evidence = EVIDENCE
    if part == "attest":  # the bank
        raw = evidence.attest.replace(b"\x00\x00\x00\x01\x00\x0b\x03", b"\x00\x00\x00\x01\x00\x04\x03")
    elif part == "signature":  # the hash of the scheme
        raw = b"\x00\x18\x00\x04" + evidence.signature[4:]
    else:  # the hash of the Name
        raw = evidence.ak_public[:2] + b"\x00\x04" + evidence.ak_public[4:]
    error = refused(put(part, lambda _: raw))
    assert error.pointer == f"/evidence/quote/{part}"
    assert "SHA-1" in error.reason


def test_an_hmac_is_a_signature_of_another_scheme_and_not_malformed() -> None:
    hmac = HmacSignature(alg.SHA256, bytes(32)).encode()
    assert Quote.parse(replace(EVIDENCE, signature=hmac)).signature.scheme == alg.HMAC


RSA = rsa_ak().public.encode()  # exponent at 18, modulus from 24
KEYS: list[tuple[bytes, str]] = [
    (RSA[:24] + bytes([RSA[24] & 0x7F | 0x40]) + RSA[25:], "2047 bits, keyBits says 2048"),
    (RSA[:18] + (3).to_bytes(4, "big") + RSA[22:], "exponent 3 is not 65537"),
    (AK.public.encode()[:-1] + bytes([AK.public.encode()[-1] ^ 1]), "not on P-256"),
    (RSA[:-1] + bytes([RSA[-1] ^ 1]), "modulus is even"),
]


@pytest.mark.parametrize(("key", "word"), KEYS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_key_that_is_none_is_refused(key: bytes, word: str) -> None:
    error = refused(replace(EVIDENCE, ak_public=key))
    assert (error.pointer, word in error.reason) == ("/evidence/quote/ak_public", True), error


def place_of_the_fault(evidence: QuoteEvidence) -> str | None:
    """None where every part can be read."""
    try:
        Quote.parse(evidence)
    except WireError as error:
        return str(error.pointer)
    return None


@given(part=st.sampled_from(PARTS), raw=st.binary(max_size=160))
def test_arbitrary_bytes_raise_only_a_wire_error_that_names_the_part(part: str, raw: bytes) -> None:
    assert place_of_the_fault(put(part, lambda _: raw)) in (None, f"/evidence/quote/{part}")


@given(
    part=st.sampled_from(PARTS), place=st.integers(min_value=0), flip=st.integers(min_value=1, max_value=255)
)
def test_one_changed_byte_raises_only_a_wire_error(part: str, place: int, flip: int) -> None:
    raw = bytearray(getattr(EVIDENCE, part))
    raw[place % len(raw)] ^= flip
    assert place_of_the_fault(put(part, lambda _: bytes(raw))) in (None, f"/evidence/quote/{part}")
