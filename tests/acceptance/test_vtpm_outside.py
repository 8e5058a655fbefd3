"""An attester made of tpm2-tools, by docs/session.md alone, and the verifier over HTTP.

TPM, keys, quotes and answers are swtpm's and the tools'; the session is computed with hashlib. So a
mistake that attester and verifier of this repository share would show here.
"""

import hashlib
import os

import pytest

from tests.acceptance import session
from tests.acceptance.both_roles import BothRoles, objections
from tests.acceptance.tool_guest import P256, RSA, ToolGuest, b64, evidence, unb64
from tests.api.service import outcomes

EKS = {"rsa": ("L-1", 314), "ecc": ("L-2", 122), "ecc384": ("H-3", 170)}
QUOTE = ("ak", "ak_binding", "quote.signature", "quote.nonce", "quote.selection", "quote.digest")
ATTEMPTS = 4000  # a coordinate of two starts with a zero byte once in 128 keys: none at all is 2e-14


@pytest.mark.parametrize("method", ["activate", "import"])
@pytest.mark.parametrize("ak_kind", [P256, RSA])
@pytest.mark.parametrize("ek_kind", EKS)
def test_the_whole_chain(roles: BothRoles, guest: ToolGuest, ek_kind: str, ak_kind: str, method: str) -> None:
    ek, ak, nonce = guest.ek(ek_kind), guest.ak(ak_kind), os.urandom(64)
    template, size = EKS[ek_kind]
    assert len(ek.public) == size
    challenge = roles.challenge(ek.public, ak.public, method=method)
    activation = guest.activate(challenge) if method == "activate" else guest.certify(challenge)
    made = guest.evidence(nonce, ek.public, ak)
    verdict = roles.verify(nonce, made, activation=activation)
    assert objections(verdict) == {}
    assert (verdict["verdict"], verdict["genuine"]) == ("affirming", True)
    assert {outcomes(verdict)[f"vtpm.{check}"] for check in QUOTE} == {"passed"}
    claims = verdict["claims"]["vtpm"]
    assert (claims["ek_name"], claims["ek_template"]) == (ek.name.hex(), template)
    assert (claims["ak_name"], claims["ak_binding"]) == (ak.name.hex(), method)
    assert claims["pcrs"] == made["quote"]["pcrs"]


def test_a_key_to_import_needs_to_know_the_ek_only(roles: BothRoles, guest: ToolGuest) -> None:
    ek, ak, nonce = guest.ek(), guest.ak(), os.urandom(64)
    activation = guest.certify(roles.challenge(ek.public, None, method="import"))
    verdict = roles.verify(nonce, guest.evidence(nonce, ek.public, ak), activation=activation)
    assert (objections(verdict), verdict["verdict"]) == ({}, "affirming")


def test_coordinates_that_start_with_a_zero_byte(roles: BothRoles, guest: ToolGuest) -> None:
    """Of the EK and of the attestation key, which are the TPM's own, all the way."""
    ek, ak = guest.ek_with_a_leading_zero(ATTEMPTS), guest.ak_with_a_leading_zero(ATTEMPTS)
    assert ek is not None
    assert ak is not None
    for key in (ek, ak):
        assert 0 in (key.public[-66], key.public[-32])
        assert key.name == b"\0\x0b" + hashlib.sha256(key.public).digest()
    for method, answer in (("activate", guest.activate), ("import", guest.certify)):
        nonce = os.urandom(64)
        activation = answer(roles.challenge(ek.public, ak.public, method=method))
        verdict = roles.verify(nonce, guest.evidence(nonce, ek.public, ak), activation=activation)
        assert (objections(verdict), verdict["verdict"]) == ({}, "affirming")


@pytest.mark.parametrize("value", [hashlib.sha256(b"certificate").digest(), bytes(64)], ids=len)
def test_a_session_that_is_bound_to_a_certificate(roles: BothRoles, guest: ToolGuest, value: bytes) -> None:
    ek, ak, nonce = guest.ek(), guest.ak(), os.urandom(64)
    channel = (session.TLS_SERVER_END_POINT, value)
    data = session.report_data(session.report_nonce(nonce, ak.name, channel), ek.public)
    report = guest.report(data)
    quote = guest.quote(ak, session.qualifying(nonce, ak.name, report, channel))
    bound = evidence(report, ek.public, quote)

    def verify(seen: bytes) -> dict[str, str]:
        activation = guest.activate(roles.challenge(ek.public, ak.public))
        seen_channel = {"type": "tls-server-end-point", "value": b64(seen)}
        return objections(roles.verify(nonce, bound, activation=activation, channel_binding=seen_channel))

    assert verify(value) == {}
    unbound = {"snp.report_data": "failed", "vtpm.binding": "failed", "vtpm.quote.nonce": "failed"}
    assert verify(value[:-1] + b"\x01") == unbound
    assert verify(value[:-1]) == unbound


def test_a_challenge_also_comes_as_the_tools_own_file(roles: BothRoles, guest: ToolGuest) -> None:
    challenge = roles.challenge(guest.ek().public, guest.ak().public)
    parts = unb64(challenge["credential_blob"]) + unb64(challenge["encrypted_secret"])
    assert unb64(challenge["tools_file"]) == bytes.fromhex("badcc0de 00000001") + parts
