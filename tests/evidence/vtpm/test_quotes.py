"""Quotes that tpm2_checkquote accepts, over what tpm2_pcrread reads; and nothing left in the TPM."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from app.errors import BackendError, TpmUnavailableError
from app.evidence.vtpm.ak_kind import AkKind
from app.evidence.vtpm.quote_check import is_own_quote
from app.evidence.vtpm.vtpm import Vtpm
from app.tpm import handles
from app.tpm.command import CommandCode
from app.trust.credential import make_credential
from app.trust.tpm_key import pem
from app.wire.evidence import QuoteEvidence
from app.wire.tpm import algorithms as alg
from app.wire.tpm.attest import Attest, CertifyInfo, QuoteInfo
from app.wire.tpm.pcr import PcrSelection, PcrValues
from app.wire.tpm.public import TpmtPublic
from tests.evidence.vtpm.bench import AK, LOG, QUALIFYING, SOME, Bench, bench, qualify
from tests.interop.software_tpm import demand
from tests.interop.tool_bridge import tool_bridge

EVERY = PcrSelection.of({"sha256": range(24)})
TWO_BANKS = PcrSelection.of({"sha384": [0, 9, 23], "sha256": range(24)})
QUOTE = CommandCode.QUOTE.to_bytes(4, "big")
ROUNDS = 500


def quoted(vtpm: Bench, selection: PcrSelection, kind: AkKind = AK) -> QuoteEvidence:
    return vtpm.run(vtpm.vtpm.quote(kind, qualify, selection, with_event_log=False))


@pytest.mark.parametrize("selection", [SOME, EVERY, TWO_BANKS], ids=str)
@pytest.mark.parametrize("kind", AkKind)
def test_tpm2_checkquote_accepts_it(
    vtpm: Bench, tmp_path: Path, kind: AkKind, selection: PcrSelection
) -> None:
    demand("tpm2_checkquote")
    vtpm.tpm.pcr_extend(7, {alg.SHA256: bytes(range(32)), alg.SHA384: bytes(range(48))})
    quote = quoted(vtpm, selection, kind)
    ak = TpmtPublic.parse(quote.ak_public)

    values = b"".join(digest for bank in quote.pcrs.values for digest in bank)

    def check(qualification: bytes, values: bytes = values) -> int:
        files = {
            "message": quote.attest,
            "signature": quote.signature,
            "ak.pem": pem(ak).encode(),
            "values": values,
        }
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        command = ["tpm2_checkquote", "-Q", "-u", "ak.pem", "-m", "message", "-s", "signature"]
        command += ["-q", qualification.hex()]
        if selection == SOME:  # the tool (5.4) takes eight values at most
            command += ["-f", "values", "-l", "sha256:0,7,16"]
        return subprocess.run(command, check=False, cwd=tmp_path, capture_output=True).returncode

    assert check(QUALIFYING) == 0
    assert check(QUALIFYING[:-1] + b"\0") != 0
    assert (check(QUALIFYING, values[:-1] + b"\1") != 0) == (selection == SOME)
    attest = Attest.parse(quote.attest)
    assert isinstance(attest.attested, QuoteInfo)
    assert (attest.extra_data, attest.attested.selection) == (QUALIFYING, selection)
    assert attest.attested.pcr_digest == quote.pcrs.digest(alg.SHA256)


def test_the_values_are_those_that_tpm2_pcrread_reads(vtpm: Bench, tmp_path: Path) -> None:
    for pcr in (0, 7, 23):
        vtpm.tpm.pcr_extend(pcr, {alg.SHA256: bytes([pcr]) * 32})
    quote = quoted(vtpm, EVERY)
    with tool_bridge(tmp_path, vtpm.channel) as tools:
        tools.run("tpm2_pcrread", "-Q", "sha256:all", "-o", "values")
    values = quote.pcrs.names()["sha256"]
    assert b"".join(values[pcr] for pcr in range(24)) == (tmp_path / "values").read_bytes()


def test_the_event_log_comes_along_where_it_is_asked_for(vtpm: Bench) -> None:
    assert quoted(vtpm, SOME).event_log is None
    with_log = vtpm.run(vtpm.vtpm.quote(AK, qualify, SOME, with_event_log=True))
    assert with_log.event_log == LOG


def test_a_bank_that_the_tpm_has_not(vtpm: Bench) -> None:
    # libtpms allocates every bank; a TPM that has not answers with an empty selection, and no value.
    answer = bytes.fromhex("8001 0000001c 00000000 00000016 00000001 000d 03 000000 00000000")
    read = CommandCode.PCR_READ.to_bytes(4, "big")
    vtpm.tap.before = lambda command: answer if command[6:10] == read else None
    with pytest.raises(BackendError) as caught:
        quoted(vtpm, PcrSelection.of({"sha512": [0]}))
    assert caught.value.cause == "tpm-bank-missing"


def test_what_stands_in_the_way_of_a_quote_is_found_out_before(vtpm: Bench) -> None:
    def unreadable() -> bytes:
        raise BackendError("event-log-unavailable", "it may not be read", "run as root")

    service = Vtpm(lambda: vtpm.tap, name="swtpm", event_log=unreadable)
    with pytest.raises(BackendError, match="it may not be read"):
        vtpm.run(service.ak(AK, SOME, with_event_log=True))
    expected = vtpm.run(service.ak(AK, SOME))
    assert vtpm.tap.count(CommandCode.QUOTE) == 0
    answer = bytes.fromhex("8001 0000001c 00000000 00000016 00000001 000d 03 000000 00000000")
    read = CommandCode.PCR_READ.to_bytes(4, "big")
    vtpm.tap.before = lambda command: answer if command[6:10] == read else None
    with pytest.raises(BackendError) as caught:
        vtpm.run(service.ak(AK, PcrSelection.of({"sha512": [0]})))
    assert caught.value.cause == "tpm-bank-missing"
    assert vtpm.run(service.ak(AK)) == expected
    vtpm.run(service.aclose())


def test_a_register_that_changes_meanwhile_is_read_again(vtpm: Bench) -> None:
    def extend(command: bytes) -> None:
        if command[6:10] == QUOTE:
            vtpm.tap.before = lambda _: None
            vtpm.tpm.pcr_extend(16, {alg.SHA256: bytes(32)})

    vtpm.tap.before = extend
    quote = quoted(vtpm, SOME)
    assert vtpm.tap.count(CommandCode.PCR_READ) == 2
    attested = Attest.parse(quote.attest).attested
    assert isinstance(attested, QuoteInfo)
    assert attested.pcr_digest == quote.pcrs.digest(alg.SHA256)


def test_registers_that_change_all_the_time_are_told(vtpm: Bench) -> None:
    def extend(command: bytes) -> None:
        if command[6:10] == QUOTE:
            vtpm.tpm.pcr_extend(16, {alg.SHA256: bytes(32)})

    vtpm.tap.before = extend
    with pytest.raises(TpmUnavailableError) as caught:
        quoted(vtpm, SOME)
    assert caught.value.cause == "tpm-unsettled"
    assert vtpm.loaded() == ()


def test_what_the_qualifying_data_cannot_be_made_from_ends_the_job(vtpm: Bench) -> None:
    def refuse(_: TpmtPublic) -> bytes:
        raise BackendError("tpm-reset", "another key", "ask again")

    with pytest.raises(BackendError, match="another key"):
        vtpm.run(vtpm.vtpm.quote(AK, refuse, SOME, with_event_log=False))
    assert vtpm.loaded() == ()


def test_five_hundred_rounds_leave_nothing_behind(vtpm: Bench) -> None:
    # The SVSM leaves its own EK in one of the three places.
    stray = vtpm.tpm.create_primary(handles.ENDORSEMENT, AkKind.P256.template).handle
    for number in range(ROUNDS):
        kind = AkKind.RSA2048 if number % 50 == 0 else AkKind.P256
        keys = vtpm.run(vtpm.vtpm.hand_out(kind, "L-2"))
        blob = make_credential(keys.ek, keys.ak.name, bytes(32))
        assert vtpm.run(vtpm.vtpm.activate(kind, "L-2", blob)) == bytes(32)
        assert Attest.parse(quoted(vtpm, EVERY, kind).attest).extra_data == QUALIFYING
    assert vtpm.loaded() == (stray,)
    assert vtpm.tap.count(CommandCode.CREATE_PRIMARY) == 3
    vtpm.tpm.flush(stray)


@pytest.fixture(scope="module")
def a_quote(tmp_path_factory: pytest.TempPathFactory) -> QuoteEvidence:
    with bench(tmp_path_factory.mktemp("tpm")) as built:
        return quoted(built, SOME)


def held(quote: QuoteEvidence, *, qualifying: bytes = QUALIFYING, pcrs: PcrValues | None = None) -> bool:
    ak = TpmtPublic.parse(quote.ak_public)
    return is_own_quote(ak, quote.attest, quote.signature, qualifying=qualifying, pcrs=pcrs or quote.pcrs)


def test_a_quote_is_held_against_what_was_asked(a_quote: QuoteEvidence) -> None:
    assert held(a_quote)
    values = a_quote.pcrs.names()
    changed = {**values["sha256"], 7: b"\1" * 32}
    assert not held(a_quote, pcrs=PcrValues.of({"sha256": changed}))

    def unusable(why: str, quote: QuoteEvidence, **asked: object) -> None:
        with pytest.raises(BackendError, match=why) as caught:
            held(quote, **asked)  # type: ignore[arg-type]
        assert caught.value.cause == "tpm-quote-unusable"

    unusable("other qualifying data", a_quote, qualifying=bytes(32))
    fewer = PcrValues.of({"sha256": {0: values["sha256"][0]}})
    unusable("other registers", a_quote, pcrs=fewer)
    unusable("not that of the attestation key", replace(a_quote, attest=a_quote.attest[:-1] + b"\0"))
    unusable("TPMS_ATTEST at 0x", replace(a_quote, attest=a_quote.attest + b"\0"))
    unusable("TPMT_SIGNATURE at 0x", replace(a_quote, signature=a_quote.signature[:-1]))


def test_a_certification_is_no_quote(vtpm: Bench) -> None:
    ak = vtpm.tpm.create_primary(handles.ENDORSEMENT, AkKind.P256.template)
    with vtpm.tpm.transient(ak.handle):
        attest, signature = vtpm.tpm.certify(ak.handle, ak.handle, QUALIFYING)
    assert isinstance(Attest.parse(attest).attested, CertifyInfo)
    values = PcrValues.of({"sha256": {0: bytes(32)}})
    with pytest.raises(BackendError, match="it certifies a key"):
        is_own_quote(TpmtPublic.parse(ak.public), attest, signature, qualifying=QUALIFYING, pcrs=values)
