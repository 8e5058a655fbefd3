import pytest

from app.trust.kds_paths import cert_chain_path, crl_path, vcek_path
from app.trust.names import VekKind
from app.wire.product import ProductLine
from app.wire.tcb import TcbVersion
from tests.trust.pki import HWID, MILAN_TCB, TURIN_TCB

HEX = (
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"
)


def test_the_url_of_a_vcek_before_turin() -> None:
    query = "?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219"
    assert vcek_path(ProductLine.MILAN, HWID, MILAN_TCB) == f"/vcek/v1/Milan/{HEX}{query}"
    assert vcek_path(ProductLine.GENOA, HWID, MILAN_TCB) == f"/vcek/v1/Genoa/{HEX}{query}"


def test_the_url_of_a_turin_vcek_begins_with_fmc_and_has_sixteen_digits() -> None:
    assert vcek_path(ProductLine.TURIN, HWID[:8], TURIN_TCB) == (
        "/vcek/v1/Turin/0001020304050607?fmcSPL=01&blSPL=02&teeSPL=03&snpSPL=04&ucodeSPL=71"
    )


def test_the_other_urls() -> None:
    assert cert_chain_path(VekKind.VCEK, ProductLine.MILAN) == "/vcek/v1/Milan/cert_chain"
    assert cert_chain_path(VekKind.VLEK, ProductLine.TURIN) == "/vlek/v1/Turin/cert_chain"
    assert crl_path(VekKind.VCEK, ProductLine.GENOA) == "/vcek/v1/Genoa/crl"
    assert crl_path(VekKind.VLEK, ProductLine.GENOA) == "/vlek/v1/Genoa/crl"


@pytest.mark.parametrize(
    ("line", "hwid", "tcb", "reason"),
    [
        (ProductLine.TURIN, HWID, TURIN_TCB, "a hardware id of Turin has 8 bytes, not 64"),
        (ProductLine.MILAN, HWID[:8], MILAN_TCB, "a hardware id of Milan has 64 bytes, not 8"),
        (ProductLine.MILAN, HWID, TURIN_TCB, "a TCB of Milan has no fmc"),
        (ProductLine.TURIN, HWID[:8], MILAN_TCB, "a TCB of Turin has an fmc"),
    ],
)
def test_nothing_is_asked_for_that_cannot_be(
    line: ProductLine, hwid: bytes, tcb: TcbVersion, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        vcek_path(line, hwid, tcb)
