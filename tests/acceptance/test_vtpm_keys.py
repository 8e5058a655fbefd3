"""EKs and attestation keys that must not pass, over HTTP, each for its own reason and for no other.

Keys are of tpm2-tools on swtpm, changed by hand; tests/api/test_verify_quotes.py has more of the same
on the simulated VM's TPM.
"""

import functools
import hashlib
import os
import struct
import subprocess
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from tests.acceptance import session
from tests.acceptance.both_roles import BothRoles, objections, refused, why
from tests.acceptance.good_session import Good, patched
from tests.acceptance.tool_guest import P256, RESTRICTED, RSA, Json, Key, ToolGuest, b64, evidence

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
    ("ecc", 6 + 34, bytes(32), 6, "the point is not on P-256"),
    ("ecc", 0, (4).to_bytes(2, "big"), 6, "x has 32 bytes, P-384 has 48"),
    ("ecc", 0, (1).to_bytes(2, "big"), 0, "is neither P-256 nor P-384"),
]


@pytest.fixture(scope="module")
def keys(guest: ToolGuest) -> dict[str, tuple[bytes, bytes]]:
    """An EK and an attestation key of each kind."""
    return {kind: (guest.ek(kind).public, guest.ak(ak).public) for kind, ak in (("rsa", RSA), ("ecc", P256))}


@pytest.mark.parametrize(
    ("kind", "offset", "part", "place", "words"), FAULTS, ids=[f"{fault[0]}-{fault[1]}" for fault in FAULTS]
)
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
