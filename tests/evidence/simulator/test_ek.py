from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from app.evidence.simulator.ek import EkKind, SimulatedEk
from app.evidence.simulator.vault import Vault
from app.wire.manifest import EkManifest, parse_manifest
from app.wire.tpm.public import EccKey, RsaKey, TpmtPublic

POLICY_A = "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa"
# What stands before the modulus or the point in a key that tpm2_createek makes
PREFIXES = {
    EkKind.RSA_2048: f"0001000b000300b20020{POLICY_A}00060080004300100800000000000100",
    EkKind.P_256: f"0023000b000300b20020{POLICY_A}000600800043001000030010" + "0020",
    EkKind.P_384: (
        "0023000c000300f20030b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419ca"
        "cb47ba09699646150f9fc000f3f80e12" + "000601000043001000040010" + "0030"
    ),
}
SIZES = {EkKind.RSA_2048: 314, EkKind.P_256: 122, EkKind.P_384: 170}
TEMPLATES = {EkKind.RSA_2048: "L-1", EkKind.P_256: "L-2", EkKind.P_384: "H-3"}


@pytest.mark.parametrize("kind", EkKind)
def test_the_ek_follows_its_template(vault: Vault, kind: EkKind) -> None:
    raw = SimulatedEk(vault, kind).public()
    assert len(raw) == SIZES[kind]
    assert raw.hex().startswith(PREFIXES[kind])
    public = TpmtPublic.parse(raw)
    assert public.template == TEMPLATES[kind]
    assert parse_manifest(raw) == EkManifest(public)


def test_the_rsa_key_is_a_real_one(vault: Vault) -> None:
    public = TpmtPublic.parse(SimulatedEk(vault).public())
    key = vault.rsa_key("EK-rsa2048", 2048)
    assert public.key == RsaKey(bits=2048, modulus=key.public_key().public_numbers().n)


@pytest.mark.parametrize(("kind", "curve"), [(EkKind.P_256, ec.SECP256R1()), (EkKind.P_384, ec.SECP384R1())])
def test_the_point_is_on_its_curve(vault: Vault, kind: EkKind, curve: ec.EllipticCurve) -> None:
    public = TpmtPublic.parse(SimulatedEk(vault, kind).public())
    assert isinstance(public.key, EccKey)
    ec.EllipticCurvePublicNumbers(public.key.x, public.key.y, curve).public_key()  # raises where it is not


def test_the_ek_outlives_the_process_in_a_state_directory(tmp_path: Path) -> None:
    keys = [SimulatedEk(Vault(tmp_path), EkKind.P_256).public() for _ in range(2)]
    assert keys[0] == keys[1] != SimulatedEk(Vault(), EkKind.P_256).public()
