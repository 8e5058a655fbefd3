"""Keys and quotes that tpm2-tools made with a real TPM, sent to the verifier as its users would.

The TPM is the simulated VM's, so that reports vouch for its EK; the attester's own routes are not
asked. tests/api/test_quote_faults.py has the exchange through these.
"""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.api.evidence_document import EvidenceDocument
from app.evidence.simulator.backend import SimulatorBackend
from app.main import create_app
from app.wire import b64
from app.wire.evidence import Binding, Evidence, QuoteEvidence
from app.wire.evidence import Service as Vouched
from app.wire.session import Session
from app.wire.tpm import algorithms as alg
from app.wire.tpm.attest import Attest
from app.wire.tpm.pcr import PcrSelection, PcrValues
from app.wire.tpm.public import TpmtPublic
from tests.api.service import Service, new_nonce, outcomes, problem
from tests.api.services import SettingsMaker
from tests.interop.software_tpm import SoftwareTpm, demand, software_tpm
from tests.interop.tool_bridge import tool_bridge

RESTRICTED = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign"
ALL = PcrSelection.of({"sha256": range(24)})
FEW = PcrSelection.of({"sha256": [0, 4, 7]})
TWO_BANKS = PcrSelection.of({"sha384": [7], "sha256": [0, 7]})
QUOTE = ("ak", "ak_binding", "quote.signature", "quote.nonce", "quote.selection", "quote.digest")


@dataclass
class Guest:
    """The tools in a VM, whose SVSM is the simulator."""

    tools: SoftwareTpm
    service: Service
    simulator: SimulatorBackend

    def ek(self) -> TpmtPublic:
        return TpmtPublic.parse(self.report(new_nonce()).manifest or b"")

    def ak(
        self,
        *,
        tools: SoftwareTpm | None = None,
        hierarchy: str = "e",
        kind: str = "ecc256:ecdsa-sha256:null",
        attributes: str = RESTRICTED,
    ) -> TpmtPublic:
        """A primary key, which is the one to quote with from now on."""
        tools = tools or self.tools
        made = ("-C", hierarchy, "-G", kind, "-a", attributes, "-c", "ak.ctx")
        tools.run("tpm2_createprimary", "-Q", *made)
        return self._read_ak(tools)

    def ak_below_ek(self) -> TpmtPublic:
        """The key that tpm2_createak makes: a child of the EK."""
        self.tools.run("tpm2_createek", "-Q", "-G", "rsa", "-c", "ek.ctx")
        self.tools.run("tpm2_createak", "-Q", "-C", "ek.ctx", "-G", "ecc", "-g", "sha256", "-c", "ak.ctx")
        return self._read_ak(self.tools)

    @staticmethod
    def _read_ak(tools: SoftwareTpm) -> TpmtPublic:
        tools.run("tpm2_readpublic", "-Q", "-c", "ak.ctx", "-f", "tpmt", "-o", "ak")
        return TpmtPublic.parse(tools.read("ak"))

    def report(self, nonce: bytes) -> Evidence:
        return self.service.run(self.simulator.collect(nonce, Vouched.VTPM))

    def quote(
        self, ak: TpmtPublic, qualifying: bytes, pcrs: PcrSelection = ALL, *, tools: SoftwareTpm | None = None
    ) -> QuoteEvidence:
        tools = tools or self.tools
        listed = "+".join(f"{bank.name}:{','.join(map(str, bank.pcrs))}" for bank in pcrs.banks)
        files = ("-m", "attest", "-s", "signature")
        how = ["-g", alg.HASH_NAMES[ak.scheme_hash or 0]]
        how += ["--scheme", "rsapss"] if ak.scheme == alg.RSAPSS else []
        tools.run("tpm2_quote", "-Q", "-c", "ak.ctx", "-l", listed, "-q", qualifying.hex(), *how, *files)
        return QuoteEvidence(
            ak_public=ak.encode(),
            attest=tools.read("attest"),
            signature=tools.read("signature"),
            pcrs=self.values(pcrs, tools),
        )

    @staticmethod
    def values(pcrs: PcrSelection, tools: SoftwareTpm) -> PcrValues:
        banks: dict[str, dict[int, bytes]] = {}
        for bank in pcrs.banks:
            tools.run("tpm2_pcrread", "-Q", f"{bank.name}:{','.join(map(str, bank.pcrs))}", "-o", "values")
            raw = tools.read("values")
            size = len(raw) // len(bank.pcrs)
            banks[bank.name] = {pcr: raw[size * i :][:size] for i, pcr in enumerate(bank.pcrs)}
        return PcrValues.of(banks)

    def evidence(
        self, nonce: bytes, ak: TpmtPublic, pcrs: PcrSelection = ALL, *, tools: SoftwareTpm | None = None
    ) -> dict[str, Any]:
        """Report first, then the quote beside it, as the session has it."""
        session = Session(nonce, ak.name)
        found = self.report(session.report_nonce)
        quote = self.quote(ak, session.qualifying_data(found.report), pcrs, tools=tools)
        return document(found, quote)

    def challenge(self, ak: TpmtPublic, ek: TpmtPublic | None = None, **more: str) -> dict[str, Any]:
        keys = {"ek_public": (ek or self.ek()).encode(), "ak_public": ak.encode()}
        encoded = {name: b64.encode(key) for name, key in keys.items()}
        answer = self.service.post("/ak-challenges", json=encoded | more)
        assert answer.status_code == 200, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def activate(self, challenge: dict[str, Any], tools: SoftwareTpm | None = None) -> dict[str, str]:
        """The answer that tpm2_activatecredential gives."""
        tools = tools or self.tools
        tools.run("tpm2_createek", "-Q", "-G", "rsa", "-c", "ek.ctx")
        blob = tools.write("blob", b64.decode(challenge["tools_file"]))
        tools.run("tpm2_startauthsession", "--policy-session", "-S", "session")
        try:
            tools.run("tpm2_policysecret", "-Q", "-S", "session", "-c", "e")
            keys = ("-c", "ak.ctx", "-C", "ek.ctx", "-P", "session:session")
            tools.run("tpm2_activatecredential", "-Q", *keys, "-i", blob, "-o", "secret")
        finally:
            tools.run("tpm2_flushcontext", "session")
        secret = tools.read("secret")
        assert len(secret) == 32
        return {"challenge": challenge["challenge"], "secret": b64.encode(secret)}

    def post(self, nonce: bytes, evidence: dict[str, Any], **more: Any) -> Any:
        return self.service.post("/verify", json={"nonce": b64.encode(nonce), "evidence": evidence, **more})

    def verify(self, nonce: bytes, evidence: dict[str, Any], **more: Any) -> dict[str, Any]:
        answer = self.post(nonce, evidence, **more)
        assert answer.status_code == 200, answer.text
        verdict: dict[str, Any] = answer.json()
        return verdict


def document(found: Evidence, quote: QuoteEvidence) -> dict[str, Any]:
    whole = Evidence(
        report=found.report,
        manifest=found.manifest,
        certificates=found.certificates,
        binding=Binding.SESSION,
        quote=quote,
    )
    return EvidenceDocument.from_evidence(whole).model_dump(mode="json", by_alias=True)


def with_quote(evidence: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {**evidence, "quote": {**evidence["quote"], **members}}


@pytest.fixture(scope="module")
def guest(new_settings: SettingsMaker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    demand("swtpm", "tpm2_quote")
    with Service(create_app(new_settings(allow_simulator=True))) as service:
        simulator: SimulatorBackend = service.state["simulator"]
        assert simulator.vtpm is not None
        with tool_bridge(tmp_path_factory.mktemp("tools"), simulator.vtpm.open()) as tools:
            yield Guest(tools, service, simulator)


@pytest.fixture(scope="module")
def other_tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareTpm]:
    """The TPM of another VM."""
    with software_tpm(tmp_path_factory.mktemp("other")) as running:
        yield running


def not_passed(verdict: dict[str, Any]) -> dict[str, str]:
    found = outcomes(verdict)
    del found["snp.simulated"]
    return {check: outcome for check, outcome in found.items() if outcome in {"failed", "warned"}}


# --- what holds ---------------------------------------------------------------------------------

KINDS = (
    "ecc256:ecdsa-sha256:null",
    "rsa2048:rsassa-sha256:null",
    "rsa2048:rsapss-sha256:null",
    "ecc384:ecdsa-sha384:null",
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_and_a_quote_of_tpm2_tools(guest: Guest, kind: str) -> None:
    ak, nonce = guest.ak(kind=kind), new_nonce()
    activation = guest.activate(guest.challenge(ak))
    evidence = guest.evidence(nonce, ak)
    verdict = guest.verify(nonce, evidence, activation=activation)
    assert not_passed(verdict) == {}
    assert verdict["verdict"] == "affirming"
    assert {outcomes(verdict)[f"vtpm.{check}"] for check in QUOTE} == {"passed"}
    claims = verdict["claims"]["vtpm"]
    assert (claims["ak_name"], claims["ak_binding"]) == (ak.name.hex(), "activate")
    assert claims["pcrs"] == evidence["quote"]["pcrs"]


@pytest.mark.parametrize("pcrs", [FEW, TWO_BANKS, PcrSelection.of({"sha384": [0, 23]})], ids=str)
def test_other_registers_where_they_were_asked_for(guest: Guest, pcrs: PcrSelection) -> None:
    ak, nonce = guest.ak(), new_nonce()
    activation = guest.activate(guest.challenge(ak))
    evidence = guest.evidence(nonce, ak, pcrs)
    verdict = guest.verify(nonce, evidence, activation=activation, pcrs=pcrs.names())
    assert not_passed(verdict) == {}
    assert verdict["claims"]["vtpm"]["pcr_selection"] == pcrs.names()


def test_a_key_below_the_ek_has_plain_counters_too(guest: Guest) -> None:
    ak, nonce = guest.ak_below_ek(), new_nonce()
    activation = guest.activate(guest.challenge(ak))
    evidence = guest.evidence(nonce, ak)
    clock = Attest.parse(b64.decode(evidence["quote"]["attest"])).clock
    last = {"reset_count": clock.reset_count, "restart_count": clock.restart_count}
    verdict = guest.verify(nonce, evidence, activation=activation, last_boot=last)
    assert not_passed(verdict) == {}
    assert outcomes(verdict)["vtpm.boot_counters"] == "passed"
    assert verdict["claims"]["vtpm"]["reset_count"] == clock.reset_count


def test_a_key_of_the_owner_hierarchy_holds_but_its_counters_are_blurred(guest: Guest) -> None:
    ak, nonce = guest.ak(hierarchy="o"), new_nonce()
    activation = guest.activate(guest.challenge(ak))
    last = {"reset_count": 0, "restart_count": 0}
    verdict = guest.verify(nonce, guest.evidence(nonce, ak), activation=activation, last_boot=last)
    assert not_passed(verdict) == {"vtpm.boot_counters": "warned"}
    assert verdict["claims"]["vtpm"]["pcrs"] is not None
    assert verdict["claims"]["vtpm"]["reset_count"] is None


# --- the key ------------------------------------------------------------------------------------


def test_a_key_that_signs_anything_is_no_attestation_key(guest: Guest) -> None:
    ak, nonce = guest.ak(attributes=RESTRICTED.replace("|restricted", "")), new_nonce()
    activation = guest.activate(guest.challenge(ak))
    assert not_passed(guest.verify(nonce, guest.evidence(nonce, ak), activation=activation)) == {
        "vtpm.ak": "failed"
    }


def test_nobody_challenged_the_key(guest: Guest) -> None:
    ak, nonce = guest.ak(), new_nonce()
    verdict = guest.verify(nonce, guest.evidence(nonce, ak))
    assert not_passed(verdict) == {"vtpm.ak_binding": "failed"}
    assert verdict["claims"]["vtpm"]["pcrs"] is None


def test_a_challenge_is_good_for_one_verdict(guest: Guest) -> None:
    ak, nonce = guest.ak(), new_nonce()
    activation = guest.activate(guest.challenge(ak))
    evidence = guest.evidence(nonce, ak)
    assert not_passed(guest.verify(nonce, evidence, activation=activation)) == {}
    replayed = guest.verify(nonce, evidence, activation=activation)
    assert not_passed(replayed) == {"vtpm.ak_binding": "failed"}
    assert "answered before" in why(replayed, "vtpm.ak_binding")


def test_what_is_malformed_uses_no_challenge_up(guest: Guest) -> None:
    ak, nonce = guest.ak(), new_nonce()
    activation = guest.activate(guest.challenge(ak))
    evidence = guest.evidence(nonce, ak)
    malformed = with_quote(evidence, attest=b64.encode(b"\0"))
    assert guest.post(nonce, malformed, activation=activation).status_code == 422
    assert guest.post(nonce, {**evidence, "report": ""}, activation=activation).status_code == 422
    assert not_passed(guest.verify(nonce, evidence, activation=activation)) == {}


def why(verdict: dict[str, Any], check: str) -> str:
    return next(str(finding["why"]) for finding in verdict["findings"] if finding["check"] == check)


def test_the_quote_of_another_vms_key(guest: Guest, other_tpm: SoftwareTpm) -> None:
    """Its TPM answers no challenge to this VM's EK, and a challenge to its own EK proves nothing here."""
    nonce = new_nonce()
    ak = guest.ak(tools=other_tpm)
    evidence = guest.evidence(nonce, ak, tools=other_tpm)
    with pytest.raises(subprocess.CalledProcessError, match="tpm2_activatecredential"):
        guest.activate(guest.challenge(ak), other_tpm)
    other_tpm.run("tpm2_createek", "-Q", "-G", "rsa", "-c", "ek.ctx", "-u", "ek", "-f", "tpmt")
    own = guest.activate(guest.challenge(ak, TpmtPublic.parse(other_tpm.read("ek"))), other_tpm)
    verdict = guest.verify(nonce, evidence, activation=own)
    assert not_passed(verdict) == {"vtpm.ak_binding": "failed"}
    assert "another EK" in why(verdict, "vtpm.ak_binding")


def test_a_challenge_about_another_key_of_the_same_tpm(guest: Guest) -> None:
    nonce = new_nonce()
    other = guest.ak(kind="rsa2048:rsassa-sha256:null")
    activation = guest.activate(guest.challenge(other))
    ak = guest.ak()
    verdict = guest.verify(nonce, guest.evidence(nonce, ak), activation=activation)
    assert not_passed(verdict) == {"vtpm.ak_binding": "failed"}
    assert "another key" in why(verdict, "vtpm.ak_binding")
    with pytest.raises(subprocess.CalledProcessError, match="tpm2_activatecredential"):
        guest.activate(guest.challenge(other))  # while the TPM has this key at hand


def test_a_wrong_secret(guest: Guest) -> None:
    ak, nonce = guest.ak(), new_nonce()
    activation = {**guest.activate(guest.challenge(ak)), "secret": b64.encode(bytes(32))}
    verdict = guest.verify(nonce, guest.evidence(nonce, ak), activation=activation)
    assert not_passed(verdict) == {"vtpm.ak_binding": "failed"}
    assert "not the secret" in why(verdict, "vtpm.ak_binding")


# --- the session --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one(guest: Guest) -> tuple[TpmtPublic, bytes, dict[str, Any]]:
    """A key, a nonce, and evidence of their session."""
    ak, nonce = guest.ak(), new_nonce()
    return ak, nonce, guest.evidence(nonce, ak)


def judged(guest: Guest, ak: TpmtPublic, nonce: bytes, evidence: dict[str, Any], **more: Any) -> Any:
    guest.ak()  # the key that tools may have replaced: primary keys come out the same
    return not_passed(guest.verify(nonce, evidence, activation=guest.activate(guest.challenge(ak)), **more))


BINDING = {"snp.report_data": "failed", "vtpm.binding": "failed"}


def test_another_nonce(guest: Guest, one: Any) -> None:
    ak, _, evidence = one
    assert judged(guest, ak, new_nonce(), evidence) == {**BINDING, "vtpm.quote.nonce": "failed"}


@pytest.mark.parametrize("size", [0, 1, 16, 31])
def test_a_quote_made_with_a_prefix_of_the_nonce(guest: Guest, one: Any, size: int) -> None:
    ak, nonce, evidence = one
    guest.ak()
    expected = Attest.parse(b64.decode(evidence["quote"]["attest"])).extra_data
    short = guest.quote(ak, expected[:size])
    changed = with_quote(evidence, attest=b64.encode(short.attest), signature=b64.encode(short.signature))
    assert judged(guest, ak, nonce, changed) == {"vtpm.quote.nonce": "failed"}


def test_a_quote_made_without_the_report(guest: Guest, one: Any) -> None:
    ak, nonce, evidence = one
    guest.ak()
    alone = guest.quote(ak, Session(nonce, ak.name).qualifying_data(None))
    changed = with_quote(evidence, attest=b64.encode(alone.attest), signature=b64.encode(alone.signature))
    assert judged(guest, ak, nonce, changed) == {"vtpm.quote.nonce": "failed"}


def test_report_and_quote_of_two_sessions(guest: Guest, one: Any) -> None:
    ak, nonce, first = one
    guest.ak()
    other_nonce = new_nonce()
    second = guest.evidence(other_nonce, ak)
    mixed = {**first, "quote": second["quote"]}
    assert judged(guest, ak, nonce, mixed) == {"vtpm.quote.nonce": "failed"}
    # The second session's quote was made for its own report, so with the other report nothing fits.
    assert judged(guest, ak, other_nonce, mixed) == {**BINDING, "vtpm.quote.nonce": "failed"}


CHANNEL = {"type": "tls-server-end-point", "value": b64.encode(bytes(range(32)))}


def test_a_channel_that_the_attester_was_not_asked_to_bind(guest: Guest, one: Any) -> None:
    ak, nonce, evidence = one
    found = judged(guest, ak, nonce, evidence, channel_binding=CHANNEL)
    assert found == {**BINDING, "vtpm.quote.nonce": "failed"}
    assert judged(guest, ak, nonce, evidence, channel_binding={"type": "none"}) == {}


def test_a_channel_counts_only_as_the_relying_party_saw_it(guest: Guest, one: Any) -> None:
    """That evidence says which channel it is bound to is a convenience."""
    ak, nonce, evidence = one
    says = {**evidence, "binding": {**evidence["binding"], "channel_binding": "tls-server-end-point"}}
    assert judged(guest, ak, nonce, says) == {}


def test_direct_and_session_do_not_mix(guest: Guest, one: Any) -> None:
    ak, nonce, evidence = one
    without = {name: value for name, value in evidence.items() if name != "quote"}
    direct = document_of(guest.report(nonce))
    for mixed, pointer in (
        ({**evidence, "binding": {"type": "direct"}}, "/evidence/binding"),
        (without, "/evidence/quote"),
        ({**evidence, "manifest": None}, "/evidence/manifest"),
    ):
        answer = guest.post(nonce, mixed)
        assert (answer.status_code, problem(answer)) == (422, "evidence-malformed")
        assert answer.json()["pointer"] == pointer
    # A report of the direct form in a session, and the reverse:
    mixed = {**evidence, "report": direct["report"]}
    assert judged(guest, ak, nonce, mixed) == {**BINDING, "vtpm.quote.nonce": "failed"}
    assert not_passed(guest.verify(nonce, {**direct, "report": evidence["report"]})) == BINDING


def document_of(found: Evidence) -> dict[str, Any]:
    return EvidenceDocument.from_evidence(found).model_dump(mode="json")


DUE: list[dict[str, Any]] = [
    {"pcrs": {"sha256": [0]}},
    {"channel_binding": CHANNEL},
    {"last_boot": {"reset_count": 1, "restart_count": 0}},
    {"activation": {"challenge": "none", "secret": ""}},
    {"policy": {"version": 1, "id": "quotes", "policy": {"vtpm": {"require_quote": True}}}},
]


@pytest.mark.parametrize("expecting", DUE, ids=lambda one: next(iter(one)))
def test_a_quote_that_is_due_cannot_be_left_out(guest: Guest, expecting: dict[str, Any]) -> None:
    nonce = new_nonce()
    plain = document_of(guest.report(nonce))
    verdict = guest.verify(nonce, plain, **expecting)
    assert verdict["verdict"] == "contraindicated"
    assert outcomes(verdict)["vtpm.quote.signature"] == "failed"
    bare = guest.post(nonce, {**plain, "manifest": None}, **expecting)
    assert (bare.status_code, bare.json()["pointer"]) == (422, "/evidence/manifest")


# --- what was quoted ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quoted", "asked", "word"),
    [
        (FEW, ALL, "sha256:1-3,5-6,8-23 missing"),
        (ALL, FEW, "sha256:1-3,5-6,8-23 too many"),
        (TWO_BANKS, PcrSelection.of({"sha256": [0, 7], "sha384": [7]}), "another order"),
        (TWO_BANKS, PcrSelection.of({"sha256": [0, 7]}), "bank sha384 is too many"),
    ],
)
def test_other_registers_than_asked_for(
    guest: Guest, quoted: PcrSelection, asked: PcrSelection, word: str
) -> None:
    ak, nonce = guest.ak(), new_nonce()
    activation = guest.activate(guest.challenge(ak))
    evidence = guest.evidence(nonce, ak, quoted)
    verdict = guest.verify(nonce, evidence, activation=activation, pcrs=asked.names())
    assert not_passed(verdict) == {"vtpm.quote.selection": "failed"}
    assert word in why(verdict, "vtpm.quote.selection")


def test_a_changed_value(guest: Guest, one: Any) -> None:
    ak, nonce, evidence = one
    values = {**evidence["quote"]["pcrs"]["sha256"], "23": "11" * 32}
    assert judged(guest, ak, nonce, with_quote(evidence, pcrs={"sha256": values})) == {
        "vtpm.quote.digest": "failed"
    }


def test_the_sha_1_bank(guest: Guest, one: Any) -> None:
    ak, nonce, evidence = one
    guest.ak()
    guest.tools.run("tpm2_quote", "-Q", "-c", "ak.ctx", "-l", "sha1:0", "-m", "attest", "-s", "signature")
    sha1 = with_quote(
        evidence,
        attest=b64.encode(guest.tools.read("attest")),
        signature=b64.encode(guest.tools.read("signature")),
    )
    answer = guest.post(nonce, sha1)
    assert (answer.status_code, answer.json()["pointer"]) == (422, "/evidence/quote/attest")
    assert "SHA-1" in answer.json()["detail"]
    values = guest.post(nonce, with_quote(evidence, pcrs={"sha1": {"0": "00" * 20}}))
    assert (values.status_code, values.json()["pointer"]) == (422, "/evidence/quote/pcrs")
    asked = guest.post(nonce, evidence, pcrs={"sha1": [0]})
    assert (asked.status_code, asked.json()["pointer"]) == (400, "/pcrs")
    assert ak.name_alg != 4


@pytest.mark.parametrize("part", ["ak_public", "attest", "signature", "event_log"])
def test_a_trailing_byte_anywhere(guest: Guest, one: Any, part: str) -> None:
    _, nonce, evidence = one
    log = b64.encode(guest.simulator.vtpm.event_log()) if guest.simulator.vtpm else ""
    raw = b64.decode(evidence["quote"][part] or log) + b"\x01"
    answer = guest.post(nonce, with_quote(evidence, **{part: b64.encode(raw)}))
    assert (answer.status_code, problem(answer)) == (422, "evidence-malformed")
    assert answer.json()["pointer"] == f"/evidence/quote/{part}"
    assert answer.json()["byte_offset"] > 0


def test_a_certification_in_place_of_a_quote(guest: Guest, one: Any) -> None:
    ak, nonce, evidence = one
    guest.ak()
    signed = ("-o", "attest", "-s", "signature")
    guest.tools.run("tpm2_certify", "-Q", "-c", "ak.ctx", "-C", "ak.ctx", "-g", "sha256", *signed)
    answer = guest.post(nonce, with_quote(evidence, attest=b64.encode(guest.tools.read("attest"))))
    assert (answer.status_code, answer.json()["pointer"]) == (422, "/evidence/quote/attest")
    assert "want a quote" in answer.json()["detail"]
    assert ak.scheme


MALFORMED: list[tuple[dict[str, Any], str]] = [
    ({"activation": {"challenge": "x"}}, "/activation"),
    ({"activation": {"challenge": "x", "secret": "", "signature": ""}}, "/activation"),
    ({"activation": {"challenge": "x", "certify_info": ""}}, "/activation"),
    ({"activation": {"challenge": "", "secret": ""}}, "/activation/challenge"),
    ({"activation": {"challenge": "x", "secret": "A" * 100}}, "/activation/secret"),
    ({"channel_binding": {"type": "tls-exporter"}}, "/channel_binding"),
    ({"channel_binding": {"type": "none", "value": "AA=="}}, "/channel_binding"),
    ({"channel_binding": {"type": "tls-unique", "value": "AA=="}}, "/channel_binding/type"),
    ({"last_boot": {"reset_count": 1}}, "/last_boot/restart_count"),
    ({"last_boot": {"reset_count": -1, "restart_count": 0}}, "/last_boot/reset_count"),
    ({"last_boot": {"reset_count": 1, "restart_count": 0, "ek_name": "00"}}, "/last_boot/ek_name"),
    ({"pcrs": {}}, "/pcrs"),
    ({"pcrs": {"sha256": [24]}}, "/pcrs"),
    ({"pcrs": {"sha256": [1, 1]}}, "/pcrs"),
]


@pytest.mark.parametrize(("members", "pointer"), MALFORMED)
def test_requests_that_cannot_be_understood(
    guest: Guest, one: Any, members: dict[str, Any], pointer: str
) -> None:
    _, nonce, evidence = one
    answer = guest.post(nonce, evidence, **members)
    assert (answer.status_code, problem(answer)) == (400, "malformed-request")
    assert answer.json()["pointer"] == pointer


def test_a_malformed_certification_has_its_place(guest: Guest, one: Any) -> None:
    _, nonce, evidence = one
    answer = guest.post(
        nonce, evidence, activation={"challenge": "x", "certify_info": "AA==", "signature": "AA=="}
    )
    assert (answer.status_code, problem(answer)) == (422, "evidence-malformed")
    assert answer.json()["pointer"] == "/activation/certify_info"


# --- time ---------------------------------------------------------------------------------------


def test_a_challenge_expires(new_settings: SettingsMaker, tmp_path: Path) -> None:
    demand("swtpm", "tpm2_quote")
    settings = new_settings(allow_simulator=True, challenge_lifetime_s=0.001)
    with Service(create_app(settings)) as service:
        simulator: SimulatorBackend = service.state["simulator"]
        assert simulator.vtpm is not None
        with tool_bridge(tmp_path, simulator.vtpm.open()) as tools:
            guest = Guest(tools, service, simulator)
            ak, nonce = guest.ak(), new_nonce()
            activation = guest.activate(guest.challenge(ak))
            verdict = guest.verify(nonce, guest.evidence(nonce, ak), activation=activation)
    assert not_passed(verdict) == {"vtpm.ak_binding": "failed"}
    assert "expired" in why(verdict, "vtpm.ak_binding")


def test_a_reboot_between_challenge_and_answer_fails_closed_and_is_told(guest: Guest) -> None:
    vtpm = guest.simulator.vtpm
    assert vtpm is not None
    ak, nonce = guest.ak(), new_nonce()
    before = Attest.parse(b64.decode(guest.evidence(nonce, ak)["quote"]["attest"])).clock
    challenge = guest.challenge(ak)
    vtpm.reboot()
    with pytest.raises(subprocess.CalledProcessError):
        guest.activate(challenge)  # the saved key belongs to the boot that is over
    again = guest.ak()
    assert again == ak
    activation = guest.activate(guest.challenge(ak))
    last = {"reset_count": before.reset_count, "restart_count": before.restart_count}
    verdict = guest.verify(nonce, guest.evidence(nonce, ak), activation=activation, last_boot=last)
    assert not_passed(verdict) == {"vtpm.boot_counters": "warned"}
    now = verdict["claims"]["vtpm"]["reset_count"]
    assert f"{before.reset_count} resets then, {now} now" in why(verdict, "vtpm.boot_counters")
    assert now > before.reset_count
