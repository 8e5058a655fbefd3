"""The EK templates, and their policies computed a second time from the TCG formulas."""

import hashlib

import pytest

from app.wire.tpm import template
from app.wire.tpm.template import PREFIXES, creation_template, template_name
from tests.wire.samples import COUNTING_EK, L1_PREFIX, SWTPM_EK, p256_ek, p384_ek, signing_key

RH_ENDORSEMENT = "4000000b"
CC_POLICY_SECRET, CC_POLICY_AUTHORIZE_NV, CC_POLICY_OR = "00000151", "00000192", "00000171"
WRITTEN_POLICY_INDEX = "220f1008"  # attributes of the NV index that holds an authorised policy


def policies(name: str, algorithm: str, index: str) -> tuple[bytes, bytes, bytes]:
    """PolicyA, PolicyB and PolicyC of the TCG EK Credential Profile, annex B.6.

    A: PolicySecret(endorsement hierarchy); C: PolicyAuthorizeNV(the profile's index, whose own
    policy is A); B: PolicyOR(A, C).
    """

    def digest(*parts: bytes | str) -> bytes:
        data = b"".join(bytes.fromhex(part) if isinstance(part, str) else part for part in parts)
        return hashlib.new(name, data).digest()

    size = hashlib.new(name).digest_size
    a = digest(digest(bytes(size), CC_POLICY_SECRET, RH_ENDORSEMENT), b"")
    sizes = size.to_bytes(2, "big"), (2 + size).to_bytes(2, "big")
    public = digest(index, algorithm, WRITTEN_POLICY_INDEX, sizes[0], a, sizes[1])
    index_name = bytes.fromhex(algorithm) + public
    c = digest(bytes(size), CC_POLICY_AUTHORIZE_NV, index_name)
    return a, digest(bytes(size), CC_POLICY_OR, a, c), c


def test_policies_follow_from_their_formulas() -> None:
    a, b, c = policies("sha256", "000b", "01c07f01")
    assert c.hex() == "3767e2edd43ff45a3a7e1eaefcef78643dca964632e7aad82c673a30d8633fde"
    assert (a, b) == (template.POLICY_A_SHA256, template.POLICY_B_SHA256)
    _, b, _ = policies("sha384", "000c", "01c07f02")
    assert b == template.POLICY_B_SHA384


A256, B256, _ = policies("sha256", "000b", "01c07f01")
_, B384, _ = policies("sha384", "000c", "01c07f02")
LOW, HIGH = "000300b2", "000300f2"
WRITTEN = {
    "L-1": f"0001 000b {LOW} 0020{A256.hex()} 000600800043 0010 0800 00000000 0100",
    "L-2": f"0023 000b {LOW} 0020{A256.hex()} 000600800043 0010 0003 0010 0020",
    "H-1": f"0001 000b {HIGH} 0020{B256.hex()} 000600800043 0010 0800 00000000 0100",
    "H-2": f"0023 000b {HIGH} 0020{B256.hex()} 000600800043 0010 0003 0010 0020",
    "H-3": f"0023 000c {HIGH} 0030{B384.hex()} 000601000043 0010 0004 0010 0030",
    "H-6": f"0001 000c {HIGH} 0030{B384.hex()} 000601000043 0010 0c00 00000000 0180",
}


def test_prefixes_byte_by_byte() -> None:
    assert {name: prefix.hex() for name, prefix in PREFIXES.items()} == {
        name: text.replace(" ", "") for name, text in WRITTEN.items()
    }
    assert PREFIXES["L-1"] == L1_PREFIX
    assert len(PREFIXES["L-1"]) == 58


@pytest.mark.parametrize(
    ("area", "name"),
    [
        (SWTPM_EK, "L-1"),
        (COUNTING_EK, "L-1"),
        (p256_ek(), "L-2"),
        (p384_ek(), "H-3"),
        (signing_key(), None),
        (SWTPM_EK[:4] + b"\0\3\0\xf2" + SWTPM_EK[8:], None),  # L-1 but for userWithAuth
        (b"", None),
    ],
)
def test_which_template(area: bytes, name: str | None) -> None:
    assert template_name(area) == name


def test_no_template_is_the_start_of_another() -> None:
    assert all(
        one == other or not second.startswith(first)
        for one, first in PREFIXES.items()
        for other, second in PREFIXES.items()
    )


def test_what_makes_a_key_of_a_template() -> None:
    made = {name: creation_template(name) for name in PREFIXES}
    assert made["L-1"] == PREFIXES["L-1"] + bytes(256)  # 314 bytes, what COCONUT-SVSM sends
    assert made["L-2"] == PREFIXES["L-2"] + bytes(32) + b"\0\x20" + bytes(32)
    assert {name: len(area) for name, area in made.items() if name.startswith("H")} == {
        "H-1": 58,
        "H-2": 58,
        "H-3": 74,
        "H-6": 74,
    }
    assert made["H-3"] == PREFIXES["H-3"][:-2] + bytes(4)
    assert made["H-6"] == PREFIXES["H-6"][:-2] + bytes(2)
