"""`verify` of evidence with a quote, and `policy` of what it shows."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from app.api.evidence_document import EvidenceDocument
from app.cli import channel_option, pcr_option
from app.cli.failure import InFileError, InputError
from app.wire import b64
from app.wire.evidence import Binding, Evidence
from app.wire.manifest import KeyListManifest
from app.wire.session import Channel, ChannelType
from app.wire.tpm import algorithms as alg
from app.wire.tpm.pcr import PcrSelection
from app.wire.uefi_mm import UefiMmManifest
from tests.appraisal.quotes import AK, Making, ecc_ak
from tests.appraisal.subjects import EK, REPORT
from tests.cli.command_line import Cli, Ended
from tests.cli.services import Scripted
from tests.interop.software_tpm import demand

NONCE = "5a" * 64


@pytest.fixture
def quoted(service: str, cli: Cli, tmp_path: Path) -> Callable[..., Path]:
    """Evidence of the service's TPM."""
    demand("swtpm")

    def make(*options: str) -> Path:
        ended = cli("attest", "--nonce", NONCE, "--url", service, "--quote", *options)
        assert ended.status == 0, ended.err
        file = tmp_path / "evidence.json"
        file.write_text(ended.out)
        return file

    return make


def not_passed(ended: Ended) -> dict[str, str]:
    good = {"passed", "not_requested"}
    found = {f["check"]: f["outcome"] for f in ended.json["findings"] if f["outcome"] not in good}
    return {check: outcome for check, outcome in found.items() if check != "snp.simulated"}


# Where it is appraised: here, or by the service.
PLACES = {"here": ["--allow-simulator"], "elsewhere": ["--url", "URL"]}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, service: str) -> list[str]:
    return [service if option == "URL" else option for option in PLACES[request.param]]


@pytest.mark.parametrize("key", ["p256", "rsa2048"])
def test_an_attester_shows_whose_quote_it_is(
    place: list[str], key: str, service: str, cli: Cli, quoted: Callable[..., Path]
) -> None:
    file = quoted("--key", key, "--event-log")
    ended = cli("verify", file, "--nonce", NONCE, *place, "--attester", service, "--json")
    assert (ended.status, not_passed(ended)) == (0, {}), ended
    assert ended.json["claims"]["vtpm"]["ak_binding"] == "activate"
    assert "--attester" not in ended.err


def test_without_an_attester_the_key_is_nobodys(
    place: list[str], cli: Cli, quoted: Callable[..., Path]
) -> None:
    ended = cli("verify", quoted(), "--nonce", NONCE, *place, "--json")
    assert (ended.status, not_passed(ended)) == (1, {"vtpm.ak_binding": "failed"})
    assert "without --attester" in ended.err
    finding = next(f for f in ended.json["findings"] if f["check"] == "vtpm.ak_binding")
    assert "POST /ak-challenges" in finding["remedy"]


def test_without_a_nonce_there_is_no_verdict(service: str, cli: Cli, quoted: Callable[..., Path]) -> None:
    ended = cli("verify", quoted(), "--allow-simulator", "--attester", service)
    assert ended.status == 1
    assert "no verdict without snp.report_data, vtpm.binding, vtpm.quote.nonce" in ended.out


def test_the_registers_are_those_that_were_asked_for(
    place: list[str], service: str, cli: Cli, quoted: Callable[..., Path]
) -> None:
    file = quoted("--pcrs", "sha256:0-7,14+sha384:0")
    rest = ("--nonce", NONCE, *place, "--attester", service, "--json")
    assert not_passed(cli("verify", file, *rest)) == {"vtpm.quote.selection": "failed"}
    assert not_passed(cli("verify", file, *rest, "--pcrs", "sha256:0-7,14+sha384:0")) == {}
    other_order = cli("verify", file, *rest, "--pcrs", "sha384:0+sha256:0-7,14")
    assert not_passed(other_order) == {"vtpm.quote.selection": "failed"}


def test_the_channel_is_the_one_that_was_seen(
    place: list[str], service: str, cli: Cli, quoted: Callable[..., Path]
) -> None:
    options = ("--nonce", NONCE, *place, "--attester", service, "--json")
    ended = cli("verify", quoted(), *options, "--channel-binding", f"tls-server-end-point:{'00' * 32}")
    assert set(not_passed(ended)) == {"snp.report_data", "vtpm.binding", "vtpm.quote.nonce"}


def test_an_attester_that_was_reset_has_another_key(
    place: list[str], cli: Cli, quoted: Callable[..., Path], scripted: tuple[str, type[Scripted]]
) -> None:
    url, handler = scripted
    handler.answer = (200, json.dumps({"ak_public": b64.encode(ecc_ak(9).public.encode())}).encode())
    ended = cli("verify", quoted(), "--nonce", NONCE, *place, "--attester", url)
    assert ended.status == 2
    assert "another one than the attester's" in ended.err


@pytest.mark.parametrize("answer", [{}, {"secret": 1}, {"secret": "A!A="}])
def test_an_attester_that_answers_something_else(
    answer: dict[str, Any],
    cli: Cli,
    quoted: Callable[..., Path],
    scripted: tuple[str, type[Scripted]],
) -> None:
    file = quoted()
    url, handler = scripted
    ak_public = json.loads(file.read_text())["quote"]["ak_public"]
    handler.answer = (200, json.dumps({"ak_public": ak_public, **answer}).encode())
    ended = cli("verify", file, "--nonce", NONCE, "--allow-simulator", "--attester", url)
    assert ended.status == 4
    assert "has no secret" in ended.err


def test_a_verifier_that_answers_something_else(
    service: str, cli: Cli, quoted: Callable[..., Path], scripted: tuple[str, type[Scripted]]
) -> None:
    url, handler = scripted
    handler.answer = (200, b'{"challenge": "x"}')
    ended = cli("verify", quoted(), "--nonce", NONCE, "--url", url, "--attester", service)
    assert ended.status == 4
    assert "has no 'credential_blob'" in ended.err


# --- evidence by software keys, for what no service gives ---------------------------------------


def evidence(tmp_path: Path, **members: Any) -> Path:
    whole = Evidence(
        **{
            "report": REPORT.encode(),
            "manifest": EK,
            "binding": Binding.SESSION,
            "quote": Making().evidence(),
            **members,
        }
    )
    file = tmp_path / "evidence.json"
    file.write_text(EvidenceDocument.from_evidence(whole).model_dump_json())
    return file


NO_EK = KeyListManifest((AK.public, ecc_ak(9).public)).encode()
UNSUITABLE: list[tuple[dict[str, Any], str]] = [
    ({"quote": None, "binding": Binding.DIRECT}, "has a quote, and this has none"),
    ({"manifest": None}, "names no EK"),
    ({"manifest": UefiMmManifest(2).encode()}, "names no EK"),
    ({"manifest": NO_EK}, "names no EK"),
]


@pytest.mark.parametrize(("members", "word"), UNSUITABLE)
def test_evidence_that_no_attester_can_help(
    members: dict[str, Any], word: str, cli: Cli, tmp_path: Path
) -> None:
    file = evidence(tmp_path, **members)
    ended = cli("verify", file, "--allow-simulator", "--attester", "http://127.0.0.1:9")
    assert ended.status == 2
    assert word in ended.err


def test_a_key_that_no_attester_has(cli: Cli, tmp_path: Path) -> None:
    making = Making(ak=ecc_ak(3, alg.P384, alg.SHA384))
    file = evidence(tmp_path, quote=making.evidence())
    ended = cli("verify", file, "--allow-simulator", "--attester", "http://127.0.0.1:9")
    assert (ended.status, "is P-384; attesters have no such key" in ended.err) == (2, True)


@pytest.mark.parametrize("part", ["ak_public", "attest", "signature"])
def test_a_malformed_part_names_the_file(part: str, cli: Cli, tmp_path: Path) -> None:
    file = evidence(tmp_path)
    document = json.loads(file.read_text())
    document["quote"][part] = b64.encode(b64.decode(document["quote"][part]) + b"\0")
    file.write_text(json.dumps(document))
    ended = cli("verify", file, "--allow-simulator")
    assert ended.status == 2
    assert file.name in ended.err
    assert "follow" in ended.err


def test_evidence_that_contradicts_itself_names_the_file(cli: Cli, tmp_path: Path) -> None:
    file = evidence(tmp_path)
    document = json.loads(file.read_text())
    document["binding"] = {"type": "direct"}
    file.write_text(json.dumps(document))
    ended = cli("verify", file, "--nonce", NONCE, "--allow-simulator", "--json")
    assert (ended.status, ended.json["pointer"], ended.json["file"]) == (2, "/binding", str(file))


# --- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "banks"),
    [
        ("sha256:0,1,7", {"sha256": [0, 1, 7]}),
        ("sha256:0-7,14", {"sha256": [*range(8), 14]}),
        ("sha256:0-23", {"sha256": range(24)}),
        ("sha256:all+sha384: 0 , 2", {"sha256": range(24), "sha384": [0, 2]}),
    ],
)
def test_registers_as_they_are_written(text: str, banks: dict[str, Any]) -> None:
    assert pcr_option.read_pcrs(text) == PcrSelection.of(banks)
    again = str(pcr_option.read_pcrs(text))
    assert pcr_option.read_pcrs(again) == PcrSelection.of(banks)


@pytest.mark.parametrize(
    "text",
    [
        *("", "0,1", "sha256", "sha256:", "sha256:24", "sha256:0-24", "sha256:7-0", "sha256:0-7,7"),
        *("sha1:0", "sha256:0+sha256:1", "sha256:-1", "sha256:1-", "sha256:٣", "sha256:001"),
    ],
)
def test_registers_that_are_none(text: str) -> None:
    with pytest.raises(InputError):
        pcr_option.read_pcrs(text)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, bytes]:
    """A server's certificate as a PEM file, and its SHA-256."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "attester")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "server.pem"
    file.write_bytes(made.public_bytes(Encoding.PEM))
    return file, made.fingerprint(hashes.SHA256())


def test_a_channel_by_its_value_or_by_the_certificate(certificate: tuple[Path, bytes]) -> None:
    file, digest = certificate
    expected = Channel(ChannelType.TLS_SERVER_END_POINT, digest)
    assert channel_option.read_channel(f"tls-server-end-point:{file}") == expected
    assert channel_option.read_channel(f"tls-server-end-point:{digest.hex()}") == expected
    exporter = channel_option.read_channel("tls-exporter:00FF")
    assert exporter == Channel(ChannelType.TLS_EXPORTER, b"\0\xff")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("tls-unique:00", "no type of channel"),
        ("", "no type of channel"),
        ("none:00", "a type and a value"),
        ("tls-exporter", "a type and a value"),
        ("tls-exporter:", "a type and a value"),
        ("tls-exporter:file.pem", "hexadecimal digits"),
        (f"tls-exporter:{'00' * 65}", "65 bytes"),
        ("tls-server-end-point:no-such-file.pem", "cannot be read"),
    ],
)
def test_a_channel_that_is_none(text: str, word: str) -> None:
    with pytest.raises(InputError, match=word):
        channel_option.read_channel(text)


def test_a_file_that_is_no_certificate(tmp_path: Path) -> None:
    file = tmp_path / "server.pem"
    file.write_text("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n")
    with pytest.raises(InFileError, match=r"server\.pem"):
        channel_option.read_channel(f"tls-server-end-point:{file}")


# --- policy -------------------------------------------------------------------------------------


def test_a_policy_from_evidence_with_a_quote_asks_for_as_much(
    service: str, cli: Cli, quoted: Callable[..., Path], tmp_path: Path
) -> None:
    file = quoted("--pcrs", "sha256:0-8+sha384:14", "--event-log")
    drafted = cli("policy", "init", "--from", file, "--allow-simulator")
    assert drafted.status == 0
    policy = tmp_path / "policy.yaml"
    policy.write_text(drafted.out)
    shown = cli("policy", "check", policy)
    assert "required" in next(line for line in shown.out.split("\n") if line.strip().startswith("quote "))
    assert "sha256:0-8+sha384:14" in shown.out
    found = cli("policy", "check", policy, "--json").json["policy"]
    assert set(found["reference_values"]["vtpm"]["pcrs"]["sha256"]) == {str(pcr) for pcr in range(8)}
    assert "sha384" not in found["reference_values"]["vtpm"]["pcrs"]
    rest = ("--nonce", NONCE, "--allow-simulator", "--policy", policy, "--json")
    ended = cli("verify", file, *rest, "--attester", service)
    assert (ended.status, not_passed(ended)) == (0, {})
    plain = tmp_path / "plain.json"
    plain.write_text(cli("attest", "--nonce", NONCE, "--url", service).out)
    assert set(not_passed(cli("verify", plain, *rest))) == {"vtpm.quote.signature", "vtpm.pcrs"}


def test_a_quote_that_does_not_hold_becomes_no_policy(cli: Cli, quoted: Callable[..., Path]) -> None:
    file = quoted()
    document = json.loads(file.read_text())
    document["quote"]["pcrs"]["sha256"]["0"] = "11" * 32
    file.write_text(json.dumps(document))
    drafted = cli("policy", "init", "--from", file, "--allow-simulator")
    assert drafted.status == 0
    assert "pcrs" not in drafted.out
    assert "require_quote" not in drafted.out


def test_registers_that_firmware_does_not_write_become_no_reference_values(
    cli: Cli, quoted: Callable[..., Path]
) -> None:
    drafted = cli("policy", "init", "--from", quoted("--pcrs", "sha256:23"), "--allow-simulator")
    assert 'pcrs: {"sha256": [23]}' in drafted.out
    assert "\n    pcrs:\n" not in drafted.out


def test_check_warns_of_values_that_are_not_quoted(cli: Cli, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "version: 1\nid: x\n"
        "policy: {vtpm: {pcrs: {sha256: [0]}, require_event_log: true, secure_boot: true}}\n"
        f'reference_values: {{vtpm: {{pcrs: {{sha256: {{0: ["{"00" * 32}"], 7: ["{"00" * 32}"]}}}}}}}}\n'
    )
    shown = cli("policy", "check", policy).out
    assert "only where a request asks for them: sha256:7." in shown
    assert "must be on" in shown
    policy.write_text(policy.read_text().replace("secure_boot: true", "secure_boot: false"))
    assert "must be off" in cli("policy", "check", policy).out
