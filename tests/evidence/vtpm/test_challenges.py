"""Challenges of others, answered; and those that are refused, each for its own reason."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from app.errors import BackendError, ChallengeRefusedError, WireError
from app.evidence.vtpm.ak_kind import AkKind
from app.evidence.vtpm.vtpm import AttestationKey
from app.trust.credential import make_credential, make_import, verify_certify_mac
from app.wire.tpm.attest import Attest, CertifyInfo
from app.wire.tpm.credential import CredentialBlob
from app.wire.tpm.duplicate import ImportBlob
from app.wire.tpm.public import TpmtPublic
from app.wire.tpm.signature import parse_signature
from tests.evidence.vtpm.bench import SOME, Bench, qualify
from tests.interop.software_tpm import demand
from tests.tpm.live import CHANGE_EPS, tell

SECRET = bytes(range(32))
TEMPLATES = ("L-1", "L-2", "H-3")
KINDS = tuple(AkKind)
EVERY_COMBINATION = [(template, kind) for template in TEMPLATES for kind in KINDS]
PLATFORM = 0x4000000C
OTHER_KEY = "it was made for another EK, or for a key of another Name, or was changed on its way"


def made_by_tools(folder: Path, keys: AttestationKey, secret: bytes) -> CredentialBlob:
    """A challenge of tpm2_makecredential, which needs no TPM for it."""
    demand("tpm2_makecredential")
    (folder / "secret").write_bytes(secret)
    (folder / "ek").write_bytes(keys.ek.to_tpm2b())
    command = ["tpm2_makecredential", "-Q", "-T", "none", "-u", "ek", "-n", keys.ak.name.hex()]
    subprocess.run([*command, "-s", "secret", "-o", "blob"], check=True, cwd=folder, capture_output=True)
    return CredentialBlob.from_tools_file((folder / "blob").read_bytes())


def made_by_pytss(keys: AttestationKey, secret: bytes) -> CredentialBlob:
    """A challenge of tpm2-pytss."""
    missing = "tpm2-pytss is not installed (make test builds it)"
    tss: Any = pytest.importorskip("tpm2_pytss", reason=missing)
    tools: Any = pytest.importorskip("tpm2_pytss.utils", reason=missing)
    public = tss.TPM2B_PUBLIC.unmarshal(keys.ek.to_tpm2b())[0]
    id_object, seed = tools.make_credential(public, secret, tss.TPM2B_NAME(keys.ak.name))
    return CredentialBlob.parse(id_object.marshal(), seed.marshal())


@pytest.mark.parametrize(("template", "kind"), EVERY_COMBINATION)
def test_challenges_of_every_maker_are_solved(
    vtpm: Bench, tmp_path: Path, template: str, kind: AkKind
) -> None:
    keys = vtpm.run(vtpm.vtpm.hand_out(kind, template))
    for blob in (
        make_credential(keys.ek, keys.ak.name, SECRET),
        made_by_tools(tmp_path, keys, SECRET),
        made_by_pytss(keys, SECRET),
    ):
        assert vtpm.run(vtpm.vtpm.activate(kind, template, blob)) == SECRET


@pytest.mark.parametrize(("template", "kind"), EVERY_COMBINATION)
def test_a_key_that_is_imported_certifies_ours(vtpm: Bench, template: str, kind: AkKind) -> None:
    keys = vtpm.run(vtpm.vtpm.hand_out(kind, template))
    challenge = make_import(keys.ek)
    made = vtpm.run(vtpm.vtpm.certify(kind, template, challenge.blob))
    assert TpmtPublic.parse(made.ak_public) == keys.ak
    attested = Attest.parse(made.certify_info).attested
    assert isinstance(attested, CertifyInfo)
    assert attested.name == keys.ak.name
    assert verify_certify_mac(challenge.key, made.certify_info, parse_signature(made.signature))


def test_nothing_is_left_of_either_way(vtpm: Bench) -> None:
    keys = vtpm.run(vtpm.vtpm.hand_out(AkKind.P256, "L-2"))
    for _ in range(20):
        blob = make_credential(keys.ek, keys.ak.name, SECRET)
        vtpm.run(vtpm.vtpm.activate(AkKind.P256, "L-2", blob))
        vtpm.run(vtpm.vtpm.certify(AkKind.P256, "L-2", make_import(keys.ek).blob))
        assert vtpm.loaded() == ()


def flipped(raw: bytes, index: int) -> bytes:
    return raw[:index] + bytes([raw[index] ^ 0x10]) + raw[index + 1 :]


def challenge_to(keys: AttestationKey) -> tuple[bytes, bytes]:
    return make_credential(keys.ek, keys.ak.name, SECRET).to_tpm2bs()


@pytest.mark.parametrize(("template", "step"), [("L-1", 17), ("L-2", 1), ("H-3", 3)])
def test_one_bit_anywhere_makes_another_challenge(vtpm: Bench, template: str, step: int) -> None:
    keys = vtpm.run(vtpm.vtpm.hand_out(AkKind.P256, template))
    whole = challenge_to(keys)
    for part, raw in enumerate(whole):
        for index in range(0, len(raw), step):
            changed = [flipped(raw, index) if which == part else other for which, other in enumerate(whole)]
            try:
                blob = CredentialBlob.parse(*changed)
            except WireError:
                continue  # a size: it is told before the TPM is asked
            with pytest.raises(ChallengeRefusedError) as caught:
                vtpm.run(vtpm.vtpm.activate(AkKind.P256, template, blob))
            assert "POST /ak" in caught.value.remedy
    assert vtpm.loaded() == ()
    blob = CredentialBlob.parse(*whole)
    assert vtpm.run(vtpm.vtpm.activate(AkKind.P256, template, blob)) == SECRET


@pytest.mark.parametrize(("template", "step"), [("L-1", 17), ("L-2", 1), ("H-3", 3)])
def test_one_bit_anywhere_makes_another_key_to_import(vtpm: Bench, template: str, step: int) -> None:
    keys = vtpm.run(vtpm.vtpm.hand_out(AkKind.P256, template))
    blob = make_import(keys.ek).blob
    whole = (blob.public_area, blob.duplicate, blob.encrypted_seed)
    for part, raw in enumerate(whole):
        for index in range(0, len(raw), step):
            changed = [flipped(raw, index) if which == part else other for which, other in enumerate(whole)]
            try:
                other = ImportBlob.parse(*changed)
            except WireError:
                continue
            with pytest.raises(ChallengeRefusedError):
                vtpm.run(vtpm.vtpm.certify(AkKind.P256, template, other))
    assert vtpm.loaded() == ()
    assert vtpm.run(vtpm.vtpm.certify(AkKind.P256, template, blob)).ak_public == keys.ak.encode()


def test_every_wrong_challenge_has_its_own_reason(vtpm: Bench) -> None:
    keys = vtpm.run(vtpm.vtpm.hand_out(AkKind.P256, "L-1"))
    other = vtpm.run(vtpm.vtpm.hand_out(AkKind.RSA2048, "L-2"))

    def refused(blob: CredentialBlob, template: str = "L-1") -> str:
        with pytest.raises(ChallengeRefusedError) as caught:
            vtpm.run(vtpm.vtpm.activate(AkKind.P256, template, blob))
        return caught.value.reason

    name = "TPM2_ActivateCredential answered 0x1df TPM_RC_INTEGRITY (parameter 1)"
    assert refused(make_credential(keys.ek, other.ak.name, SECRET)) == f"{OTHER_KEY} ({name})"
    assert "this EK cannot decrypt it" in refused(make_credential(other.ek, keys.ak.name, SECRET))
    rsa = make_credential(keys.ek, keys.ak.name, SECRET)
    assert "this EK cannot decrypt it" in refused(rsa, "L-2")
    damaged = CredentialBlob(rsa.id_object, bytes(256))
    assert "this EK cannot decrypt it" in refused(damaged)
    larger = CredentialBlob(rsa.id_object, b"\xff" * 256)  # than the modulus
    assert "this EK cannot decrypt it" in refused(larger)
    assert vtpm.run(vtpm.vtpm.activate(AkKind.P256, "L-1", rsa)) == SECRET


def test_a_key_has_to_be_handed_out_first(vtpm: Bench) -> None:
    ek, ak = vtpm.run(vtpm.vtpm.ek("L-2")), vtpm.run(vtpm.vtpm.ak(AkKind.P256))
    blob = make_credential(ek, ak.name, SECRET)
    for _ in range(2):
        with pytest.raises(ChallengeRefusedError, match="was not handed out"):
            vtpm.run(vtpm.vtpm.activate(AkKind.P256, "L-2", blob))
        with pytest.raises(ChallengeRefusedError, match="was not handed out"):
            vtpm.run(vtpm.vtpm.certify(AkKind.P256, "L-2", make_import(ek).blob))
    vtpm.run(vtpm.vtpm.hand_out(AkKind.RSA2048, "L-2"))  # another key
    with pytest.raises(ChallengeRefusedError, match="was not handed out"):
        vtpm.run(vtpm.vtpm.activate(AkKind.P256, "L-2", blob))
    vtpm.run(vtpm.vtpm.hand_out(AkKind.P256, "L-2"))
    assert vtpm.run(vtpm.vtpm.activate(AkKind.P256, "L-2", blob)) == SECRET


def test_a_reset_between_challenge_and_answer_fails_closed(vtpm: Bench) -> None:
    keys = vtpm.run(vtpm.vtpm.hand_out(AkKind.P256, "L-1"))
    blob = make_credential(keys.ek, keys.ak.name, SECRET)
    before = vtpm.reset_count()
    vtpm.peer.reboot()
    with pytest.raises(BackendError) as caught:
        vtpm.run(vtpm.vtpm.activate(AkKind.P256, "L-1", blob))
    assert (caught.value.cause, "0x100 TPM_RC_INITIALIZE" in caught.value.reason) == ("tpm-refused", True)
    vtpm.tpm.startup()
    for _ in range(2):
        with pytest.raises(ChallengeRefusedError, match="since the TPM, or this service, was last reset"):
            vtpm.run(vtpm.vtpm.activate(AkKind.P256, "L-1", blob))
    # What needs no challenge goes on, and a new round works: without a restart.
    assert vtpm.reset_count() == before + 1
    again = vtpm.run(vtpm.vtpm.hand_out(AkKind.P256, "L-1"))
    assert again == keys
    blob = make_credential(again.ek, again.ak.name, SECRET)
    assert vtpm.run(vtpm.vtpm.activate(AkKind.P256, "L-1", blob)) == SECRET


def test_a_quote_that_notices_the_reset_does_not_hide_it(vtpm: Bench) -> None:
    keys = vtpm.run(vtpm.vtpm.hand_out(AkKind.P256, "L-2"))
    blob = make_credential(keys.ek, keys.ak.name, SECRET)
    vtpm.peer.reboot()
    vtpm.tpm.startup()
    vtpm.run(vtpm.vtpm.quote(AkKind.P256, qualify, SOME, with_event_log=False))
    with pytest.raises(ChallengeRefusedError, match="was not handed out"):
        vtpm.run(vtpm.vtpm.activate(AkKind.P256, "L-2", blob))


def test_another_seed_between_challenge_and_answer_fails_closed(vtpm: Bench) -> None:
    keys = vtpm.run(vtpm.vtpm.hand_out(AkKind.P256, "L-2"))
    blob = make_credential(keys.ek, keys.ak.name, SECRET)
    tell(vtpm.channel, CHANGE_EPS, PLATFORM)
    with pytest.raises(ChallengeRefusedError, match="was not handed out"):
        vtpm.run(vtpm.vtpm.activate(AkKind.P256, "L-2", blob))
    changed = vtpm.run(vtpm.vtpm.hand_out(AkKind.P256, "L-2"))
    with pytest.raises(ChallengeRefusedError, match=r"cannot decrypt|another EK"):
        vtpm.run(vtpm.vtpm.activate(AkKind.P256, "L-2", blob))  # the old challenge, to the new keys
    blob = make_credential(changed.ek, changed.ak.name, SECRET)
    assert vtpm.run(vtpm.vtpm.activate(AkKind.P256, "L-2", blob)) == SECRET
