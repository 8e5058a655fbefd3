"""Keys of the vTPM beside those that tpm2-tools make in the same TPM; made once, and kept."""

from pathlib import Path

import pytest

from app.errors import BackendError
from app.evidence.vtpm.ak_kind import AkKind
from app.evidence.vtpm.vtpm import Vtpm
from app.tpm.command import CommandCode
from app.trust.credential import make_credential
from app.wire.tpm.public import TpmtPublic
from tests.evidence.vtpm.bench import SOME, Bench, qualify
from tests.interop.tool_bridge import tool_bridge
from tests.tpm.live import (
    CHANGE_EPS,
    HIERARCHY_CHANGE_AUTH,
    HIERARCHY_CONTROL,
    tell,
)

PLATFORM, ENDORSEMENT = 0x4000000C, 0x4000000B
EKS = {"L-1": "rsa", "L-2": "ecc", "H-3": "ecc384"}
SCHEMES = {AkKind.P256: "ecc256:ecdsa-sha256:null", AkKind.RSA2048: "rsa2048:rsassa-sha256:null"}
UNIQUES = {  # the TSS's own TPMU_PUBLIC_ID: sizes are little-endian, a coordinate has room for 128
    AkKind.P256: 2 * (b"\x20\0" + bytes(128)),
    AkKind.RSA2048: b"\0\1" + bytes(256),
}
ATTRIBUTES = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|sign"


@pytest.mark.parametrize("template", EKS)
def test_the_ek_is_the_one_that_tpm2_createek_makes(vtpm: Bench, tmp_path: Path, template: str) -> None:
    with tool_bridge(tmp_path, vtpm.channel) as tools:
        tools.run("tpm2_createek", "-Q", "-c", "ek.ctx", "-G", EKS[template], "-u", "ek", "-f", "tpmt")
    ek = vtpm.run(vtpm.vtpm.ek(template))
    assert ek.encode() == (tmp_path / "ek").read_bytes()
    assert ek.template == template


@pytest.mark.parametrize("kind", AkKind)
def test_the_attestation_key_is_the_one_that_tpm2_createprimary_makes(
    vtpm: Bench, tmp_path: Path, kind: AkKind
) -> None:
    with tool_bridge(tmp_path, vtpm.channel) as tools:
        tools.write("unique", UNIQUES[kind])
        key = ("-C", "e", "-G", SCHEMES[kind], "-a", ATTRIBUTES, "-u", "unique", "-c", "ak.ctx")
        tools.run("tpm2_createprimary", "-Q", *key)
        tools.run("tpm2_readpublic", "-Q", "-c", "ak.ctx", "-f", "tpmt", "-o", "ak")
        tools.run("tpm2_readpublic", "-Q", "-c", "ak.ctx", "-n", "name")
    ak = vtpm.run(vtpm.vtpm.ak(kind))
    assert ak.encode() == (tmp_path / "ak").read_bytes()
    assert ak.name == (tmp_path / "name").read_bytes()
    assert len(ak.encode()) == len(kind.template) == {AkKind.P256: 88, AkKind.RSA2048: 280}[kind]


def test_each_key_is_made_once(vtpm: Bench) -> None:
    for _ in range(5):
        vtpm.run(vtpm.vtpm.hand_out(AkKind.P256, "L-2"))
        vtpm.run(vtpm.vtpm.ak(AkKind.P256))
        vtpm.run(vtpm.vtpm.ek("L-2"))
        vtpm.run(vtpm.vtpm.quote(AkKind.P256, qualify, SOME, with_event_log=False))
    assert vtpm.tap.count(CommandCode.CREATE_PRIMARY) == 2
    assert vtpm.tap.count(CommandCode.CONTEXT_LOAD) == 23


def test_the_same_keys_come_back_after_a_restart_of_service_and_tpm(vtpm: Bench) -> None:
    keys = vtpm.run(vtpm.vtpm.hand_out(AkKind.P256, "L-1"))
    other = vtpm.new_vtpm()
    assert vtpm.run(other.hand_out(AkKind.P256, "L-1")) == keys
    vtpm.peer.reboot()
    vtpm.tpm.startup()
    assert vtpm.run(vtpm.vtpm.hand_out(AkKind.P256, "L-1")) == keys
    vtpm.run(other.aclose())


def test_ends_without_a_shutdown_do_not_lock_the_key(vtpm: Bench) -> None:
    """As of a VM that crashes: a TPM counts them against keys that could have a password."""
    for _ in range(6):
        vtpm.run(vtpm.vtpm.quote(AkKind.P256, qualify, SOME, with_event_log=False))
        vtpm.run(vtpm.vtpm.hand_out(AkKind.RSA2048, "L-1"))
        vtpm.peer.reboot()
        vtpm.tpm.startup()


def test_another_seed_gives_other_keys(vtpm: Bench) -> None:
    keys = vtpm.run(vtpm.vtpm.hand_out(AkKind.P256, "L-2"))
    tell(vtpm.channel, CHANGE_EPS, PLATFORM)
    changed = vtpm.run(vtpm.vtpm.hand_out(AkKind.P256, "L-2"))
    assert (changed.ek == keys.ek, changed.ak == keys.ak) == (False, False)
    assert changed.ek.template == "L-2"


@pytest.mark.parametrize(
    ("code", "handle", "parameters", "name", "remedy"),
    [
        (HIERARCHY_CONTROL, PLATFORM, bytes.fromhex("4000000b 00"), "TPM_RC_HIERARCHY", "is disabled"),
        (HIERARCHY_CHANGE_AUTH, ENDORSEMENT, b"\0\4pass", "TPM_RC_BAD_AUTH", "has a password"),
    ],
)
def test_a_hierarchy_that_is_not_to_be_used(
    vtpm: Bench, code: int, handle: int, parameters: bytes, name: str, remedy: str
) -> None:
    tell(vtpm.channel, code, handle, parameters)
    with pytest.raises(BackendError) as caught:
        vtpm.run(vtpm.vtpm.ak(AkKind.P256))
    assert caught.value.cause == "tpm-refused"
    assert "TPM2_CreatePrimary answered" in caught.value.reason
    assert name in caught.value.reason
    assert remedy in caught.value.remedy


def test_a_hierarchy_that_is_disabled_after_the_key_was_made(vtpm: Bench) -> None:
    vtpm.run(vtpm.vtpm.ak(AkKind.P256))
    tell(vtpm.channel, HIERARCHY_CONTROL, PLATFORM, bytes.fromhex("4000000b 00"))
    with pytest.raises(BackendError, match="TPM_RC_HIERARCHY"):
        vtpm.run(vtpm.vtpm.ak(AkKind.P256))


def test_a_key_whose_context_cannot_be_saved_is_not_left_behind(vtpm: Bench) -> None:
    refusal = bytes.fromhex("8001 0000000a 00000101")
    save = CommandCode.CONTEXT_SAVE.to_bytes(4, "big")
    vtpm.tap.before = lambda command: refusal if command[6:10] == save else None
    with pytest.raises(BackendError, match="TPM2_ContextSave answered 0x101"):
        vtpm.run(vtpm.vtpm.ak(AkKind.P256))
    assert vtpm.loaded() == ()
    vtpm.tap.before = lambda _: None
    assert isinstance(vtpm.run(vtpm.vtpm.ak(AkKind.P256)), TpmtPublic)


def fill(vtpm: Bench, what: str) -> None:
    """As a process leaves a TPM that was killed in the middle, and has no resource manager before it."""
    if what == "objects":
        for _ in range(3):
            vtpm.tpm.create_primary(ENDORSEMENT, AkKind.P256.template)
        return
    start = bytes.fromhex("8001 0000002b 00000176 40000007 40000007 0010") + bytes(16)
    for _ in range(3):
        answer = vtpm.channel.exchange(start + bytes.fromhex("0000 01 0010 000b"), timeout_s=10)
        assert answer[6:10] == bytes(4)


@pytest.mark.parametrize("what", ["objects", "sessions"])
def test_what_lies_around_in_a_full_tpm_goes(vtpm: Bench, what: str) -> None:
    fill(vtpm, what)
    assert len(vtpm.loaded()) == 3
    use_everything(vtpm, vtpm.vtpm)
    assert vtpm.loaded() == ()


def use_everything(vtpm: Bench, service: Vtpm) -> None:
    """Needs room for two keys and a session."""
    keys = vtpm.run(service.hand_out(AkKind.P256, "L-2"))
    blob = make_credential(keys.ek, keys.ak.name, b"secret")
    assert vtpm.run(service.activate(AkKind.P256, "L-2", blob)) == b"secret"
