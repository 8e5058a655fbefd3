"""TPMT_PUBLIC against a software TPM: its keys, its Names, its PEM, and what it refuses."""

import subprocess
from collections.abc import Iterator

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from app.errors import WireError
from app.trust import tpm_key
from app.wire.manifest import EkManifest, parse_manifest
from app.wire.tpm import template
from app.wire.tpm.public import EccKey, RsaKey, TpmtPublic
from tests.interop.software_tpm import SoftwareTpm, software_tpm
from tests.wire.samples import CURVES, LEADING_ZERO_SCALARS, SWTPM_EK, p256_ek, patched, sized

EK_ATTRIBUTES = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|adminwithpolicy|restricted|decrypt"

POLICY_B = {"sha256": template.POLICY_B_SHA256, "sha384": template.POLICY_B_SHA384}


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareTpm]:
    with software_tpm(tmp_path_factory.mktemp("tpm")) as running:
        yield running


def check(tpm: SoftwareTpm, context: str) -> TpmtPublic:
    """Everything that tpm2-tools say of a loaded key, against what we read in its public area."""
    tpm.run("tpm2_readpublic", "-Q", "-c", context, "-n", "name", "-f", "tpmt", "-o", "area")
    tpm.run("tpm2_readpublic", "-Q", "-c", context, "-f", "tss", "-o", "tpm2b")
    tpm.run("tpm2_readpublic", "-Q", "-c", context, "-f", "pem", "-o", "pem")
    area = tpm.read("area")
    key = TpmtPublic.parse(area)
    assert key.encode() == area
    assert key.to_tpm2b() == tpm.read("tpm2b")
    assert TpmtPublic.from_tpm2b(tpm.read("tpm2b")) == key
    assert key.name == tpm.read("name")

    public = load_pem_public_key(tpm.read("pem"))
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        assert isinstance(key.key, RsaKey)
        assert (key.key.modulus, numbers.e) == (numbers.n, 65537)
    else:
        assert isinstance(public, ec.EllipticCurvePublicKey)
        point = public.public_numbers()
        assert isinstance(key.key, EccKey)
        assert (key.key.x, key.key.y) == (point.x, point.y)
    assert tpm_key.spki(key) == public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    printed = yaml.safe_load(tpm.run("tpm2_print", "-t", "TPMT_PUBLIC", "area"))
    assert key.key.type == printed["type"]["raw"]
    assert key.name_alg == printed["name-alg"]["raw"]
    assert key.attributes == printed["attributes"]["raw"]
    assert key.auth_policy.hex() == str(printed.get("authorization policy", ""))
    assert key.scheme == printed["scheme"]["raw"]
    assert (key.symmetric_bits or 0) == printed.get("sym-keybits", 0)
    assert (key.scheme_hash or 0) == printed.get("scheme-halg", {"raw": 0})["raw"]
    if isinstance(key.key, RsaKey):
        assert key.key.bits == printed["bits"]
    else:
        assert key.key.curve.identifier == printed["curve-id"]["raw"]
    return key


@pytest.mark.parametrize(
    ("kind", "size", "algorithm", "template"),
    [("rsa", 314, "RSA-2048", "L-1"), ("ecc", 122, "P-256", "L-2"), ("ecc384", 170, "P-384", "H-3")],
)
def test_eks_that_tpm2_createek_makes(
    tpm: SoftwareTpm, kind: str, size: int, algorithm: str, template: str
) -> None:
    tpm.run("tpm2_createek", "-Q", "-c", "ek.ctx", "-G", kind, "-u", "ek", "-f", "tpmt")
    raw = tpm.read("ek")
    assert len(raw) == size
    ek = check(tpm, "ek.ctx")
    assert ek.encode() == raw
    assert (ek.algorithm, ek.template) == (algorithm, template)
    assert parse_manifest(raw) == EkManifest(ek)  # an SVSM's manifest is these bytes


@pytest.mark.parametrize(
    ("template", "hash_name", "algorithm"),
    [
        ("H-1", "sha256", "rsa2048:aes128cfb"),
        ("H-2", "sha256", "ecc256:aes128cfb"),
        ("H-6", "sha384", "rsa3072:aes256cfb"),
    ],
)
def test_eks_of_the_high_range(tpm: SoftwareTpm, template: str, hash_name: str, algorithm: str) -> None:
    tpm.write("policy", POLICY_B[hash_name])
    key = ("-C", "e", "-g", hash_name, "-G", algorithm, "-a", EK_ATTRIBUTES, "-L", "policy")
    tpm.run("tpm2_createprimary", "-Q", *key, "-c", "ek.ctx")
    assert check(tpm, "ek.ctx").template == template


@pytest.mark.parametrize(
    ("algorithm", "use"),
    [
        ("rsa2048:rsassa-sha256:null", "sign"),
        ("rsa2048:rsapss-sha384:null", "sign"),
        ("rsa2048:rsaes:null", "decrypt"),
        ("rsa2048:oaep-sha256:null", "decrypt"),
        ("rsa2048:null:null", "sign|decrypt"),
        ("ecc256:ecdsa-sha256:null", "sign"),
        ("ecc384:ecdsa-sha384:null", "sign"),
        ("ecc384:ecdh-sha384:null", "decrypt"),
        ("ecc256:null:null", "sign|decrypt"),
    ],
)
def test_other_keys_of_a_tpm(tpm: SoftwareTpm, algorithm: str, use: str) -> None:
    attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|" + use
    tpm.run("tpm2_createprimary", "-Q", "-C", "e", "-G", algorithm, "-a", attributes, "-c", "key.ctx")
    assert check(tpm, "key.ctx").template is None


@pytest.mark.parametrize("name", ["ecc521:ecdsa-sha256:null", "ecc256:ecdaa-sha256:null"])
def test_keys_that_are_not_ours_to_read(tpm: SoftwareTpm, name: str) -> None:
    attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign"
    try:
        tpm.run("tpm2_createprimary", "-Q", "-C", "e", "-G", name, "-a", attributes, "-c", "key.ctx")
    except subprocess.CalledProcessError:
        pytest.skip(f"this TPM makes no {name}")
    tpm.run("tpm2_readpublic", "-Q", "-c", "key.ctx", "-f", "tpmt", "-o", "area")
    with pytest.raises(WireError, match=r"is neither P-256 nor P-384|does not fit the key type"):
        TpmtPublic.parse(tpm.read("area"))


@pytest.mark.parametrize(("where", "scalar"), LEADING_ZERO_SCALARS.items())
def test_a_coordinate_with_a_leading_zero_byte(tpm: SoftwareTpm, where: tuple[str, str], scalar: int) -> None:
    curve, coordinate = where
    public = ec.derive_private_key(scalar, CURVES[curve]).public_key()
    tpm.write("in.pem", public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    tpm.run("tpm2_loadexternal", "-Q", "-C", "n", "-G", "ecc", "-u", "in.pem", "-c", "key.ctx")
    key = check(tpm, "key.ctx").key
    assert isinstance(key, EccKey)
    value = key.x if coordinate == "x" else key.y
    assert value >> 8 * (key.curve.size - 1) == 0


# External keys: neither fixedTPM nor restricted, and no symmetric algorithm.
RSA = SWTPM_EK[:4] + bytes.fromhex("00020040 0000 0010 0010") + SWTPM_EK[50:]
ECC = p256_ek()[:4] + bytes.fromhex("00020040 0000 0010 0010") + p256_ek()[50:]


@pytest.mark.parametrize(
    ("area", "reason"),
    [
        (RSA, None),
        (ECC, None),
        (patched(RSA, (4, "00020041")), "has an undefined bit"),
        (patched(RSA, (4, "00020140")), "has an undefined bit"),
        (patched(RSA, (4, "00021040")), "has an undefined bit"),
        (patched(RSA, (16, "00000003")), "exponent 3 is not 65537"),
        (patched(RSA, (22, "7f")), "modulus has 2047 bits"),
        (patched(ECC, (len(ECC) - 1, "00")), "the point is not on P-256"),
        (patched(ECC, (16, "0020")), "kdf 0x0020 is not null"),
        (ECC[:18] + sized(ECC[21:52]) + ECC[52:], "x has 31 bytes"),
    ],
)
def test_the_tpm_refuses_what_we_refuse(tpm: SoftwareTpm, area: bytes, reason: str | None) -> None:
    tpm.write("in", sized(area))
    load = ("tpm2_loadexternal", "-Q", "-C", "n", "-u", "in", "-c", "key.ctx")
    if reason is None:
        assert TpmtPublic.parse(area).encode() == area
        tpm.run(*load)
        return
    with pytest.raises(WireError, match=reason):
        TpmtPublic.parse(area)
    with pytest.raises(subprocess.CalledProcessError):
        tpm.run(*load)


def test_policy_a_is_what_a_trial_session_computes(tpm: SoftwareTpm) -> None:
    tpm.run("tpm2_startauthsession", "-S", "trial.ctx")
    tpm.run("tpm2_policysecret", "-Q", "-S", "trial.ctx", "-c", "e", "-L", "policy.a")
    tpm.run("tpm2_flushcontext", "trial.ctx")
    assert tpm.read("policy.a") == template.POLICY_A_SHA256
