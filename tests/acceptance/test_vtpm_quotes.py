"""Quotes of tpm2_quote, changed in one place at a time, over HTTP: nothing changed is affirmed."""

import os
import struct
from typing import Any

import pytest

from tests.acceptance.both_roles import objections, refused
from tests.acceptance.good_session import Good, flipped
from tests.acceptance.tool_guest import Json, b64, unb64

# --- signatures ---------------------------------------------------------------------------------


def test_signatures_that_are_well_formed_and_wrong(good: Good) -> None:
    signature = good.part("signature")
    r, s = signature[6:38], signature[40:72]
    head = bytes.fromhex("0018 000b")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    wrong = {
        "zeros": head + 2 * (b"\0\x20" + bytes(32)),
        "of the size of P-384": head + 2 * (b"\0\x30" + b"\xff" * 48),
        "exchanged": head + b"\0\x20" + s + b"\0\x20" + r,
        "beyond the order": head + b"\0\x21" + b"\1" + bytes(32) + b"\0\x20" + s,
        "a bit flipped": flipped(signature, 71),
        "of another hash": bytes.fromhex("0018 000c") + signature[4:],
        "of RSA": bytes.fromhex("0014 000b 0100") + bytes(256),
        "an HMAC": bytes.fromhex("0005 000b") + bytes(32),
    }
    assert int.from_bytes(r, "big") < order
    for what, other in wrong.items():
        assert good.objections(good.quote(signature=other)) == {"vtpm.quote.signature": "failed"}, what


# --- selections, as only bytes can say them -----------------------------------------------------


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ("00000002 000b 03 ffffff 000b 03 ffffff", "bank sha256 is named twice"),
        ("00000000", "0 banks"),
        ("00000001 000b 03 000000", "selects nothing"),
        ("00000001 000b 04 ffffff00", "bitmap of 4 bytes"),
        ("00000001 000b 02 ffff", "bitmap of 2 bytes"),
        ("00000001 0004 03 ffffff", "SHA-1"),
        ("00000001 0012 03 ffffff", "bank 0x0012"),
        ("ffffffff 000b 03 ffffff", "4294967295 banks"),
    ],
)
def test_selections_that_no_bank_of_ours_has(good: Good, selection: str, words: str) -> None:
    attest = good.part("attest")
    plain = bytes.fromhex("00000001 000b 03 ffffff")
    assert attest.count(plain) == 1
    changed = good.quote(attest=attest.replace(plain, bytes.fromhex(selection)))
    problem = refused(good.roles.post("/verify", nonce=b64(good.nonce), evidence=changed))
    assert problem["pointer"] == "/evidence/quote/attest"
    assert words in problem["detail"]


# --- sizes --------------------------------------------------------------------------------------

# Spec ID event of a log with SHA-256 alone (TCG PC Client Platform Firmware Profile)
_SPEC_ID = b"Spec ID Event03\0" + bytes.fromhex("00000000 00 02 00 02 01000000 0b00 2000 00")
EMPTY_LOG = struct.pack("<II20xI", 0, 3, len(_SPEC_ID)) + _SPEC_ID


def event(pcr: int = 23, data: bytes = b"") -> bytes:
    return struct.pack("<IIIH", pcr, 13, 1, 0x0B) + bytes(32) + struct.pack("<I", len(data)) + data


def with_log(good: Good, log: bytes) -> Json:
    quote = {**good.evidence["quote"], "event_log": b64(log)}
    return {**good.evidence, "quote": quote}


def test_the_largest_log_that_an_attester_reads_fits_a_request(good: Good) -> None:
    verdict = good.verdict(with_log(good, EMPTY_LOG.ljust(1 << 19, b"\0")))
    assert objections(verdict) == {}
    assert "vtpm.event_log" in {one["check"] for one in verdict["findings"] if one["outcome"] == "passed"}
    answer = good.roles.post(
        "/verify", nonce=b64(good.nonce), evidence=with_log(good, EMPTY_LOG.ljust(1 << 20, b"\0"))
    )
    refused(answer, status=413, kind="evidence-too-large")


def test_a_log_of_more_events_than_are_read(good: Good) -> None:
    most = EMPTY_LOG + 8192 * event()
    assert good.objections(with_log(good, most)) == {}  # PCR 23 is nobody's: it need not be what is logged
    answer = good.roles.post("/verify", nonce=b64(good.nonce), evidence=with_log(good, most + event()))
    problem = refused(answer)
    assert (problem["pointer"], problem["byte_offset"]) == ("/evidence/quote/event_log", len(most))
    assert "more than 8192 events" in problem["detail"]


def test_a_log_of_what_the_tpm_was_never_told(good: Good) -> None:
    assert good.objections(with_log(good, EMPTY_LOG + event(pcr=4))) == {"vtpm.event_log": "failed"}
    for trailing in (b"\1", b"\0\1", EMPTY_LOG):
        answer = good.roles.post(
            "/verify", nonce=b64(good.nonce), evidence=with_log(good, EMPTY_LOG + trailing)
        )
        assert refused(answer)["pointer"] == "/evidence/quote/event_log"


def test_registers_without_end(good: Good) -> None:
    nonce = b64(good.nonce)
    lists: list[Any] = [{"sha256": [0] * 30_000}, {"sha256": list(range(30_000))}, {"sha256": [1e300]}]
    for pcrs in lists:
        answer = good.roles.post("/verify", nonce=nonce, evidence=good.evidence, pcrs=pcrs)
        assert refused(answer, status=400, kind="malformed-request")["pointer"] == "/pcrs"
    many = {"sha256": {str(number): "00" * 32 for number in range(5000)}}
    quote = {**good.evidence["quote"], "pcrs": many}
    answer = good.roles.post("/verify", nonce=nonce, evidence={**good.evidence, "quote": quote})
    assert refused(answer)["pointer"] == "/evidence/quote/pcrs"


# --- bits ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def listed(good: Good) -> tuple[bytes, Json]:
    """A nonce, and evidence that takes no challenge, good for one verdict: its manifest lists both keys."""
    guest, nonce = good.guest, os.urandom(64)
    assert (guest.ek("ecc"), guest.ak()) == (good.ek, good.ak)
    sized = (len(key.public).to_bytes(2, "big") + key.public for key in (good.ek, good.ak))
    manifest = bytes.fromhex("00000001 00000002") + b"".join(sized)
    return nonce, guest.evidence(nonce, manifest, good.ak)


LISTS = {
    "version": 1,
    "id": "lists",
    "policy": {"vtpm": {"require_quote": True}},
    "reference_values": {"vtpm": {"manifest_versions": ["1"]}},
}


def test_a_manifest_that_lists_both_keys_is_a_proof(good: Good, listed: tuple[bytes, Json]) -> None:
    nonce, document = listed
    verdict = good.roles.verify(nonce, document, policy=LISTS)
    assert objections(verdict) == {"snp.measurement": "warned"}
    assert verdict["claims"]["vtpm"]["ak_binding"] == "manifest"


@pytest.mark.parametrize(("part", "size"), [("ak_public", 88), ("attest", 145), ("signature", 72)])
def test_no_bit_of_a_quote_can_be_changed(
    good: Good, listed: tuple[bytes, Json], part: str, size: int
) -> None:
    nonce, document = listed
    raw = unb64(document["quote"][part])
    assert len(raw) == size
    for offset in range(size):
        changed = b64(flipped(raw, offset, 1 << offset % 8))
        body = {**document, "quote": {**document["quote"], part: changed}}
        answer = good.roles.post("/verify", nonce=b64(nonce), evidence=body, policy=LISTS)
        if answer.status_code == 200:
            assert answer.json()["verdict"] == "contraindicated", offset
            assert answer.json()["claims"]["vtpm"]["pcrs"] is None
        else:
            assert refused(answer)["pointer"] == f"/evidence/quote/{part}"


def test_no_register_can_be_changed(good: Good, listed: tuple[bytes, Json]) -> None:
    nonce, document = listed
    for pcr, value in document["quote"]["pcrs"]["sha256"].items():
        other = {pcr: flipped(bytes.fromhex(value), int(pcr)).hex()}
        pcrs = {"sha256": document["quote"]["pcrs"]["sha256"] | other}
        body = {**document, "quote": {**document["quote"], "pcrs": pcrs}}
        verdict = good.roles.verify(nonce, body, policy=LISTS)
        assert objections(verdict) == {"snp.measurement": "warned", "vtpm.quote.digest": "failed"}
