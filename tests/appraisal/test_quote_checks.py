import hashlib
from dataclasses import replace
from typing import Any

import pytest

from app.appraisal.findings import QUOTE, QUOTED, CheckId, Finding, Outcome
from app.appraisal.guest_checks import check_report_data
from app.appraisal.key_proof import NoKeyProof, ProofMethod
from app.appraisal.quote import BootCounters, QuoteExpectation
from app.appraisal.quote_checks import check_quote
from app.appraisal.subject import Subject
from app.wire.manifest import KeyListManifest, parse_manifest
from app.wire.session import Channel, ChannelType, Session
from app.wire.tpm import algorithms as alg
from app.wire.tpm.pcr import PcrBank, PcrSelection, PcrValues
from app.wire.tpm.public import TpmtPublic
from app.wire.tpm.template import PREFIXES
from app.wire.uefi_mm import UefiMmManifest
from tests.appraisal.quotes import (
    AK,
    VALUES,
    Ak,
    Making,
    ecc_ak,
    proof,
    quoted,
    rsa_ak,
)
from tests.appraisal.subjects import EK, NONCE, REPORT, policy, subject

OTHER_EK = PREFIXES["L-1"] + b"\x80" + bytes(253) + b"\x01\x01"
CHANNEL = Channel(ChannelType.TLS_SERVER_END_POINT, hashlib.sha256(b"certificate").digest())


def run(appraised: Subject, *, bound: bool = True) -> dict[CheckId, Finding]:
    found = check_quote(appraised, bound=bound)
    assert [finding.check for finding in found] == [check for check in CheckId if check in QUOTE | QUOTED]
    return {finding.check: finding for finding in found}


def not_passed(appraised: Subject, *, bound: bool = True) -> dict[CheckId, Finding]:
    return {
        check: finding
        for check, finding in run(appraised, bound=bound).items()
        if check in QUOTE and finding.outcome is not Outcome.PASSED
    }


def only(appraised: Subject, check: CheckId, word: str, **more: Any) -> Finding:
    """The finding of the one check that fails, which says why."""
    found = not_passed(appraised, **more)
    assert set(found) == {check}, found
    assert found[check].outcome is Outcome.FAILED
    assert word in found[check].why, found[check].why
    return found[check]


@pytest.mark.parametrize(
    "ak",
    [
        ecc_ak(),
        ecc_ak(3, alg.P384, alg.SHA384),
        ecc_ak(3, alg.P384, alg.SHA256),
        ecc_ak(hash_alg=alg.SHA512),
        rsa_ak(),
        rsa_ak(alg.RSAPSS),
        rsa_ak(hash_alg=alg.SHA384),
    ],
    ids=lambda ak: f"{ak.public.algorithm}-{ak.public.scheme:x}-{ak.public.scheme_hash:x}",
)
def test_a_quote_in_order_passes(ak: Ak) -> None:
    assert not_passed(quoted(Making(ak=ak))) == {}


def test_a_key_whose_point_starts_with_a_zero_byte_is_a_key_like_any_other() -> None:
    scalar = next(n for n in range(2, 9999) if ecc_ak(n).public.jwk()["x"].startswith("AA"))
    ak = ecc_ak(scalar)
    assert ak.public.encode()[-66:][:1] == b"\0"
    assert not_passed(quoted(Making(ak=ak))) == {}


# --- no quote -----------------------------------------------------------------------------------


def test_without_a_quote_nothing_is_asked() -> None:
    assert {finding.outcome for finding in run(subject()).values()} == {Outcome.NOT_REQUESTED}


@pytest.mark.parametrize(
    "changes",
    [
        {"policy": policy({"vtpm": {"require_quote": True}})},
        {"expectation": QuoteExpectation(pcrs=VALUES.selection)},
        {"expectation": QuoteExpectation(channel=CHANNEL)},
        {"expectation": QuoteExpectation(key_proof=proof())},
        {"expectation": QuoteExpectation(key_proof=NoKeyProof("It expired."))},
        {"expectation": QuoteExpectation(last_boot=BootCounters(reset_count=0, restart_count=0))},
    ],
)
def test_a_quote_that_is_due_and_missing_fails(changes: dict[str, Any]) -> None:
    expectation = changes.pop("expectation", QuoteExpectation())
    found = run(replace(subject(**changes), expectation=expectation))
    assert found[CheckId.QUOTE_SIGNATURE].outcome is Outcome.FAILED
    assert "one is due" in found[CheckId.QUOTE_SIGNATURE].why
    others = QUOTE - {CheckId.QUOTE_SIGNATURE}
    assert {found[check].outcome for check in others} == {Outcome.NOT_REQUESTED}


# --- the attestation key ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bit", "word"),
    [
        (1, "fixedTPM is clear"),
        (4, "fixedParent is clear"),
        (5, "sensitiveDataOrigin is clear"),
        (16, "restricted is clear"),
        (17, "decrypt is set"),
        (18, "sign is clear"),
    ],
)
def test_a_key_that_signs_more_than_its_tpm_says_is_no_attestation_key(bit: int, word: str) -> None:
    ak = AK.changed(attributes=AK.public.attributes ^ 1 << bit)
    only(quoted(Making(ak=ak)), CheckId.VTPM_AK, word)


def test_a_key_with_a_symmetric_algorithm_is_no_attestation_key() -> None:
    only(quoted(Making(ak=AK.changed(symmetric_bits=128))), CheckId.VTPM_AK, "symmetric")


@pytest.mark.parametrize(
    ("scheme", "hash_alg", "word"), [(alg.NULL, None, "no scheme"), (alg.ECDH, alg.SHA256, "scheme 0x0019")]
)
def test_a_key_without_a_signing_scheme_signs_no_quote(scheme: int, hash_alg: int | None, word: str) -> None:
    ak = AK.changed(scheme=scheme, scheme_hash=hash_alg)
    found = not_passed(quoted(Making(ak=ak)))
    assert word in found[CheckId.VTPM_AK].why
    assert found[CheckId.QUOTE_SIGNATURE].outcome is Outcome.FAILED
    assert (CheckId.QUOTE_DIGEST in found) is (hash_alg is None)


# --- which TPM it is in -------------------------------------------------------------------------


@pytest.mark.parametrize("method", [ProofMethod.ACTIVATE, ProofMethod.IMPORT])
def test_an_answered_challenge_ties_the_key_to_the_ek(method: ProofMethod) -> None:
    expectation = QuoteExpectation(key_proof=proof(method=method))
    assert not_passed(quoted(expectation=expectation)) == {}


@pytest.mark.parametrize(
    ("key_proof", "word"),
    [
        (None, "Nothing shows"),
        (NoKeyProof("The challenge is unknown."), "The challenge is unknown."),
        (proof(ek=OTHER_EK), "made for another EK"),
        (proof(ecc_ak(5)), "about another key"),
    ],
)
def test_without_the_right_answer_a_key_is_nobodys(key_proof: Any, word: str) -> None:
    only(quoted(expectation=QuoteExpectation(key_proof=key_proof)), CheckId.VTPM_AK_BINDING, word)


def listing(*keys: TpmtPublic) -> dict[str, Any]:
    raw = KeyListManifest(keys).encode()
    return {"manifest": parse_manifest(raw), "manifest_bytes": raw}


def test_a_manifest_that_lists_both_keys_ties_them_if_the_report_binds_it() -> None:
    both = listing(TpmtPublic.parse(EK), AK.public)
    without_answer = quoted(expectation=QuoteExpectation(), **both)
    assert not_passed(without_answer) == {}
    only(without_answer, CheckId.VTPM_AK_BINDING, "nothing shows that the SVSM wrote it", bound=False)
    wrong = QuoteExpectation(key_proof=NoKeyProof("It expired."))
    only(quoted(expectation=wrong, **both), CheckId.VTPM_AK_BINDING, "It expired.")


def test_a_manifest_that_lists_another_key_says_nothing_of_this_one() -> None:
    other = listing(TpmtPublic.parse(EK), ecc_ak(5).public)
    only(quoted(expectation=QuoteExpectation(), **other), CheckId.VTPM_AK_BINDING, "Nothing shows")


def test_a_manifest_without_an_ek_ties_no_key() -> None:
    raw = UefiMmManifest(2).encode()
    no_ek: dict[str, Any] = {"manifest": parse_manifest(raw), "manifest_bytes": raw}
    only(quoted(**no_ek), CheckId.VTPM_AK_BINDING, "names no EK")


# --- signature ----------------------------------------------------------------------------------


def test_a_quote_signed_by_another_key_fails() -> None:
    only(quoted(Making(signer=ecc_ak(5))), CheckId.QUOTE_SIGNATURE, "another key signed it")


@pytest.mark.parametrize(
    ("making", "used"),
    [
        (Making(hash_alg=alg.SHA384), "ECDSA with sha384"),
        (Making(signer=rsa_ak()), "RSASSA with sha256"),
        (Making(ak=rsa_ak(), scheme=alg.RSAPSS), "RSAPSS with sha256"),
    ],
)
def test_a_signature_of_another_scheme_than_the_keys_fails(making: Making, used: str) -> None:
    finding = only(quoted(making), CheckId.QUOTE_SIGNATURE, "another scheme")
    assert finding.actual == used


@pytest.mark.parametrize("offset", [8, 45, 80, 100, 144])
def test_a_changed_statement_fails(offset: int) -> None:
    appraised = quoted()
    assert appraised.quote is not None
    raw = bytearray(appraised.quote.attest_bytes)
    raw[offset] ^= 1
    changed = replace(appraised, quote=replace(appraised.quote, attest_bytes=bytes(raw)))
    only(changed, CheckId.QUOTE_SIGNATURE, "changed")


# --- nonce --------------------------------------------------------------------------------------


def test_without_a_nonce_a_quote_cannot_be_judged() -> None:
    found = not_passed(quoted(nonce=None))
    assert set(found) == {CheckId.QUOTE_NONCE}
    assert found[CheckId.QUOTE_NONCE].outcome is Outcome.NOT_REQUESTED


OTHER_NONCE = bytes(reversed(NONCE))
THIS = replace(REPORT, report_data=Making().report_data).encode()
OTHER_REPORT = replace(REPORT, report_data=Making(nonce=OTHER_NONCE).report_data).encode()


@pytest.mark.parametrize(
    ("making", "word"),
    [
        (Making(nonce=OTHER_NONCE, report=THIS), "another nonce"),
        (Making(report=OTHER_REPORT), "another nonce, report"),
        (Making(report=replace(REPORT, guest_svn=9, report_data=Making().report_data).encode()), "report"),
        (Making(channel=CHANNEL, report=THIS), "channel"),
        (Making(extra_data=NONCE), "another nonce"),
        (Making(extra_data=b""), "another nonce"),
        (Making(extra_data=Making().attest().extra_data[:-1]), "another nonce"),
        (Making(extra_data=Making().attest().extra_data + b"\0"), "another nonce"),
        (
            Making(extra_data=Session(NONCE, AK.public.name).qualifying_data(None)),
            "made alone",
        ),
        (
            Making(extra_data=Session(NONCE, ecc_ak(5).public.name).qualifying_data(THIS)),
            "another nonce",
        ),
    ],
)
def test_a_quote_for_something_else_fails(making: Making, word: str) -> None:
    only(quoted(making, report_data=Making().report_data), CheckId.QUOTE_NONCE, word)


def test_report_and_quote_of_two_sessions_do_not_mix() -> None:
    """The report of another session with this session's quote: then it is the report that fails."""
    appraised = quoted(Making(report=OTHER_REPORT), report_data=Making(nonce=OTHER_NONCE).report_data)
    assert not_passed(appraised) == {}
    assert check_report_data(appraised).outcome is Outcome.FAILED


def test_both_are_bound_to_the_channel_that_the_relying_party_saw() -> None:
    making = Making(channel=CHANNEL)
    seen = QuoteExpectation(key_proof=proof(), channel=CHANNEL)
    assert not_passed(quoted(making, expectation=seen)) == {}
    assert check_report_data(quoted(making, expectation=seen)).outcome is Outcome.PASSED
    other = replace(seen, channel=replace(CHANNEL, value=bytes(32)))
    for wrong in (other, replace(seen, channel=Channel())):
        only(quoted(making, expectation=wrong), CheckId.QUOTE_NONCE, "channel")
        assert check_report_data(quoted(making, expectation=wrong)).outcome is Outcome.FAILED


def test_a_report_bound_directly_is_not_that_of_a_session() -> None:
    direct = quoted(report_data=REPORT.report_data)
    assert check_report_data(direct).outcome is Outcome.FAILED
    in_session = subject(report_data=Making().report_data)
    assert check_report_data(in_session).outcome is Outcome.FAILED


# --- selection and digest -----------------------------------------------------------------------


def digests(bank: str, pcrs: Any = range(24)) -> dict[int, bytes]:
    return {pcr: hashlib.new(bank, bytes([pcr])).digest() for pcr in pcrs}


TWO_BANKS = {"sha256": digests("sha256"), "sha384": digests("sha384")}
SELECTIONS: list[tuple[dict[str, dict[int, bytes]], PcrSelection | None, str]] = [
    ({"sha256": digests("sha256", range(23))}, None, "sha256:23 missing"),
    ({"sha256": digests("sha256", [7])}, None, "sha256:0-6,8-23 missing"),
    (
        {"sha256": digests("sha256", range(9))},
        PcrSelection.of({"sha256": range(8)}),
        "sha256:8 too many",
    ),
    (
        {"sha256": digests("sha256", [0, 2])},
        PcrSelection.of({"sha256": [0, 1]}),
        "sha256:1 missing; sha256:2 too many",
    ),
    (TWO_BANKS, None, "bank sha384 is too many"),
    ({"sha384": digests("sha384")}, None, "bank sha256 is missing; bank sha384 is too many"),
    (
        TWO_BANKS,
        PcrSelection.of({"sha384": range(24), "sha256": range(24)}),
        "the banks come in another order",
    ),
]


@pytest.mark.parametrize(("banks", "wanted", "word"), SELECTIONS)
def test_a_quote_over_other_registers_than_asked_for_fails(
    banks: dict[str, dict[int, bytes]], wanted: PcrSelection | None, word: str
) -> None:
    expectation = QuoteExpectation(key_proof=proof(), pcrs=wanted)
    appraised = quoted(Making(values=PcrValues.of(banks)), expectation=expectation)
    only(appraised, CheckId.QUOTE_SELECTION, word)


@pytest.mark.parametrize(
    "banks", [{"sha256": digests("sha256", [7])}, TWO_BANKS, {"sha512": digests("sha512", [0, 23])}]
)
def test_the_registers_asked_for_may_be_any(banks: dict[str, dict[int, bytes]]) -> None:
    values = PcrValues.of(banks)
    making = Making(values=values)
    asked = QuoteExpectation(key_proof=proof(), pcrs=values.selection)
    assert not_passed(quoted(making, expectation=asked)) == {}
    by_policy = policy({"vtpm": {"pcrs": values.selection.names()}})
    assert not_passed(quoted(making, policy=by_policy)) == {}


def test_the_order_in_which_values_are_written_down_does_not_matter() -> None:
    values = PcrValues.of(TWO_BANKS)
    shown = PcrValues.of(dict(reversed(TWO_BANKS.items())))
    asked = QuoteExpectation(key_proof=proof(), pcrs=values.selection)
    assert not_passed(quoted(Making(values=values, shown=shown), expectation=asked)) == {}


def test_a_changed_value_fails() -> None:
    values = digests("sha256")
    values[16] = bytes(32)
    shown = PcrValues.of({"sha256": values})
    only(quoted(Making(shown=shown)), CheckId.QUOTE_DIGEST, "not the ones that the TPM quoted")


def test_exchanged_values_fail() -> None:
    values = digests("sha256")
    values[0], values[1] = values[1], values[0]
    shown = PcrValues.of({"sha256": values})
    only(quoted(Making(shown=shown)), CheckId.QUOTE_DIGEST, "not the ones that the TPM quoted")


@pytest.mark.parametrize(
    "shown",
    [{"sha256": digests("sha256", range(23))}, TWO_BANKS, {"sha384": digests("sha384")}],
)
def test_values_of_other_registers_fail(shown: dict[str, dict[int, bytes]]) -> None:
    appraised = quoted(Making(shown=PcrValues.of(shown)))
    only(appraised, CheckId.QUOTE_DIGEST, "not of the registers")


def test_a_selection_claimed_over_other_values_fails() -> None:
    """Twenty-four values signed as if they were of one register."""
    seven = PcrSelection((PcrBank(alg.SHA256, (7,)),))
    asked = QuoteExpectation(key_proof=proof(), pcrs=seven)
    making = Making(selection=seven, shown=PcrValues.of({"sha256": {7: VALUES.values[0][7]}}))
    only(quoted(making, expectation=asked), CheckId.QUOTE_DIGEST, "not the ones")
