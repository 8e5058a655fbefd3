"""`inspect` on what TPMs and SVSMs say, on documents, and on whatever else there is."""

import base64
import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.cli.inspection.identify import identify
from app.errors import AttestError
from app.wire import guid
from app.wire.manifest import EkManifest, KeyListManifest, parse_manifest
from app.wire.services_manifest import ServiceEntry, ServicesManifest
from app.wire.uefi_mm import UefiMmManifest
from tests.cli.command_line import Cli


def ek(vectors: Path) -> bytes:
    return (vectors / "synthetic/genoa/svsm-vtpm-good/manifest-tpmt_public.bin").read_bytes()


def test_a_public_area_bare_and_sized(cli: Cli, vectors: Path) -> None:
    bare = cli("inspect", "-", "--json", stdin=ek(vectors)).json
    assert (bare["kind"], bare["key"]["template"]) == ("vtpm-manifest-0", "L-1")
    sized = cli(
        "inspect", vectors / "synthetic/genoa/svsm-vtpm-tpm2b/manifest-tpm2b_public.bin", "--json"
    ).json
    assert sized["kind"] == "tpm2b-public"
    assert sized["key"].keys() == bare["key"].keys()
    text = cli("inspect", "-", stdin=ek(vectors)).out
    assert "fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt" in text
    assert "-----BEGIN PUBLIC KEY-----" in text
    assert bare["key"]["name"] in text


def test_a_key_list(cli: Cli, vectors: Path) -> None:
    manifest = parse_manifest(ek(vectors))
    assert isinstance(manifest, EkManifest)
    other = manifest.ek.__class__.parse(ek(vectors)[:-1] + b"\x01")
    raw = KeyListManifest((manifest.ek, other)).encode()
    listed = cli("inspect", "-", "--json", stdin=raw).json
    assert (listed["kind"], len(listed["keys"])) == ("vtpm-manifest-1", 2)
    assert "Key 2" in cli("inspect", "-", stdin=raw).out


def test_a_services_manifest_and_a_uefi_mm_manifest(cli: Cli, vectors: Path) -> None:
    uefi = UefiMmManifest(2).encode()
    unknown = guid.EXTRA_PLATFORM_INFO
    raw = ServicesManifest(
        (
            ServiceEntry(guid.SERVICE_VTPM, ek(vectors)),
            ServiceEntry(guid.SERVICE_UEFI_MM, uefi),
            ServiceEntry(unknown, b"\x99" * 5),
            ServiceEntry(guid.VCEK, b""),
        )
    ).encode()
    ended = cli("inspect", "-", "--json", stdin=raw)
    assert [part["kind"] for part in ended.json["parts"]] == [
        "vtpm-manifest-0",
        "uefi-mm-manifest",
        "unknown-service-data",
    ]
    assert [entry["size"] for entry in ended.json["services"]] == [314, 8, 5, 0]
    assert "no data" in cli("inspect", "-", stdin=raw).out
    alone = cli("inspect", "-", stdin=uefi)
    assert "secure_boot  yes" in alone.out
    assert "No service is listed" in cli("inspect", "-", stdin=ServicesManifest(()).encode()).out


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (guid.SERVICES_MANIFEST.bytes_le + bytes(8), "services manifest at 0x10"),
        (bytes.fromhex("0001000b000300b20020"), "TPMT_PUBLIC at 0xa"),
        (bytes.fromhex("013a0001000b000300b2"), "TPM2B_PUBLIC at 0x2"),
        (bytes.fromhex("00000001000000020000" + "0001000b"), "TPMT_PUBLIC at 0xa"),
        (bytes.fromhex("0900000002000000"), "UEFI MM manifest at 0x0: version 9"),
    ],
)
def test_a_malformed_structure_is_named(raw: bytes, said: str, cli: Cli) -> None:
    ended = cli("inspect", "-", "--json", stdin=raw)
    assert ended.status == 2
    assert said in ended.json["detail"]


def test_evidence_and_what_is_in_it(cli: Cli, tmp_path: Path) -> None:
    evidence = tmp_path / "evidence.json"
    evidence.write_text(cli("attest", "--service", "all").out)
    ended = cli("inspect", evidence, "--json")
    assert [part["place"] for part in ended.json["parts"]] == ["report", "manifest", "certificates"]
    text = cli("inspect", evidence).out
    for said in (
        "SVSM evidence",
        "trusted by no verifier",
        "SIMULATED",
        "EK by template L-1",
        "VCEK certificate",
    ):
        assert said in text
    bare = json.loads(evidence.read_text()) | {"manifest": None, "certificates": None, "service": None}
    bare = {name: bare[name] for name in ("report", "manifest", "binding")}
    assert "a bare SNP report" in cli("inspect", "-", stdin=json.dumps(bare).encode()).out


def test_evidence_with_a_v2_report_takes_the_line_from_its_certificate(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SVSM_ATTEST_SIMULATOR_REPORT_VERSION", "2")
    ended = cli("inspect", "-", stdin=cli("attest").out.encode())
    assert "its certificate says Genoa" in ended.out


@pytest.mark.parametrize("member", ["report", "manifest", "certificates"])
def test_what_is_malformed_inside_evidence_has_a_pointer(member: str, cli: Cli) -> None:
    document = json.loads(cli("attest").out) | {member: "AAAA"}
    ended = cli("inspect", "-", "--json", stdin=json.dumps(document).encode())
    assert (ended.status, ended.json["pointer"]) == (2, f"/{member}")


def test_a_verdict_and_a_problem(cli: Cli, vectors: Path) -> None:
    report = vectors / "genoa-v5-a" / "report.bin"
    verdict = cli("verify", "--report", report, "--certs", vectors / "certtable/genoa-good.bin", "--json").out
    ended = cli("inspect", "-", stdin=verdict.encode())
    assert "Verdict of an appraisal" in ended.out
    assert "Verdict: NONE" in ended.out
    assert cli("inspect", "-", "--json", stdin=verdict.encode()).json["kind"] == "verdict"
    problem = cli("verify", "--report", report, "--offline", "--json").out
    assert "collateral-unavailable" in cli("inspect", "-", stdin=problem.encode()).out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "an array"),
        ("{", "not JSON"),
        ('{"keys": 1}', "members: keys"),
        ('{"root_of_trust": {}}', "policy check"),
        ('{"report": 5}', "/report"),
    ],
)
def test_json_of_another_kind(text: str, said: str, cli: Cli) -> None:
    ended = cli("inspect", "-", "--json", stdin=text.encode())
    assert ended.status == 2
    assert said in ended.json["detail"] + ended.json.get("remedy", "")


def test_digits_that_stand_for_bytes(cli: Cli, vectors: Path) -> None:
    raw = (vectors / "genoa-v5-a" / "report.bin").read_bytes()
    for text, command in (
        (raw.hex(" "), "xxd -r -p"),
        (base64.encodebytes(raw).decode(), "base64 -d"),
    ):
        ended = cli("inspect", "-", stdin=text.encode())
        assert ended.status == 0
        assert command in ended.out
        assert "SEV-SNP attestation report" in ended.out


@pytest.mark.parametrize(
    "raw", [b"\xc4" * 64, b"\xc4" * 65, b"hello, world, this is plain text indeed", b"\x30\x82"]
)
def test_anything_else_is_refused_with_the_nearest_guess(raw: bytes, cli: Cli) -> None:
    ended = cli("inspect", "-", "--json", stdin=raw)
    assert ended.status == 2
    assert raw[:4].hex(" ") in ended.json["detail"] or raw[:2].hex(" ") in ended.json["detail"]


@given(raw=st.binary(max_size=2048))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_arbitrary_bytes_are_recognised_or_refused(raw: bytes) -> None:
    with contextlib.suppress(AttestError):
        json.dumps(identify(raw).to_json())


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_damaged_files_are_recognised_or_refused(data: st.DataObject, vectors: Path) -> None:
    name = data.draw(
        st.sampled_from(
            [
                "genoa-v5-a/report.bin",
                "genoa-v5-a/vcek.der",
                "certtable/genoa-good.bin",
                "crl/milan-vcek-crl-2023.der",
                "ca/milan-vcek-cert_chain.pem",
                "synthetic/genoa/svsm-vtpm-good/manifest-tpmt_public.bin",
            ]
        )
    )
    raw = bytearray((vectors / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    for damaged in (bytes(raw), bytes(raw[:cut])):
        with contextlib.suppress(AttestError):
            json.dumps(identify(damaged).to_json())


@pytest.mark.parametrize(("kind", "said"), [("p256", "template L-2"), ("p384", "P-384")])
def test_keys_on_curves(kind: str, said: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SVSM_ATTEST_SIMULATOR_EK", kind)
    ended = cli("inspect", "-", stdin=cli("attest").out.encode())
    assert ended.status == 0
    assert said in ended.out


def test_a_key_that_signs_is_no_ek(cli: Cli, vectors: Path) -> None:
    """A restricted signing key with RSASSA and SHA-256, as AKs are; its exponent is written out."""
    modulus = ek(vectors)[58:]
    head = bytes.fromhex("0001000b00050072" + "0000" + "0010" + "0014000b" + "0800" + "00010001" + "0100")
    ended = cli("inspect", "-", stdin=head + modulus)
    assert "a TPM's RSA-2048 key (restricted: yes, signs: yes)" in ended.out
    assert "RSASSA with SHA256" in ended.out
    assert "not an EK by any TCG template" in ended.out
    assert "exponent 65537, written out" in ended.out
