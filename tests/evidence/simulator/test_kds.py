import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from app.errors import CollateralUnavailableError
from app.evidence.simulator.authority import CertificateAuthority
from app.evidence.simulator.endorsements import SimulatedEndorsements
from app.evidence.simulator.faults import Fault
from app.evidence.simulator.kds import SimulatedKds
from app.evidence.simulator.processor import SecurityProcessor
from app.evidence.simulator.vault import Vault
from app.trust.kds import KdsClient
from app.trust.names import VekKind
from app.trust.vek import read_vek
from app.wire.product import ProductLine
from app.wire.tcb import TcbVersion

AuthorityOf = Callable[[ProductLine], CertificateAuthority]
BASE = "https://kds.simulated.invalid"


@pytest.fixture(scope="module")
def chips() -> dict[ProductLine, SecurityProcessor]:
    return {line: SecurityProcessor(line, bytes(32)) for line in (ProductLine.MILAN, ProductLine.TURIN)}


@pytest.fixture(scope="module")
def kds(authority_of: AuthorityOf, chips: dict[ProductLine, SecurityProcessor]) -> SimulatedKds:
    return SimulatedKds(*(SimulatedEndorsements(authority_of(line), chip) for line, chip in chips.items()))


@pytest.fixture(scope="module")
def hwid(chips: dict[ProductLine, SecurityProcessor]) -> str:
    return chips[ProductLine.MILAN].hwid.hex()


@pytest.mark.parametrize("line", ["Milan", "Turin"])
def test_cert_chain_is_intermediate_then_root(
    kds: SimulatedKds, authority_of: AuthorityOf, line: str
) -> None:
    status, _, body = kds.respond(f"/vcek/v1/{line}/cert_chain", "")
    authority = authority_of(ProductLine(line))
    assert status == 200
    assert x509.load_pem_x509_certificates(body) == [authority.ask, authority.ark]
    assert (b"\r\n" in body) == (line == "Turin")


def test_the_vlek_chain_has_the_asvk(kds: SimulatedKds, milan: CertificateAuthority) -> None:
    status, _, body = kds.respond("/vlek/v1/Milan/cert_chain", "")
    assert status == 200
    assert x509.load_pem_x509_certificates(body) == [milan.asvk, milan.ark]


@pytest.mark.parametrize("kind", VekKind)
def test_the_crl_is_der_and_the_roots(kds: SimulatedKds, milan: CertificateAuthority, kind: str) -> None:
    status, _, body = kds.respond(f"/{kind}/v1/Milan/crl", "")
    assert status == 200
    assert x509.load_der_x509_crl(body).issuer == milan.ark.subject


def test_a_vcek_comes_with_amds_headers(kds: SimulatedKds, hwid: str) -> None:
    status, headers, body = kds.respond(f"/vcek/v1/Milan/{hwid}", "blSPL=04&teeSPL=00&snpSPL=29&ucodeSPL=222")
    assert status == 200
    assert headers == {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": "attachment; filename=vcek.crt",
        "Cache-Control": "no-cache",
        "Pragma": "no-cache",
    }
    vek = read_vek(x509.load_der_x509_certificate(body))
    assert not vek.problems
    assert vek.hwid == bytes.fromhex(hwid)
    assert vek.tcb == TcbVersion(bootloader=4, tee=0, snp=29, microcode=222)


def test_every_vcek_is_a_new_certificate_of_the_same_key(kds: SimulatedKds, hwid: str) -> None:
    bodies = [kds.respond(f"/vcek/v1/Milan/{hwid}", "blSPL=1&ucodeSPL=7").body for _ in range(2)]
    one, other = (x509.load_der_x509_certificate(body) for body in bodies)
    assert one != other
    assert one.public_key() == other.public_key()


@pytest.mark.parametrize(
    ("query", "tcb"),
    [
        ("", (0, 0, 0, 0)),
        ("snpSPL=8", (0, 0, 8, 0)),
        ("ucodeSPL=115&snpSPL=8&blSPL=3&teeSPL=0", (3, 0, 8, 115)),
        ("blSPL=003&teeSPL=&snpSPL=0&ucodeSPL=0", None),
        ("blSPL=3", (3, 0, 0, 0)),
    ],
)
def test_spls_may_be_missing_and_come_in_any_order(
    kds: SimulatedKds, hwid: str, query: str, tcb: tuple[int, int, int, int] | None
) -> None:
    status, _, body = kds.respond(f"/vcek/v1/Milan/{hwid}", query)
    if tcb is None:
        assert status == 400
        return
    assert status == 200
    found = read_vek(x509.load_der_x509_certificate(body)).tcb
    assert found is not None
    assert tuple(found.components().values()) == tcb


def test_turin_has_16_digits_and_an_fmc_spl(
    kds: SimulatedKds, chips: dict[ProductLine, SecurityProcessor]
) -> None:
    hwid = chips[ProductLine.TURIN].hwid.hex()
    assert len(hwid) == 16
    query = "fmcSPL=01&blSPL=01&teeSPL=01&snpSPL=04&ucodeSPL=80"
    status, _, body = kds.respond(f"/vcek/v1/Turin/{hwid}", query)
    assert status == 200
    vek = read_vek(x509.load_der_x509_certificate(body))
    assert vek.tcb == TcbVersion(fmc=1, bootloader=1, tee=1, snp=4, microcode=80)
    assert kds.respond(f"/vcek/v1/Turin/{hwid.ljust(128, '0')}", query).status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/vcek/v1/Milan",
        "/vcek/v1/Milan/",
        "/vcek/v1/milan/cert_chain",
        "/vcek/v1/Genoa/cert_chain",  # this KDS has no such chip
        "/vcek/v1/Bergamo/crl",
        "/vcek/v2/Milan/crl",
        "/vtek/v1/Milan/crl",
        "/vcek/v1/Milan/crl/",
        "/vcek/v1/Milan/CRL",
        "/vcek/v1/Milan/cert",
        "/vlek/v1/Milan/" + "00" * 64,
        "/vcek/v1/Milan/" + "00" * 64,
        "/vcek/v1/Milan/" + "00" * 8,
        "/vcek/v1/Milan/xyz",
        "//vcek/v1/Milan/crl",
        "/vcek/v1/Milan/../Milan/crl",
    ],
)
def test_what_does_not_exist_is_404(kds: SimulatedKds, path: str) -> None:
    assert kds.respond(path, "") == (404, {}, b"")


def test_a_vlek_is_not_for_everybody(kds: SimulatedKds) -> None:
    assert kds.respond("/vlek/v1/Milan/cert", "blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=217").status == 403


@pytest.mark.parametrize("component", ["blSPL=5", "teeSPL=1", "snpSPL=30", "ucodeSPL=223"])
def test_a_tcb_that_the_chip_never_ran_is_404(kds: SimulatedKds, hwid: str, component: str) -> None:
    assert kds.respond(f"/vcek/v1/Milan/{hwid}", component).status == 404


@pytest.mark.parametrize(
    "query",
    [
        "fmcSPL=1",  # Turin's
        "spl4=0",
        "blSPL=256",
        "blSPL=-1",
        "blSPL=0x4",
        "blSPL=٤",  # a digit, but not of ASCII
        "blSPL=" + "9" * 5000,
        "blSPL=4&blSPL=4",
        "blSPL",
        "=4",
        "a=1&b=2&c=3&d=4&e=5&f=6",
    ],
)
def test_a_query_that_is_none_is_400(kds: SimulatedKds, hwid: str, query: str) -> None:
    status, _, body = kds.respond(f"/vcek/v1/Milan/{hwid}", query)
    assert status == 400
    assert body


def test_hexadecimal_digits_of_either_case(kds: SimulatedKds, hwid: str) -> None:
    assert kds.respond(f"/vcek/v1/Milan/{hwid.upper()}", "").status == 200


def test_a_chip_with_a_vlek_has_no_vcek(milan: CertificateAuthority) -> None:
    chip = SecurityProcessor(ProductLine.MILAN, bytes(32), signing_key=VekKind.VLEK)
    kds = SimulatedKds(SimulatedEndorsements(milan, chip))
    assert kds.respond(f"/vcek/v1/Milan/{chip.hwid.hex()}", "").status == 404


def test_a_throttled_kds_says_when_to_come_back(milan: CertificateAuthority) -> None:
    chip = SimulatedEndorsements(milan, SecurityProcessor(ProductLine.MILAN, bytes(32)))
    answer = SimulatedKds(chip, effect=Fault.KDS_THROTTLED.effect).respond("/vcek/v1/Milan/crl", "")
    assert answer == (429, {"Retry-After": "10"}, b"")
    answer = SimulatedKds(chip, effect=Fault.KDS_NOT_FOUND.effect).respond("/vcek/v1/Milan/crl", "")
    assert answer == (404, {}, b"")


def test_a_kds_without_keys_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "SIMULATED-ARK-Milan.cert.pem").write_bytes(b"nothing")
    authority = CertificateAuthority(ProductLine.MILAN, Vault(tmp_path))
    chip = SimulatedEndorsements(authority, SecurityProcessor(ProductLine.MILAN, bytes(32)))
    status, _, body = SimulatedKds(chip).respond("/vcek/v1/Milan/cert_chain", "")
    assert status == 503
    assert b"damaged" in body


@given(path=st.text(max_size=80), query=st.text(max_size=80), prefix=st.sampled_from(["", "/vcek/v1/Milan/"]))
def test_no_url_is_too_strange(kds: SimulatedKds, prefix: str, path: str, query: str) -> None:
    assert kds.respond(prefix + path, query).status in {200, 400, 403, 404}


@given(query=st.text(max_size=80) | st.text("blteesnpucodeSPL=&0123456789", max_size=80))
def test_no_query_is_too_strange(kds: SimulatedKds, hwid: str, query: str) -> None:
    assert kds.respond(f"/vcek/v1/Milan/{hwid}", query).status in {200, 400, 404}


# Over HTTP, with the client that asks AMD


def test_the_client_for_amds_kds_finds_everything(
    kds: SimulatedKds, milan: CertificateAuthority, chips: dict[ProductLine, SecurityProcessor]
) -> None:
    async def ask() -> None:
        async with httpx.AsyncClient(transport=kds.transport()) as http:
            client = KdsClient(http, BASE)
            for line, chip in chips.items():
                leaf = await client.fetch_vcek(line, chip.hwid, chip.current_tcb)
                assert leaf.public_key() == chip.vek(chip.current_tcb).public_key()
            assert await client.fetch_chain(VekKind.VCEK, ProductLine.MILAN) == (milan.ask, milan.ark)
            assert await client.fetch_chain(VekKind.VLEK, ProductLine.MILAN) == (milan.asvk, milan.ark)
            crl = await client.fetch_crl(VekKind.VCEK, ProductLine.MILAN)
            assert crl.issuer == milan.ark.subject

    asyncio.run(ask())


def test_the_client_for_amds_kds_hears_refusals(
    kds: SimulatedKds, milan: CertificateAuthority, chips: dict[ProductLine, SecurityProcessor]
) -> None:
    chip = chips[ProductLine.MILAN]

    async def ask(service: SimulatedKds, hwid: bytes) -> CollateralUnavailableError:
        async with httpx.AsyncClient(transport=service.transport()) as http:
            with pytest.raises(CollateralUnavailableError) as caught:
                await KdsClient(http, BASE).fetch_vcek(ProductLine.MILAN, hwid, chip.current_tcb)
            return caught.value

    assert asyncio.run(ask(kds, bytes(64))).upstream_status == 404
    throttled = SimulatedKds(SimulatedEndorsements(milan, chip), effect=Fault.KDS_THROTTLED.effect)
    refusal = asyncio.run(ask(throttled, chip.hwid))
    assert refusal.upstream_status == 429
    assert refusal.retry_after_s == pytest.approx(10)


def test_only_get_is_answered(kds: SimulatedKds) -> None:
    async def post() -> httpx.Response:
        async with httpx.AsyncClient(transport=kds.transport()) as http:
            return await http.post(f"{BASE}/vcek/v1/Milan/crl")

    response = asyncio.run(post())
    assert (response.status_code, response.headers["Allow"]) == (405, "GET")
