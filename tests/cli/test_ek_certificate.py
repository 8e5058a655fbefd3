"""`ek-certificate`: from a verifier's nonce to a certificate in a file, or in a TPM."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key

from app.assembly import make_simulator
from app.config import Settings
from app.evidence.simulator.backend import SimulatorBackend
from app.evidence.simulator.ek import EkKind
from app.main import create_app
from app.tpm.client import Tpm
from app.tpm.ek_certificates import INDEXES
from app.tpm.transport import Transport
from app.trust.certificates import der
from tests.api.ek_authority import authority_settings
from tests.api.service import served
from tests.cli.command_line import Cli, Ended
from tests.interop.software_tpm import demand
from tests.trust.ek_ca import issue
from tests.wire.samples import SWTPM_EK

VERIFIER = "http://verifier.invalid"
NONCES, CERTIFICATES = f"{VERIFIER}/ek-certificates/nonces", f"{VERIFIER}/ek-certificates"


class Site:
    """Both roles behind one URL, with an authority, and the simulator that is attested there."""

    def __init__(self, url: str, backend: SimulatorBackend, authority: Path) -> None:
        self.url = url
        self.backend = backend
        self.authority = authority

    @property
    def ca(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.authority / "ca.pem").read_bytes())

    def records(self) -> list[dict[str, Any]]:
        log = self.authority / "issued.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.fixture(scope="module")
def site(simulator_state: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    authority = tmp_path_factory.mktemp("ek-ca")
    settings = Settings(
        simulator_state_dir=simulator_state,
        store=tmp_path_factory.mktemp("store"),
        log_level="error",
        allow_simulator=True,
        **authority_settings(authority),
    )
    backend = make_simulator(settings)
    with served(create_app(settings, backend=backend), settings.server_options()) as url:
        yield Site(url, backend, authority)


def certificate_of(ended: Ended) -> x509.Certificate:
    assert ended.status == 0, ended.err
    return x509.load_pem_x509_certificate(ended.out.encode())


def test_this_machine_s_ek_is_certified(cli: Cli, site: Site) -> None:
    ended = cli("ek-certificate", "--verifier", site.url)
    certificate = certificate_of(ended)
    certificate.verify_directly_issued_by(site.ca)
    (record,) = (one for one in site.records() if one["serial"] == f"{certificate.serial_number:040x}")
    assert record["ek_name"] in ended.err
    assert record["serial"] in ended.err
    assert record["not_after"] in ended.err


@pytest.mark.parametrize("flags", [(), ("--quote",)])
def test_an_attester_s_ek_is_certified(cli: Cli, site: Site, flags: tuple[str, ...]) -> None:
    demand(*("swtpm" for _ in flags))
    certificate = certificate_of(
        cli("ek-certificate", "--verifier", site.url, "--attester", site.url, *flags)
    )
    ek = httpx.get(f"{site.url}/ek").json()
    assert load_pem_public_key(ek["pem"].encode()) == certificate.public_key()


def test_it_goes_into_a_file(cli: Cli, site: Site, tmp_path: Path) -> None:
    for flags, read in (
        ((), x509.load_pem_x509_certificate),
        (("--der",), x509.load_der_x509_certificate),
    ):
        ended = cli("ek-certificate", "--verifier", site.url, "--out", tmp_path / "ek", *flags)
        assert (ended.status, ended.out) == (0, "")
        read((tmp_path / "ek").read_bytes()).verify_directly_issued_by(site.ca)


def test_the_whole_answer(cli: Cli, site: Site) -> None:
    document = cli("ek-certificate", "--verifier", site.url, "--json").json
    assert document["verdict"] == document["appraisal"]["verdict"] == "affirming"
    assert document["ek_sha256"] == document["appraisal"]["claims"]["vtpm"]["ek_sha256"]


@pytest.fixture
def channel(site: Site, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Transport]:
    """The device is the attested VM's TPM."""
    demand("swtpm")
    vtpm = site.backend.vtpm
    assert vtpm is not None
    monkeypatch.setattr("app.cli.ek_certificate.DeviceTransport", lambda _: vtpm.open())
    return vtpm.open


def test_it_goes_into_the_tpm_and_a_newer_one_replaces_it(
    cli: Cli, site: Site, channel: Callable[[], Transport]
) -> None:
    held = set()
    for _ in range(2):
        ended = cli("ek-certificate", "--verifier", site.url, "--attester", site.url, "--write-nv")
        assert (ended.status, ended.out) == (0, "")
        assert "NV index 0x01c00002 of /dev/tpmrm0" in ended.err
        held.add(Tpm(channel(), timeout_s=30).nv_read(INDEXES["L-1"]))
    certificates = [x509.load_der_x509_certificate(one) for one in held]
    assert len(certificates) == 2
    for certificate in certificates:
        certificate.verify_directly_issued_by(site.ca)


@pytest.mark.parametrize("held", [der(issue(SWTPM_EK)), b"what is this"])
def test_what_somebody_else_put_there_stays(
    cli: Cli, site: Site, channel: Callable[[], Transport], held: bytes
) -> None:
    index = INDEXES["L-1"]
    tpm = Tpm(channel(), timeout_s=30)
    for handle in tpm.handles(0x01000000):
        if handle == index:
            tpm.nv_undefine(index)
    tpm.nv_define(index, len(held))
    tpm.nv_write(index, held)
    ended = cli("ek-certificate", "--verifier", site.url, "--attester", site.url, "--write-nv")
    assert ended.status == 4
    assert "holds something of somebody else" in ended.err
    assert tpm.nv_read(index) == held
    tpm.nv_undefine(index)


def test_another_tpm_does_not_get_it(
    cli: Cli, site: Site, channel: Callable[[], Transport], monkeypatch: pytest.MonkeyPatch
) -> None:
    del channel
    monkeypatch.setenv("SVSM_ATTEST_SIMULATOR_EK", EkKind.P_384.value)
    monkeypatch.setenv("SVSM_ATTEST_SIMULATOR_VTPM", "none")
    ended = cli("ek-certificate", "--verifier", site.url, "--write-nv")
    assert ended.status == 4
    assert "another EK" in ended.err


def test_a_machine_without_a_tpm(
    cli: Cli, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SVSM_ATTEST_TPM_DEVICE", str(tmp_path / "tpmrm0"))
    ended = cli("ek-certificate", "--verifier", site.url, "--write-nv", "--json")
    assert ended.status == 4
    assert ended.json["cause"] == "tpm-missing"


def test_a_refusal_tells_what_the_appraisal_found(
    cli: Cli, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SVSM_ATTEST_SIMULATOR_FAULT", "snp.vmpl")
    ended = cli("ek-certificate", "--verifier", site.url)
    assert ended.status == 1
    assert ended.out == ""
    assert "snp.vmpl  failed: " in ended.err
    assert "a certificate takes affirming" in ended.err
    document = cli("ek-certificate", "--verifier", site.url, "--json").json
    assert document["type"] == "urn:svsm-attest:problem:not-affirmed"
    assert "snp.vmpl" in {finding["check"] for finding in document["findings"]}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "--verifier"),
        (("--verifier", "nowhere"), "no http or https URL"),
        (("--verifier", VERIFIER, "--quote"), "name it with --attester"),
        (("--verifier", VERIFIER, "--der"), "name it with --out"),
    ],
)
def test_usage(cli: Cli, options: tuple[str, ...], reason: str) -> None:
    ended = cli("ek-certificate", *options)
    assert ended.status == 2
    assert reason in ended.err


@pytest.mark.parametrize("nonce", [None, 7, "AAAA", "?", "A" * 87])
def test_a_verifier_without_a_nonce(cli: Cli, nonce: Any) -> None:
    with respx.mock:
        respx.post(NONCES).respond(json={"nonce": nonce})
        ended = cli("ek-certificate", "--verifier", VERIFIER)
    assert ended.status == 4
    assert "holds no nonce of 64 bytes" in ended.err


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (None, "holds no certificate"),
        ("\u00e9", "holds no certificate"),
        ("x" * 100_000, "holds no certificate"),
        (issue(SWTPM_EK).public_bytes(Encoding.PEM).decode(), "for another key than the attested EK"),
    ],
)
def test_a_verifier_that_answers_with_something_else(cli: Cli, certificate: Any, reason: str) -> None:
    with respx.mock:
        respx.post(NONCES).respond(json={"nonce": "A" * 86 + "=="})
        respx.post(CERTIFICATES).respond(content=json.dumps({"certificate": certificate}))
        ended = cli("ek-certificate", "--verifier", VERIFIER)
    assert ended.status == 4
    assert reason in ended.err
    assert ended.out == ""


def test_findings_of_any_shape_are_shown_or_not(cli: Cli) -> None:
    problem = {"type": "urn:svsm-attest:problem:not-affirmed", "status": 403, "detail": "no\x1b[2J"}
    for findings in ("text", [1, None], [{"check": "snp.vmpl\x1b[2J", "why": ["x"]}]):
        with respx.mock:
            respx.post(NONCES).respond(json={"nonce": "A" * 86 + "=="})
            respx.post(CERTIFICATES).respond(403, json={**problem, "findings": findings})
            ended = cli("ek-certificate", "--verifier", VERIFIER)
        assert ended.status == 1
        assert "\x1b" not in ended.err
