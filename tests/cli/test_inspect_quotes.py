"""`inspect` on what a TPM signs, and on firmware event logs."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from app.api.evidence_document import QuoteDocument
from app.cli.inspection.identify import identify
from app.cli.inspection.quote import quote_sheet
from app.cli.inspection.sheet import Sheet
from app.errors import WireError
from app.wire import event_types as ev
from app.wire.event_log import Event, EventLog, SpecId
from app.wire.evidence import QuoteEvidence
from app.wire.session import CONSTRUCTION
from app.wire.tpm import algorithms as alg
from app.wire.tpm.attest import Attest, CertifyInfo, ClockInfo
from app.wire.tpm.pcr import PcrValues
from app.wire.uefi_image_load import ImageLoad
from app.wire.uefi_variable import GLOBAL_VARIABLE, UefiVariable
from tests.cli.command_line import Cli
from tests.wire.samples import signing_key

NAME = b"\0\x0b" + bytes(range(32))
CERTIFICATION = Attest(
    qualified_signer=NAME,
    extra_data=b"",
    clock=ClockInfo(clock_ms=1500, reset_count=3, restart_count=4, safe=True),
    firmware_version=0x2019102300163636,
    attested=CertifyInfo(NAME, NAME),
).encode()
ECDSA = bytes.fromhex("0018000b" + "0020" + "11" * 32 + "0020" + "22" * 32)


@pytest.fixture
def azure(vectors: Path) -> Any:
    """The quote of a vTPM in a real confidential VM."""
    document = json.loads((vectors / "milan-v3-azure-vtpm" / "evidence-v2.json").read_text())
    return document["tpm_quote"]


def test_a_real_quote(cli: Cli, azure: Any) -> None:
    raw = bytes.fromhex(azure["message"])
    ended = cli("inspect", "-", "--json", stdin=raw)
    assert (ended.status, ended.json["kind"]) == (0, "tpms-attest")
    attest = ended.json["attest"]
    assert attest["type_name"] == "TPM_ST_ATTEST_QUOTE"
    assert attest["pcrs"] == {"sha256": list(range(24))}
    # The values beside it in the file are what the TPM signed.
    values = b"".join(bytes.fromhex(value) for value in azure["pcrs"])
    assert attest["pcr_digest"] == hashlib.sha256(values).hexdigest()
    text = cli("inspect", "-", stdin=raw).out
    assert f"pcrDigest  {attest['pcr_digest']}" in text
    assert f"extraData        {attest['extra_data']}" in text


def test_a_certification_of_a_key(cli: Cli) -> None:
    ended = cli("inspect", "-", "--json", stdin=CERTIFICATION)
    assert ended.json["attest"]["name"] == NAME.hex()
    assert ended.json["attest"]["reset_count"] == 3
    text = cli("inspect", "-", stdin=CERTIFICATION).out
    assert "a certification of a key" in text
    assert "extraData        empty" in text
    assert "clock            1.500 s  safe: yes" in text


def test_another_statement_of_a_tpm_is_named(cli: Cli) -> None:
    ended = cli("inspect", "-", stdin=CERTIFICATION[:4] + b"\x80\x14" + CERTIFICATION[6:])
    assert (ended.status, "TPM_ST_ATTEST_NV" in ended.out) == (0, True)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (CERTIFICATION[:4] + b"\x12\x34", "TPMS_ATTEST at 0x4: type 0x1234"),
        (CERTIFICATION[:-1], "TPMS_ATTEST at 0x"),
        (ECDSA + b"\0", "TPMT_SIGNATURE at 0x48: 1 bytes follow"),
        (bytes.fromhex("0014000400000000"), "TPMT_SIGNATURE at 0x2"),
    ],
)
def test_what_a_tpm_does_not_sign_like_that(raw: bytes, said: str, cli: Cli) -> None:
    ended = cli("inspect", "-", "--json", stdin=raw)
    assert ended.status == 2
    assert said in ended.json["detail"]


@pytest.mark.parametrize(
    ("raw", "said", "shown"),
    [
        (ECDSA, "ECDSA with SHA256", "22" * 32),
        (bytes.fromhex("0014000b0100") + b"\x33" * 256, "RSASSA with SHA256", "33" * 256),
        (bytes.fromhex("0016000c0100") + b"\x44" * 256, "RSAPSS with SHA384", "44" * 256),
        (bytes.fromhex("0005000b") + b"\x55" * 32, "HMAC with SHA256", "55" * 32),
    ],
)
def test_signatures(raw: bytes, said: str, shown: str, cli: Cli) -> None:
    ended = cli("inspect", "-", stdin=raw)
    assert f"TPMT_SIGNATURE: {said}" in ended.out
    assert shown in ended.out


BANKS = (alg.SHA256, alg.SHA384)
SECURE_BOOT = UefiVariable(GLOBAL_VARIABLE, "SecureBoot", b"\1").encode()
FILE = bytes.fromhex("04041600") + "\\BOOT.EFI".encode("utf-16-le")
IMAGE = ImageLoad(
    address=1, length=2, link_time_address=0, device_path=FILE + bytes.fromhex("7fff0400")
).encode()


def log(*events: Event, banks: tuple[int, ...] = BANKS, **more: Any) -> EventLog:
    return EventLog(
        spec_id=SpecId(digest_sizes={one: alg.HASH_SIZES[one] for one in banks}), events=events, **more
    )


EVENTS = (
    Event.measuring(0, ev.EV_NO_ACTION, b"StartupLocality\0\3", BANKS),
    Event.measuring(0, ev.EV_S_CRTM_VERSION, "SIMULATED 1\0".encode("utf-16-le"), BANKS),
    Event.measuring(7, ev.EV_EFI_VARIABLE_DRIVER_CONFIG, SECURE_BOOT, BANKS),
    Event.measuring(7, ev.EV_EFI_VARIABLE_AUTHORITY, b"no variable\x80", BANKS),
    Event.measuring(4, ev.EV_EFI_BOOT_SERVICES_APPLICATION, IMAGE, BANKS, b"the image"),
    Event.measuring(4, ev.EV_EFI_BOOT_SERVICES_APPLICATION, bytes(32), BANKS, b"another image"),
    Event.measuring(8, ev.EV_IPL, b"kernel_cmdline: quiet\0", BANKS, b"quiet"),
    Event.measuring(8, 0x12345678, b"\x1b[2J" * 20, BANKS),
    Event.measuring(8, ev.EV_IPL, b"", BANKS),
    Event.measuring(8, ev.EV_IPL, b"\xff", BANKS),
    Event.measuring(8, ev.EV_IPL, b"x" * 1000, BANKS),
)


def test_an_event_log(cli: Cli) -> None:
    raw = log(*EVENTS, padding=b"\xff" * 9).encode()
    ended = cli("inspect", "-", stdin=raw)
    lines = [line.strip().partition("  ")[2].strip() for line in ended.out.splitlines()]
    image = hashlib.sha256(b"the image").hexdigest()
    command = hashlib.sha256(b"quiet").hexdigest()
    for said in (
        "EV_NO_ACTION                      StartupLocality: 03  measured into no register",
        "PCR 0  EV_S_CRTM_VERSION                 SIMULATED 1  as measured",
        "PCR 7  EV_EFI_VARIABLE_DRIVER_CONFIG     SecureBoot = 01  as measured",
        "PCR 7  EV_EFI_VARIABLE_AUTHORITY         6e6f207661726961626c6580  as measured",
        f"PCR 4  EV_EFI_BOOT_SERVICES_APPLICATION  \\BOOT.EFI  measured is {image}",
        f"PCR 8  EV_IPL                            kernel_cmdline: quiet  measured is {command}",
        "PCR 8  EV_IPL                            nothing  as measured",
        f"PCR 8  EV_IPL                            {'x' * 400}…  as measured",
        "9 bytes ff",
    ):
        assert said in lines
    assert "an image without a path" in ended.out
    assert f"PCR 8  0x12345678                        {'1b5b324a' * 8}… (80 bytes)" in ended.out
    shown = cli("inspect", "-", "--json", stdin=raw).json
    assert (shown["kind"], shown["banks"], shown["startup_locality"]) == (
        "event-log",
        ["sha256", "sha384"],
        3,
    )
    assert [event["text_is_measured"] for event in shown["events"]] == [
        *(False, True, True, True),
        *(False, False, False, True, True, True, True),
    ]
    replayed = log(*EVENTS).replay(alg.SHA384)
    assert shown["replay"]["sha384"] == {str(pcr): replayed[pcr].hex() for pcr in (0, 4, 7, 8)}


def test_a_long_log_is_shown_in_part_and_told_in_full(cli: Cli) -> None:
    raw = log(*[EVENTS[1]] * 1001).encode()
    ended = cli("inspect", "-", stdin=raw)
    assert "Shown are the first 1000 events" in ended.out
    assert ended.out.count("EV_S_CRTM_VERSION") == 1000
    assert len(cli("inspect", "-", "--json", stdin=raw).json["events"]) == 1001


def test_a_log_without_a_bank_of_ours() -> None:
    sheet = identify(
        EventLog(
            spec_id=SpecId(digest_sizes={alg.SHA1: 20}),
            events=(Event(pcr=1, type=ev.EV_IPL, digests={alg.SHA1: b"\7" * 20}, data=b"text"),),
        ).encode()
    )
    assert "no bank accepted here" in sheet.title
    assert "07" * 20 in sheet.sections[1].rows[0].note
    assert sheet.document["replay"] == {}


def test_a_log_that_stops_to_fit(cli: Cli) -> None:
    ended = cli("inspect", "-", "--json", stdin=log(*EVENTS).encode()[:-1])
    assert ended.status == 2
    assert "event log at 0x" in ended.json["detail"]


def quote(**changes: Any) -> QuoteEvidence:
    values = {7: log(*EVENTS).replay(alg.SHA256)[7], 16: b"\1" * 32}
    known: dict[str, Any] = {
        "ak_public": signing_key(),
        "attest": CERTIFICATION,
        "signature": ECDSA,
        "pcrs": PcrValues.of({"sha256": values}),
        "event_log": log(*EVENTS).encode(),
    }
    return QuoteEvidence(**known | changes)


def notes(sheet: Sheet) -> list[str]:
    return [row.note for row in sheet.sections[0].rows]


def test_a_quote_with_what_belongs_to_it() -> None:
    sheet = quote_sheet(quote())
    assert [place for place, _ in sheet.parts] == ["attestation key", "statement", "signature", "event log"]
    assert sheet.document["pcrs"]["sha256"]["16"] == "01" * 32
    assert notes(sheet) == ["as the log replays", "the log replays to another value"]
    other_bank = log(Event.measuring(0, ev.EV_IPL, b"", (alg.SHA384,)), banks=(alg.SHA384,))
    assert notes(quote_sheet(quote(event_log=other_bank.encode()))) == ["", ""]
    bare = quote_sheet(quote(event_log=None))
    assert (len(bare.parts), notes(bare)) == (3, ["", ""])


@pytest.mark.parametrize("member", ["ak_public", "attest", "signature", "event_log"])
def test_a_malformed_member_of_a_quote_is_refused(member: str) -> None:
    with pytest.raises(WireError):
        quote_sheet(quote(**{member: b"\0"}))


def document(**more: Any) -> bytes:
    return json.dumps(QuoteDocument.of(quote()).model_dump(mode="json") | more).encode()


def test_the_answer_of_an_attester_to_a_request_for_a_quote(cli: Cli) -> None:
    raw = document(qualifying_data="AAAA", channel_binding="none", simulated=True, key="p256")
    ended = cli("inspect", "-", stdin=raw)
    assert f"Quote document: Quote of a TPM over sha256 7, 16 ({len(raw)} bytes)" in ended.out
    assert "qualifying data  AAAA" in ended.out
    assert "as the log replays" in ended.out
    shown = cli("inspect", "-", "--json", stdin=document()).json
    assert [part["kind"] for part in shown["parts"]] == [
        "tpmt-public",
        "tpms-attest",
        "tpmt-signature",
        "event-log",
    ]


def test_a_quote_document_that_is_none(cli: Cli) -> None:
    ended = cli("inspect", "-", "--json", stdin=document(attest="!"))
    assert (ended.status, ended.json["pointer"]) == (2, "/attest")
    assert (
        "TPMT_PUBLIC at 0x" in cli("inspect", "-", "--json", stdin=document(ak_public="AAAA")).json["detail"]
    )


def test_evidence_with_a_quote(cli: Cli) -> None:
    evidence = json.loads(cli("attest").out)
    evidence["binding"] = {"type": "session", "construction": CONSTRUCTION}
    evidence["quote"] = json.loads(document())
    shown = cli("inspect", "-", "--json", stdin=json.dumps(evidence).encode()).json
    assert [part["place"] for part in shown["parts"]] == ["report", "manifest", "certificates", "quote"]
    evidence["quote"]["attest"] = "AAAA"
    ended = cli("inspect", "-", "--json", stdin=json.dumps(evidence).encode())
    assert (ended.status, ended.json["pointer"]) == (2, "/quote")
