from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import AttestError, WireError
from app.trust.certificates import load_certificate
from app.trust.signature import verify_report_signature
from app.wire.report import SIGNED_SIZE, AttestationReport, Signature
from tests.trust import pki
from tests.trust.evidence import cases, chain_of, milan, signed_report

# Order of the group of P-384 (FIPS 186-4, D.1.2.4)
ORDER = int(
    "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973", 16
)
BROKEN = {"measurement-bitflip", "report_data-bitflip", "sig-r-bitflip", "sig-s-bitflip", "sig-r-high-pad"}


def test_a_real_report_is_signed_by_its_leaf() -> None:
    leaf, intermediate, _ = milan().certificates
    assert verify_report_signature(milan().parsed_report, leaf)
    assert not verify_report_signature(milan().parsed_report, intermediate)


def test_every_published_report_is_signed_by_its_leaf(index: dict[str, Any], vectors: Path) -> None:
    for case in cases(index, "real"):
        real = chain_of(case, vectors)
        assert verify_report_signature(real.parsed_report, real.certificates[0]), case["id"]
        if "vcek_alt" in case["files"]:
            other = load_certificate((vectors / case["files"]["vcek_alt"]).read_bytes(), "other day")
            assert verify_report_signature(real.parsed_report, other), case["id"]


def test_every_altered_report_is_not(index: dict[str, Any], vectors: Path) -> None:
    met = set()
    for case in cases(index, "negatives"):
        name = case["id"].partition("--")[2]
        try:
            leaf, _, _ = chain_of(case, vectors).certificates
            report = chain_of(case, vectors).parsed_report
        except AttestError:
            continue  # refused before there is anything to verify
        broken = "report signature" in case["checked"]["problems"]
        assert verify_report_signature(report, leaf) is not broken, case["id"]
        met.add(name)
    assert met >= BROKEN | {"sig-zero", "sig-s-negated", "big-endian-sig"}


def test_a_second_signature_of_the_same_report_is_valid_too() -> None:
    report = milan().parsed_report
    mirrored = replace(report, signature=Signature(r=report.signature.r, s=ORDER - report.signature.s))
    assert verify_report_signature(mirrored, milan().certificates[0])


@pytest.mark.parametrize("r", [0, 1, ORDER, ORDER + 1, 2**384, 2**576 - 1])
@pytest.mark.parametrize("s", [0, 1, ORDER, 2**576 - 1])
def test_numbers_outside_the_group_are_no_signature(r: int, s: int) -> None:
    report = replace(milan().parsed_report, signature=Signature(r=r, s=s))
    assert not verify_report_signature(report, milan().certificates[0])
    real = milan().parsed_report.signature
    for odd in (Signature(r=real.r, s=s), Signature(r=r, s=real.s), Signature(r=real.r + ORDER, s=real.s)):
        assert not verify_report_signature(replace(report, signature=odd), milan().certificates[0])


@pytest.mark.parametrize(
    "key", [pki.ec_key("p256", ec.SECP256R1), pki.rsa_key("small", 2048), pki.ec_key("another")]
)
def test_other_keys_sign_no_report(key: object) -> None:
    assert not verify_report_signature(signed_report(), pki.vcek().but(key=key).issue())
    assert verify_report_signature(signed_report(), pki.vcek().issue())


def test_a_key_that_cannot_be_read_signs_no_report() -> None:
    unreadable = milan().leaf.replace(bytes.fromhex("06052b81040022"), bytes.fromhex("06052b81040077"))
    assert not verify_report_signature(milan().parsed_report, load_certificate(unreadable, "unreadable"))


@settings(deadline=None)
@given(bit=st.integers(0, SIGNED_SIZE * 8 - 1))
def test_no_altered_bit_of_the_signed_part_is_accepted(bit: int) -> None:
    raw = bytearray(milan().report)
    raw[bit // 8] ^= 1 << bit % 8
    try:
        report = AttestationReport.parse(bytes(raw))
    except WireError:
        return
    assert not verify_report_signature(report, milan().certificates[0])
