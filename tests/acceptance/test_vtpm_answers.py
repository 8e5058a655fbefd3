"""Answers to challenges, and whose they are: over HTTP, with two TPMs and tpm2-tools on each."""

import concurrent.futures
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from app.evidence.simulator.launch import Launch
from app.evidence.simulator.processor import SecurityProcessor
from app.wire.bits import GuestPolicy
from tests.acceptance import session
from tests.acceptance.both_roles import BothRoles, objections, refused, why
from tests.acceptance.good_session import Good
from tests.acceptance.tool_guest import RSA, ToolGuest, b64, unb64
from tests.interop.software_tpm import software_tpm

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
