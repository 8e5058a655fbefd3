from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from app.trust.certificates import load_certificate
from app.trust.chain import ChainFault
from app.trust.vek import VekKind, read_vek
from app.wire.product import ProductLine
from app.wire.report import AttestationReport
from app.wire.tcb import TcbVersion
from tests.trust import pki
from tests.trust.evidence import cases, chain_of, milan
from tests.trust.pki import amd, integer, leaf_extensions, text

SHORT = {"bootloader": "bl", "tee": "tee", "snp": "snp", "microcode": "ucode", "fmc": "fmc"}
VCEK_VALUES = leaf_extensions(pki.MILAN_TCB, amd("4", pki.HWID))
VLEK_VALUES = leaf_extensions(pki.MILAN_TCB, text("5", "CN=cloud.example"))
TURIN_VALUES = leaf_extensions(pki.TURIN_TCB, amd("4", pki.HWID[:8]), struct_version=1)


def whys(certificate: x509.Certificate) -> list[str]:
    problems = read_vek(certificate).problems
    assert {problem.certificate for problem in problems} <= {"leaf"}
    return [problem.why for problem in problems]


def test_a_real_leaf_says_what_its_report_says() -> None:
    report = milan().parsed_report
    vek = read_vek(load_certificate(milan().leaf, "leaf"))
    assert (vek.kind, vek.line, vek.problems) == (VekKind.VCEK, ProductLine.MILAN, ())
    assert vek.tcb == TcbVersion.parse(report.reported_tcb, ProductLine.MILAN.tcb_layout)
    assert (vek.hwid, vek.csp_id) == (report.chip_id, None)
    assert (vek.struct_version, vek.product_name) == (0, "Milan-B0")


def test_every_published_leaf_says_what_its_index_says(index: dict[str, Any], vectors: Path) -> None:
    lines = set()
    for case in cases(index, "real"):
        real = chain_of(case, vectors)
        alternative = case["files"].get("vcek_alt")
        for raw in (real.leaf, *([(vectors / alternative).read_bytes()] if alternative else [])):
            vek = read_vek(load_certificate(raw, case["id"]))
            assert vek.problems == (), case["id"]
            assert vek.line == case["product_line"]
            assert vek.tcb is not None
            levels = {SHORT[name]: level for name, level in vek.tcb.components().items()}
            assert levels == case["reported_tcb_fields"], case["id"]
            start, end = case["leaf_validity"]
            if raw is real.leaf:
                assert f"{vek.certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}" == start
                assert f"{vek.certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}" == end
            if vek.kind is VekKind.VLEK:
                assert vek.hwid is None
                assert vek.csp_id == "CN=cc-us-east-2.amazonaws.com"
            else:
                assert vek.hwid is not None
                assert vek.hwid.hex().startswith(case["chip_id_prefix"])
                assert vek.hwid.ljust(64, b"\0") == AttestationReport.parse(real.report).chip_id
            lines.add((vek.kind, vek.line))
    assert lines == {(VekKind.VLEK, ProductLine.MILAN), *((VekKind.VCEK, line) for line in ProductLine)}


def test_a_second_real_turin_leaf(vectors: Path) -> None:
    vek = read_vek(load_certificate((vectors / "certs/turin-vcek-virtee.der").read_bytes(), "turin"))
    assert vek.problems == ()
    assert (vek.kind, vek.line, vek.struct_version) == (VekKind.VCEK, ProductLine.TURIN, 1)
    assert vek.hwid is not None
    assert len(vek.hwid) == 8
    assert vek.tcb is not None
    assert vek.tcb.fmc is not None


@pytest.mark.parametrize("line", list(ProductLine))
def test_the_tests_own_leaves_are_well_formed(line: ProductLine) -> None:
    vek = read_vek(pki.vcek(line).issue())
    assert vek.problems == ()
    assert vek.tcb == (pki.TURIN_TCB if line is ProductLine.TURIN else pki.MILAN_TCB)
    vlek = read_vek(pki.vlek(line).issue())
    assert (vlek.kind, vlek.csp_id, vlek.hwid) == (VekKind.VLEK, "CN=cloud.example", None)


@pytest.mark.parametrize("first", [0x02, 0x04, 0x30])
@pytest.mark.parametrize("line", [ProductLine.MILAN, ProductLine.TURIN])
def test_a_hwid_is_read_by_its_length_whatever_it_begins_with(line: ProductLine, first: int) -> None:
    size = line.hwid_size
    hwid = bytes([first, size - 2, *range(size - 2)])
    assert read_vek(pki.vcek(line, hwid=hwid).issue()).hwid == hwid
    wrapped = pki.vcek(line, hwid=bytes([0x04, size]) + hwid).issue()
    assert read_vek(wrapped).hwid == hwid
    assert read_vek(wrapped).problems == ()


@pytest.mark.parametrize(
    ("level", "encoded"), [(0, "020100"), (127, "02017f"), (128, "02020080"), (255, "020200ff")]
)
def test_both_lengths_of_a_patch_level(level: int, encoded: str) -> None:
    values = VCEK_VALUES | {"3.8": amd("3.8", bytes.fromhex(encoded))}
    tcb = read_vek(pki.leaf(values).issue()).tcb
    assert tcb is not None
    assert tcb.microcode == level


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"1": integer("1", 1)}, "its structVersion is 1, Milan has 0"),
        ({"1": None}, "it has no structVersion"),
        ({"2": None}, "it has no productName"),
        ({"2": amd("2", b"\x0c\x05Milan")}, "its productName cannot be read"),
        ({"3.1": None}, "it has no SPL of bootloader"),
        ({"3.8": None}, "it has no SPL of microcode"),
        ({"3.8": integer("3.8", 256)}, "its SPL of microcode is 256, want 0 to 255"),
        ({"3.2": integer("3.2", -1)}, "its SPL of tee is -1, want 0 to 255"),
        ({"3.2": amd("3.2", b"\x02\x02\x00\x05")}, "its SPL of tee cannot be read"),
        ({"3.2": amd("3.2", b"\x02\x01\x05\x00")}, "its SPL of tee cannot be read"),
        ({"3.2": amd("3.2", b"")}, "its SPL of tee cannot be read"),
        ({"3.9": integer("3.9", 0)}, "it has an fmcSPL, which Milan has not"),
        ({"4": None}, "it has no HWID"),
        ({"4": amd("4", bytes(63))}, "its HWID has 63 bytes, Milan has 64"),
        ({"4": amd("4", bytes(8))}, "its HWID has 8 bytes, Milan has 64"),
        ({"4": amd("4", bytes(66))}, "its HWID cannot be read"),
        ({"5": text("5", "CN=x")}, "it has a csp_id, which no VCEK has"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_departure_of_a_vcek_has_its_sentence(values: dict[str, Any], why: str) -> None:
    kept = {arc: value for arc, value in (VCEK_VALUES | values).items() if value is not None}
    (found,) = whys(pki.leaf(kept).issue())
    assert found.startswith(why)


def test_each_departure_of_a_vlek_has_its_sentence() -> None:
    def vlek(**values: x509.UnrecognizedExtension) -> list[str]:
        return whys(pki.leaf(values, kind="SEV-VLEK", issuer="SEV-VLEK-Milan").issue())

    assert vlek(**VLEK_VALUES) == []
    assert vlek(**(VLEK_VALUES | {"4": amd("4", pki.HWID)})) == ["it has a HWID, which no VLEK has"]
    assert vlek(**{arc: value for arc, value in VLEK_VALUES.items() if arc != "5"}) == ["it has no csp_id"]
    (unreadable,) = vlek(**(VLEK_VALUES | {"5": amd("5", b"cloud")}))
    assert unreadable.startswith("its csp_id cannot be read")


def test_turin_wants_an_fmc_spl() -> None:
    without = {arc: value for arc, value in TURIN_VALUES.items() if arc != "3.9"}
    certificate = pki.leaf(without, line=ProductLine.TURIN).issue()
    assert whys(certificate) == ["it has no SPL of fmc"]
    assert read_vek(certificate).tcb is None


@pytest.mark.parametrize(
    ("subject", "issuer", "reasons"),
    [
        ("SEV-VLEK", "SEV-Milan", ["it is a VLEK, but its issuer SEV-Milan signs a VCEK", "HWID", "csp_id"]),
        ("SEV-VCEK", "SEV-VLEK-Milan", ["it is a VCEK, but its issuer SEV-VLEK-Milan signs a VLEK"]),
        ("VCEK", "SEV-Milan", ["its subject CN is 'VCEK'"]),
        ("SEV-VCEK", "ARK-Milan", ["its issuer is the root itself"]),
        ("SEV-VCEK", "SEV-Naples", ["its issuer is 'SEV-Naples'"]),
    ],
)
def test_names_tell_kind_and_line(subject: str, issuer: str, reasons: list[str]) -> None:
    found = whys(pki.leaf(VCEK_VALUES, kind=subject, issuer=issuer).issue())
    assert len(found) == len(reasons)
    assert all(reason in why for reason, why in zip(reasons, found, strict=True))


def test_a_leaf_of_an_unknown_line_is_read_as_far_as_it_goes() -> None:
    vek = read_vek(pki.leaf(TURIN_VALUES, issuer="SEV-Venice").issue())
    assert (vek.line, vek.tcb, vek.hwid) == (None, None, None)
    assert "it has an fmcSPL, which its unknown line has not" in {problem.why for problem in vek.problems}


def test_two_common_names_are_no_name() -> None:
    twice = x509.Name([*pki.named("SEV-VCEK"), *pki.named("SEV-VCEK", ())])
    assert whys(pki.vcek().but(subject=twice).issue()) == [
        "its subject CN is None, want SEV-VCEK or SEV-VLEK"
    ]


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (pki.ec_key("p256", ec.SECP256R1), "its key is not on the curve P-384"),
        (pki.rsa_key("small", 2048), "its key is not on the curve P-384"),
    ],
)
def test_a_key_that_no_amd_leaf_has(key: object, why: str) -> None:
    (problem,) = read_vek(pki.vcek().but(key=key).issue()).problems
    assert (problem.fault, problem.why) == (ChainFault.ALGORITHM, why)
    assert str(problem) == f"leaf: {why}"


def test_a_key_that_cannot_be_read() -> None:
    raw = milan().leaf
    p384 = bytes.fromhex("06052b81040022")
    assert p384 in raw
    certificate = load_certificate(raw.replace(p384, bytes.fromhex("06052b81040077")), "other curve")
    (problem,) = read_vek(certificate).problems
    assert problem.fault is ChainFault.ALGORITHM
    assert problem.why.startswith("its key cannot be read")


def test_unknown_extensions_are_tolerated_unless_critical() -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"?")
    assert whys(pki.vcek().having(amd("77", b"?")).having(unknown).issue()) == []
    critical = pki.vcek().having(unknown, critical=True).issue()
    assert whys(critical) == ["its critical extension 1.2.3.4 is unknown to this profile"]
    usage = pki.vcek().having(pki.usage(), critical=True).issue()
    assert whys(usage) == ["its critical extension 2.5.29.15 is unknown to this profile"]


def test_a_duplicate_extension_is_refused() -> None:
    # The builder refuses to make one: exchange the last arc of another extension.
    raw = pki.vcek().having(amd("5", b"\x16\x00")).issue().public_bytes(Encoding.DER)
    doubled = raw.replace(bytes.fromhex("06092b060104019c780105"), bytes.fromhex("06092b060104019c780104"))
    assert doubled != raw
    found = whys(load_certificate(doubled, "doubled"))
    assert "its extension 1.3.6.1.4.1.3704.1.4 occurs twice" in found


def test_an_unreadable_standard_extension_is_a_problem_not_an_exception() -> None:
    broken = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.19"), b"\xff")
    (first, *_) = whys(pki.vcek().having(broken).issue())
    assert first.startswith("its extensions cannot be read")


def test_version_1_is_refused() -> None:
    assert "it is an X.509 v1 certificate, want v3" in whys(pki.as_version_1(pki.vcek().issue()))


def test_reading_twice_costs_once() -> None:
    certificate = load_certificate(milan().leaf, "leaf")
    assert read_vek(certificate) is read_vek(certificate)


@settings(deadline=None)
@given(
    raw=st.binary(max_size=80),
    arc=st.sampled_from(["1", "2", "3.1", "3.2", "3.3", "3.8", "3.9", "4", "5"]),
    line=st.sampled_from(list(ProductLine)),
)
def test_no_extension_value_raises(raw: bytes, arc: str, line: ProductLine) -> None:
    values = (TURIN_VALUES if line is ProductLine.TURIN else VCEK_VALUES) | {arc: amd(arc, raw)}
    plan = pki.leaf(values, line=line).but(signer=pki.ec_key("ca"), digest=hashes.SHA256())
    vek = read_vek(plan.issue())
    assert vek.problems or arc == "2" or vek.hwid == raw or raw[:1] == b"\x02"
