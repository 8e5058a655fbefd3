"""What must not pass, over HTTP, each for its own reason and for no other.

Keys, quotes and answers are of tpm2-tools on swtpm, changed by hand; tests/api/test_verify_quotes.py
has more of the same on the simulated VM's TPM.
"""

import concurrent.futures
import functools
import hashlib
import os
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from app.evidence.simulator.launch import Launch
from app.evidence.simulator.processor import SecurityProcessor
from app.wire.bits import GuestPolicy
from tests.acceptance import session
from tests.acceptance.both_roles import BothRoles, objections, refused, why
from tests.acceptance.tool_guest import (
    P256,
    RESTRICTED,
    RSA,
    Json,
    Key,
    ToolGuest,
    b64,
    evidence,
    unb64,
)
from tests.interop.software_tpm import software_tpm

BINDING = {"snp.report_data": "failed", "vtpm.binding": "failed"}


def flipped(raw: bytes, offset: int, mask: int = 1) -> bytes:
    return raw[:offset] + bytes([raw[offset] ^ mask]) + raw[offset + 1 :]


def patched(raw: bytes, offset: int, part: bytes) -> bytes:
    return raw[:offset] + part + raw[offset + len(part) :]


@dataclass(frozen=True)
class Good:
    """A session in which everything passes."""

    roles: BothRoles
    guest: ToolGuest
    ek: Key
    ak: Key
    nonce: bytes
    evidence: Json

    def activation(self) -> Json:
        """A fresh answer to a fresh challenge."""
        assert (self.guest.ek("ecc"), self.guest.ak()) == (self.ek, self.ak)
        return self.guest.activate(self.roles.challenge(self.ek.public, self.ak.public))

    def verdict(self, changed: Json | None = None, **more: Any) -> Json:
        more = more or {"activation": self.activation()}
        return self.roles.verify(self.nonce, changed or self.evidence, **more)

    def objections(self, changed: Json | None = None, **more: Any) -> dict[str, str]:
        return objections(self.verdict(changed, **more))

    def quote(self, **changed: bytes) -> Json:
        """The evidence with other parts of its quote."""
        parts = {name: b64(part) for name, part in changed.items()}
        return {**self.evidence, "quote": {**self.evidence["quote"], **parts}}

    def part(self, name: str) -> bytes:
        return unb64(self.evidence["quote"][name])


@pytest.fixture(scope="module")
def good(roles: BothRoles, guest: ToolGuest) -> Good:
    ek, ak, nonce = guest.ek("ecc"), guest.ak(), os.urandom(64)
    made = Good(roles, guest, ek, ak, nonce, guest.evidence(nonce, ek.public, ak))
    assert made.objections() == {}
    return made


# --- the EK -------------------------------------------------------------------------------------

# fixedTPM stClear fixedParent sensitiveDataOrigin userWithAuth adminWithPolicy noDA
# encryptedDuplication restricted decrypt sign x509sign (TPM 2.0 Library, Part 2, 8.3)
ATTRIBUTES = {1, 2, 4, 5, 6, 7, 10, 11, 16, 17, 18, 19}


@pytest.mark.parametrize("kind", ["rsa", "ecc", "ecc384"])
def test_an_ek_with_one_attribute_bit_changed(roles: BothRoles, guest: ToolGuest, kind: str) -> None:
    ek, ak = guest.ek(kind).public, guest.ak().public
    attributes = int.from_bytes(ek[4:8], "big")
    for bit in range(32):
        other = patched(ek, 4, (attributes ^ 1 << bit).to_bytes(4, "big"))
        nonce = os.urandom(64)
        document = {"report": b64(roles.report(session.report_data(nonce, other))), "manifest": b64(other)}
        answer = roles.post("/verify", nonce=b64(nonce), evidence=document)
        if bit in ATTRIBUTES:
            assert answer.status_code == 200, answer.text
            assert objections(answer.json()) == {"vtpm.ek_template": "failed"}, bit
            assert answer.json()["verdict"] == "contraindicated"
        else:
            problem = refused(answer)
            assert (problem["pointer"], problem["byte_offset"]) == ("/evidence/manifest", 4), bit
            assert "undefined bit" in problem["detail"]
        for method in ("activate", "import"):
            challenge = {"ek_public": b64(other), "ak_public": b64(ak), "method": method}
            problem = refused(roles.post("/ak-challenges", **challenge))
            assert (problem["pointer"], problem["structure"]) == ("/ek_public", "TPMT_PUBLIC"), bit


# Where keyBits, or the curve, stands: after a policy of 32 bytes and AES, or after neither.
EK_AT, AK_AT = 50, 16
FAULTS: list[tuple[str, int, bytes, int, str]] = [  # of which key; from there; place, from there; words
    ("rsa", 8, b"\x7f", 8, "modulus has 2047 bits"),
    ("rsa", 0, (2047).to_bytes(2, "big"), 0, "RSA-2047 is not supported"),
    ("rsa", 2, (3).to_bytes(4, "big"), 2, "exponent 3 is not 65537"),
    ("rsa", 8 + 255, b"\0", 8 + 255, "modulus is even"),
    ("ecc", 6, b"\xff" * 32, 6, "the point is not on P-256"),
    ("ecc", 6, bytes(32), 6, "the point is not on P-256"),
    ("ecc", 6 + 34, bytes(32), 6, "the point is not on P-256"),
    ("ecc", 0, (4).to_bytes(2, "big"), 6, "x has 32 bytes, P-384 has 48"),
    ("ecc", 0, (1).to_bytes(2, "big"), 0, "is neither P-256 nor P-384"),
]


@pytest.fixture(scope="module")
def keys(guest: ToolGuest) -> dict[str, tuple[bytes, bytes]]:
    """An EK and an attestation key of each kind."""
    return {kind: (guest.ek(kind).public, guest.ak(ak).public) for kind, ak in (("rsa", RSA), ("ecc", P256))}


@pytest.mark.parametrize(("kind", "offset", "part", "place", "words"), FAULTS)
def test_keys_that_are_none(
    good: Good,
    keys: dict[str, tuple[bytes, bytes]],
    kind: str,
    offset: int,
    part: bytes,
    place: int,
    words: str,
) -> None:
    """As EK in a manifest that a genuine report binds, as EK to be challenged, and as attestation key."""
    ek, ak = keys[kind]
    other, roles, nonce = patched(ek, EK_AT + offset, part), good.roles, b64(good.nonce)
    report = roles.report(session.report_data(good.nonce, other))
    document = {"report": b64(report), "manifest": b64(other)}
    changed = good.quote(ak_public=patched(ak, AK_AT + offset, part))
    for answer, pointer, start in (
        (roles.post("/verify", nonce=nonce, evidence=document), "/evidence/manifest", EK_AT),
        (roles.post("/ak-challenges", ek_public=b64(other), ak_public=b64(ak)), "/ek_public", EK_AT),
        (roles.post("/verify", nonce=nonce, evidence=changed), "/evidence/quote/ak_public", AK_AT),
    ):
        problem = refused(answer)
        assert (problem["pointer"], problem["structure"]) == (pointer, "TPMT_PUBLIC")
        assert problem["byte_offset"] == start + place
        assert words in problem["detail"]


# --- the attestation key ------------------------------------------------------------------------


def statement(good: Good, ak: Key, values: dict[str, str]) -> bytes:
    """A TPMS_ATTEST as a TPM would make it, about registers that it never had."""
    data = session.report_data(session.report_nonce(good.nonce, ak.name), good.ek.public)
    report = good.roles.report(data)
    qualified = b"\0\x0b" + hashlib.sha256(bytes.fromhex("4000000b") + ak.name).digest()
    extra = session.qualifying(good.nonce, ak.name, report)
    digest = hashlib.sha256(bytes.fromhex("".join(values[str(pcr)] for pcr in range(24)))).digest()
    return report + b"".join(
        (
            bytes.fromhex("ff544347 8018"),
            b"\0\x22" + qualified,
            b"\0\x20" + extra,
            struct.pack(">QIIBQ", 120_000, 1, 0, 1, 0x2019102300163636),
            bytes.fromhex("00000001 000b 03 ffffff 0020") + digest,
        )
    )


WISHED = {str(pcr): hashlib.sha256(bytes([pcr])).hexdigest() for pcr in range(24)}
REPORT_SIZE = 1184


def forged(good: Good, ak: Key, sign: Any) -> Json:
    """Evidence in which registers hold what somebody wishes."""
    both = statement(good, ak, WISHED)
    report, attest = both[:REPORT_SIZE], both[REPORT_SIZE:]
    quote = {"ak_public": b64(ak.public), "attest": b64(attest), "signature": b64(sign(attest))}
    return evidence(report, good.ek.public, {**quote, "pcrs": {"sha256": WISHED}})


def test_a_statement_that_the_guest_wrote_itself(good: Good) -> None:
    """A TPM signs it with a key that is not restricted, and with one that is it does not."""
    guest = good.guest

    def sign(attest: bytes) -> bytes:
        guest.tools.write("message", attest)
        how = ("-c", "ak.ctx", "-g", "sha256", "-f", "tss", "-o", "signature", "message")
        guest.tools.run("tpm2_sign", "-Q", *how)
        return guest.tools.read("signature")

    guest.ek("ecc")
    loose = guest.ak(attributes=RESTRICTED.replace("|restricted", ""))
    document = forged(good, loose, sign)
    activation = guest.activate(good.roles.challenge(good.ek.public, loose.public))
    verdict = good.roles.verify(good.nonce, document, activation=activation)
    assert objections(verdict) == {"vtpm.ak": "failed"}
    assert "restricted is clear" in why(verdict, "vtpm.ak")
    assert verdict["claims"]["vtpm"]["pcrs"] is None
    restricted = guest.ak()
    with pytest.raises(subprocess.CalledProcessError, match="tpm2_sign"):
        forged(good, restricted, sign)


def software_key(public: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> Key:
    """A public area that says all that an attestation key's should, of a key that is in no TPM."""
    numbers = public.public_numbers()
    head = "000b 00050072 0000 0010"
    if isinstance(numbers, rsa.RSAPublicNumbers):
        exponent = 0 if numbers.e == 65537 else numbers.e
        parameters = bytes.fromhex(f"0001 {head} 0014 000b 0800 {exponent:08x} 0100")
        area = parameters + numbers.n.to_bytes(256, "big")
    else:
        point = (b"\0\x20" + number.to_bytes(32, "big") for number in (numbers.x, numbers.y))
        area = bytes.fromhex(f"0023 {head} 0018 000b 0003 0010") + b"".join(point)
    return Key(area, b"\0\x0b" + hashlib.sha256(area).digest())


def ecdsa(private: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    der = private.sign(message, ec.ECDSA(hashes.SHA256()))
    first = 4 + der[3]
    parts = (der[4:first], der[first + 2 :])
    sized = (b"\0\x20" + part[-32:].rjust(32, b"\0") for part in parts)
    return bytes.fromhex("0018 000b") + b"".join(sized)


def test_a_key_of_software_that_says_it_is_a_tpms(good: Good) -> None:
    """A TPM takes its public area in, but opens no credential for a key that it has not got."""
    guest = good.guest
    private = ec.generate_private_key(ec.SECP256R1())
    soft = software_key(private.public_key())
    document = forged(good, soft, functools.partial(ecdsa, private))
    guest.ek("ecc")
    guest.tools.write("soft", len(soft.public).to_bytes(2, "big") + soft.public)
    guest.tools.run("tpm2_loadexternal", "-Q", "-C", "e", "-u", "soft", "-c", "ak.ctx")
    challenge = good.roles.challenge(good.ek.public, soft.public)
    with pytest.raises(subprocess.CalledProcessError, match="tpm2_activatecredential"):
        guest.activate(challenge)
    imported = good.roles.challenge(good.ek.public, None, method="import")
    with pytest.raises(subprocess.CalledProcessError, match="tpm2_certify"):
        guest.certify(imported)
    guessed = {"challenge": challenge["challenge"], "secret": b64(os.urandom(32))}
    verdict = good.roles.verify(good.nonce, document, activation=guessed)
    assert objections(verdict) == {"vtpm.ak_binding": "failed"}
    assert verdict["claims"]["vtpm"]["pcrs"] is None


def test_a_key_whose_exponent_is_3_although_it_signs_well(good: Good) -> None:
    private = rsa.generate_private_key(3, 2048)

    def sign(message: bytes) -> bytes:
        signature = private.sign(message, padding.PKCS1v15(), hashes.SHA256())
        return bytes.fromhex("0014 000b 0100") + signature

    document = forged(good, software_key(private.public_key()), sign)
    answer = good.roles.post("/verify", nonce=b64(good.nonce), evidence=document)
    problem = refused(answer)
    assert (problem["pointer"], problem["byte_offset"]) == ("/evidence/quote/ak_public", 18)
    assert "exponent 3" in problem["detail"]


# --- which TPM ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stranger(roles: BothRoles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToolGuest]:
    """Another VM, with a TPM of its own."""
    with software_tpm(tmp_path_factory.mktemp("stranger")) as tools:
        yield ToolGuest(tools, roles.report)


def test_a_certification_by_another_vms_tpm(good: Good, stranger: ToolGuest) -> None:
    own_ek, own_ak = stranger.ek("ecc"), stranger.ak()
    with pytest.raises(subprocess.CalledProcessError, match="tpm2_import"):
        stranger.certify(good.roles.challenge(good.ek.public, None, method="import"))
    activation = stranger.certify(good.roles.challenge(own_ek.public, None, method="import"))
    document = stranger.evidence(good.nonce, good.ek.public, own_ak)
    verdict = good.roles.verify(good.nonce, document, activation=activation)
    assert objections(verdict) == {"vtpm.ak_binding": "failed"}
    assert "another EK" in why(verdict, "vtpm.ak_binding")


@pytest.mark.parametrize("named", [True, False])
def test_a_certification_of_another_key(good: Good, named: bool) -> None:  # noqa: FBT001
    """Of a key that the challenge named, and of one that it left open."""
    guest = good.guest
    guest.ek("ecc")
    other = guest.ak(RSA)
    challenge = good.roles.challenge(good.ek.public, good.ak.public if named else None, method="import")
    verdict = good.verdict(activation=guest.certify(challenge))
    assert objections(verdict) == {"vtpm.ak_binding": "failed"}
    assert "another key" in why(verdict, "vtpm.ak_binding")
    assert other != good.ak


def test_the_guests_own_word_for_an_ek(good: Good, stranger: ToolGuest) -> None:
    """Software at VMPL 2 has a TPM of its own make, and a genuine report about its EK."""
    ek, ak = stranger.ek("ecc"), stranger.ak()
    activation = stranger.activate(good.roles.challenge(ek.public, ak.public))
    data = session.report_data(session.report_nonce(good.nonce, ak.name), ek.public)
    document = stranger.evidence(good.nonce, ek.public, ak, report=good.roles.report(data, vmpl=2))
    verdict = good.roles.verify(good.nonce, document, activation=activation)
    assert objections(verdict) == {"snp.vmpl": "failed", "vtpm.binding": "failed"}
    assert verdict["genuine"] is True
    assert verdict["claims"]["vtpm"]["pcrs"] is None


def test_a_quote_lent_to_the_report_of_another_launch(good: Good) -> None:
    """The same nonce, key and manifest, and so the same REPORT_DATA."""
    better = launched(good, replace(good.roles.simulator.launch, guest_svn=99))
    data = session.report_data(session.report_nonce(good.nonce, good.ak.name), good.ek.public)
    assert unb64(good.evidence["report"])[0x50:0x90] == data
    changed = {**good.evidence, "report": b64(better.report(data, 0))}
    assert good.objections(changed) == {"vtpm.quote.nonce": "failed"}


def launched(good: Good, launch: Launch) -> SecurityProcessor:
    """The same chip with another guest on it."""
    processor = good.roles.simulator.processor
    return SecurityProcessor(processor.line, processor._secret, launch=launch)


def test_what_a_debugger_may_have_made_is_not_claimed(good: Good) -> None:
    debug = launched(good, replace(good.roles.simulator.launch, policy=GuestPolicy.parse(0x30000 | 1 << 19)))
    data = session.report_data(session.report_nonce(good.nonce, good.ak.name), good.ek.public)
    activation = good.activation()
    report = debug.report(data, 0)
    document = good.guest.evidence(good.nonce, good.ek.public, good.ak, report=report)
    verdict = good.roles.verify(good.nonce, document, activation=activation)
    assert objections(verdict) == {"snp.policy.debug": "failed"}
    assert verdict["claims"]["vtpm"]["pcrs"] is None


# --- answers ------------------------------------------------------------------------------------


def test_a_byte_too_many_in_an_answer(good: Good) -> None:
    guest, nonce = good.guest, b64(good.nonce)
    activation = good.activation()
    longer = {**activation, "secret": b64(unb64(activation["secret"]) + b"\0")}
    assert good.objections(activation=longer) == {"vtpm.ak_binding": "failed"}

    certified = guest.certify(good.roles.challenge(good.ek.public, good.ak.public, method="import"))
    for name in ("certify_info", "signature"):
        raw = unb64(certified[name])
        for changed, place in ((raw + b"\0", len(raw)), (raw[:-1], None)):
            body = {**certified, name: b64(changed)}
            problem = refused(
                good.roles.post("/verify", nonce=nonce, evidence=good.evidence, activation=body)
            )
            assert problem["pointer"] == f"/activation/{name}"
            if place is not None:
                assert problem["byte_offset"] == place
    # None of this has used the challenge up.
    assert good.objections(activation=certified) == {}
    assert good.objections(activation=certified) == {"vtpm.ak_binding": "failed"}


def test_of_many_requests_with_one_answer_one_is_affirmed(good: Good) -> None:
    activation = good.activation()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: good.verdict(activation=activation)["verdict"], range(8)))
    assert sorted(found) == ["affirming", *["contraindicated"] * 7]


def test_an_answer_to_a_challenge_of_nobody(good: Good) -> None:
    activation = good.activation()
    for name in (activation["challenge"] + "A", activation["challenge"][:-1], "x", "\u00e9" * 64):
        assert good.objections(activation={**activation, "challenge": name}) == {"vtpm.ak_binding": "failed"}
    assert good.objections(activation=activation) == {}


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


@pytest.mark.parametrize("offset", [6, 50, 90, 100, 110, 144])
def test_a_bit_of_the_statement(good: Good, offset: int) -> None:
    """Whatever it says then, the signature does not hold; what is malformed has no verdict."""
    answer = good.roles.post(
        "/verify", nonce=b64(good.nonce), evidence=good.quote(attest=flipped(good.part("attest"), offset))
    )
    if answer.status_code == 200:
        assert objections(answer.json())["vtpm.quote.signature"] == "failed"
        assert answer.json()["claims"]["vtpm"]["pcrs"] is None
    else:
        assert refused(answer)["pointer"] == "/evidence/quote/attest"


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
