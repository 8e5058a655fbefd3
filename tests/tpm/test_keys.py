"""Keys of a software TPM: made, challenged, certified, saved; and its refusals by name."""

import contextlib
import hashlib
import hmac
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.errors import TpmUnavailableError, WireError
from app.tpm import handles
from app.tpm.client import Tpm
from app.tpm.transport import SocketTransport
from app.trust.credential import make_credential, make_import
from app.trust.tpm_key import verify_attest
from app.wire.tpm import algorithms as alg
from app.wire.tpm.attest import Attest, CertifyInfo, QuoteInfo
from app.wire.tpm.pcr import PcrSelection
from app.wire.tpm.public import TpmtPublic
from app.wire.tpm.signature import HmacSignature, parse_signature
from app.wire.tpm.template import creation_template
from tests.interop.software_tpm import software_tpm
from tests.tpm.live import (
    AK_P256,
    AKS,
    CHANGE_EPS,
    HIERARCHY_CHANGE_AUTH,
    HIERARCHY_CONTROL,
    TIMEOUT_S,
    LiveTpm,
    refuses,
    tell,
)

SECRET = b"0123456789abcdef" * 2
ALL = PcrSelection.of({"sha256": range(24)})
EKS = {"L-1": "RSA-2048", "L-2": "P-256", "H-1": "RSA-2048", "H-2": "P-256", "H-3": "P-384"}


@contextlib.contextmanager
def primary(tpm: LiveTpm, template: bytes) -> Iterator[tuple[int, TpmtPublic]]:
    """A key while the block runs."""
    key = tpm.create_primary(handles.ENDORSEMENT, template)
    with tpm.transient(key.handle):
        yield key.handle, TpmtPublic.parse(key.public)


@pytest.mark.parametrize("template", EKS)
def test_endorsement_keys(tpm: LiveTpm, template: str) -> None:
    with primary(tpm, creation_template(template)) as (handle, ek):
        assert (ek.template, ek.algorithm) == (template, EKS[template])
        assert tpm.read_public(handle) == ek
        assert handle == 0x80000000
    with primary(tpm, creation_template(template)) as (_, again):
        assert again == ek


@pytest.mark.parametrize(("name", "template"), [("rsa", "L-1"), ("ecc", "L-2"), ("ecc384", "H-3")])
def test_the_same_keys_as_tpm2_createek(tmp_path: Path, name: str, template: str) -> None:
    with software_tpm(tmp_path) as tools:
        tools.run("tpm2_createek", "-c", "ek", "-G", name, "-u", "area", "-f", "tpmt")
        with contextlib.closing(SocketTransport.tcp("127.0.0.1", tools.port)) as channel:
            tpm = Tpm(channel, timeout_s=TIMEOUT_S)
            key = tpm.create_primary(handles.ENDORSEMENT, creation_template(template))
            tpm.flush(key.handle)
        assert key.public == tools.read("area")


@pytest.mark.parametrize("template", EKS)
@pytest.mark.parametrize("kind", AKS)
def test_activation(tpm: LiveTpm, template: str, kind: str) -> None:
    with (
        primary(tpm, creation_template(template)) as (ek, public),
        primary(tpm, AKS[kind]) as (ak, ak_public),
    ):
        blob = make_credential(public, ak_public.name, SECRET)
        with tpm.ek_session(public) as session:
            assert tpm.activate_credential(ak, ek, session, blob) == SECRET


def test_a_challenge_to_another_key(tpm: LiveTpm) -> None:
    with primary(tpm, creation_template("L-1")) as (ek, public), primary(tpm, AK_P256) as (ak, ak_public):
        for name in (public.name, b"\0\x0b" + bytes(32)):
            blob = make_credential(public, name, SECRET)
            with (
                tpm.ek_session(public) as session,
                refuses(0x1DF, "TPM2_ActivateCredential answered 0x1df TPM_RC_INTEGRITY (parameter 1)"),
            ):
                tpm.activate_credential(ak, ek, session, blob)
        blob = make_credential(public, ak_public.name, SECRET)
        spoilt = bytes([blob.encrypted_secret[0], blob.encrypted_secret[1] ^ 1]) + blob.encrypted_secret[2:]
        with (
            tpm.ek_session(public) as session,
            refuses(0x101, "TPM2_ActivateCredential answered 0x101 TPM_RC_FAILURE"),
        ):
            tpm.activate_credential(ak, ek, session, replace(blob, encrypted_secret=spoilt))
        with tpm.ek_session(public) as session:  # it was no failure mode
            assert tpm.activate_credential(ak, ek, session, blob) == SECRET


def test_how_an_ek_is_authorized(tpm: LiveTpm) -> None:
    with (
        primary(tpm, creation_template("L-1")) as (low, low_public),
        primary(tpm, creation_template("H-3")) as (high, high_public),
        primary(tpm, AK_P256) as (ak, ak_public),
    ):
        blob = make_credential(low_public, ak_public.name, SECRET)
        with refuses(0x12F, "TPM2_ActivateCredential answered 0x12f TPM_RC_AUTH_UNAVAILABLE"):
            tpm.activate_credential(ak, low, None, blob)
        with (
            tpm.policy_session(alg.SHA256) as session,  # satisfied by nothing
            refuses(0xA9D, "TPM2_ActivateCredential answered 0xa9d TPM_RC_POLICY_FAIL (session 2)"),
        ):
            tpm.activate_credential(ak, low, session, blob)
        blob = make_credential(high_public, ak_public.name, SECRET)
        for hash_alg in (alg.SHA256, alg.SHA384):
            with tpm.policy_session(hash_alg) as session:
                tpm.policy_secret(session, handles.ENDORSEMENT)
                with refuses(0xA9D, "TPM2_ActivateCredential answered 0xa9d TPM_RC_POLICY_FAIL (session 2)"):
                    tpm.activate_credential(ak, high, session, blob)


@pytest.mark.parametrize("template", EKS)
@pytest.mark.parametrize("kind", AKS)
def test_import_and_certify(tpm: LiveTpm, template: str, kind: str) -> None:
    with primary(tpm, creation_template(template)) as (ek, public):
        challenge = make_import(public)
        with tpm.ek_session(public) as session:
            private = tpm.import_object(ek, session, challenge.blob)
        with tpm.ek_session(public) as session:
            imported = tpm.load(ek, session, private, challenge.blob.public_area, challenge.blob.name)
    with tpm.transient(imported), primary(tpm, AKS[kind]) as (ak, ak_public):
        attest, signature = tpm.certify(ak, imported)
    statement, mac = Attest.parse(attest), parse_signature(signature)
    assert isinstance(statement.attested, CertifyInfo)
    assert statement.attested.name == ak_public.name
    assert statement.extra_data == b""
    assert isinstance(mac, HmacSignature)
    assert mac.digest == hmac.digest(challenge.key, hashlib.sha256(attest).digest(), "sha256")


def test_certification_of_a_key_by_a_key(tpm: LiveTpm) -> None:
    with primary(tpm, AK_P256) as (ak, public), primary(tpm, AKS["rsa2048"]) as (other, other_public):
        attest, signature = tpm.certify(other, ak, b"nonce")
    statement = Attest.parse(attest)
    assert isinstance(statement.attested, CertifyInfo)
    assert statement.attested.name == other_public.name
    assert statement.extra_data == b"nonce"
    assert verify_attest(public, parse_signature(signature), attest)


def test_an_import_for_another_ek(tpm: LiveTpm) -> None:
    with (
        primary(tpm, creation_template("L-2")) as (_, elsewhere),
        primary(tpm, creation_template("H-2")) as (ek, public),
    ):
        blob = make_import(public).blob
        mixed = replace(blob, duplicate=make_import(public).blob.duplicate)
        for foreign in (mixed, make_import(elsewhere).blob):
            with refuses(0x3DF, "TPM2_Import answered 0x3df TPM_RC_INTEGRITY (parameter 3)"):
                tpm.import_object(ek, None, foreign)
        private = tpm.import_object(ek, None, blob)
        with refuses(0x1DF, "TPM2_Load answered 0x1df TPM_RC_INTEGRITY (parameter 1)"):
            tpm.load(ek, None, private[:-1] + bytes([private[-1] ^ 1]), blob.public_area, blob.name)
        with pytest.raises(TpmUnavailableError, match="the Name is not that of the public area"):
            tpm.load(ek, None, private, blob.public_area, public.name)  # and is flushed


@pytest.mark.parametrize("kind", AKS)
def test_quotes(tpm: LiveTpm, kind: str) -> None:
    nonce = secrets.token_bytes(32)
    with primary(tpm, AKS[kind]) as (ak, public):
        for selection in (ALL, PcrSelection.of({"sha384": [7], "sha256": [0, 23]})):
            attest, signature = tpm.quote(ak, nonce, selection)
            statement = Attest.parse(attest)
            values = tpm.pcr_read(selection)
            assert statement.attested == QuoteInfo(selection, values.digest(alg.SHA256))
            assert statement.extra_data == nonce
            assert verify_attest(public, parse_signature(signature), attest)
        assert tpm.quote(ak, b"", ALL)
        assert tpm.quote(ak, bytes(66), ALL)
        with refuses(0x1D5, "TPM2_Quote answered 0x1d5 TPM_RC_SIZE (parameter 1)"):
            tpm.quote(ak, bytes(67), ALL)


def test_an_ek_signs_nothing(tpm: LiveTpm) -> None:
    with (
        primary(tpm, creation_template("H-1")) as (ek, _),
        refuses(0x19C, "TPM2_Quote answered 0x19c TPM_RC_KEY (handle 1)"),
    ):
        tpm.quote(ek, b"", ALL)


def test_saved_contexts(tpm: LiveTpm) -> None:
    with primary(tpm, AK_P256) as (ak, public):
        context = tpm.context_save(ak)
    for _ in range(2):
        with tpm.transient(tpm.context_load(context)) as ak:
            assert tpm.read_public(ak) == public
            assert tpm.quote(ak, b"nonce", ALL)
    changed = context[:-1] + bytes([context[-1] ^ 1])
    with refuses(0x1DF, "TPM2_ContextLoad answered 0x1df TPM_RC_INTEGRITY (parameter 1)"):
        tpm.context_load(changed)


def test_a_context_of_another_life_of_the_tpm(tpm: LiveTpm) -> None:
    with primary(tpm, AK_P256) as (ak, public):
        context = tpm.context_save(ak)
    tpm.peer.reboot()
    with refuses(0x100, "TPM2_ContextLoad answered 0x100 TPM_RC_INITIALIZE"):
        tpm.context_load(context)
    tpm.startup()
    with refuses(0x1DF, "TPM2_ContextLoad answered 0x1df TPM_RC_INTEGRITY (parameter 1)"):
        tpm.context_load(context)
    with primary(tpm, AK_P256) as (_, again):
        assert again == public


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        (b"", "sequence, savedHandle and hierarchy needs 16 bytes, 0 left"),
        (bytes(17), "contextBlob size needs 2 bytes, 1 left"),
        (bytes(18), "contextBlob has 0 bytes, want 1 to 4000"),
        (bytes(16) + b"\0\x02\0", "contextBlob needs 2 bytes, 1 left"),
        (bytes(16) + b"\0\x01\0\0", "1 bytes follow the end of the structure"),
        (bytes(16) + b"\x0f\xa1" + bytes(4001), "contextBlob has 4001 bytes, want 1 to 4000"),
    ],
)
def test_what_is_no_context(tpm: LiveTpm, context: bytes, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        tpm.context_load(context)
    assert (caught.value.structure, caught.value.reason) == ("TPMS_CONTEXT", reason)


def test_a_reset_in_the_middle(tpm: LiveTpm) -> None:
    with (
        refuses(0x910, "TPM2_ReadPublic answered 0x910 TPM_RC_REFERENCE_H0"),
        primary(tpm, AK_P256) as (ak, _),
    ):
        tpm.peer.reboot()
        tpm.startup()
        tpm.read_public(ak)
    with (
        refuses(0x911, "TPM2_PolicySecret answered 0x911 TPM_RC_REFERENCE_H1"),
        tpm.policy_session(alg.SHA256) as session,
    ):
        tpm.peer.reboot()
        tpm.startup()
        tpm.policy_secret(session, handles.ENDORSEMENT)


def test_what_changes_the_ek(tpm: LiveTpm) -> None:
    with primary(tpm, creation_template("L-2")) as (_, before):
        pass
    tell(tpm.channel, CHANGE_EPS, handles.PLATFORM)
    with primary(tpm, creation_template("L-2")) as (_, after):
        assert before.name != after.name


def test_a_hierarchy_with_a_password(tpm: LiveTpm) -> None:
    tell(tpm.channel, HIERARCHY_CHANGE_AUTH, handles.ENDORSEMENT, b"\0\x04word")
    with refuses(0x9A2, "TPM2_CreatePrimary answered 0x9a2 TPM_RC_BAD_AUTH (session 1)"):
        tpm.create_primary(handles.ENDORSEMENT, AK_P256)
    with (
        tpm.policy_session(alg.SHA256) as session,
        refuses(0x9A2, "TPM2_PolicySecret answered 0x9a2 TPM_RC_BAD_AUTH (session 1)"),
    ):
        tpm.policy_secret(session, handles.ENDORSEMENT)


def test_a_hierarchy_that_is_disabled(tpm: LiveTpm) -> None:
    tell(tpm.channel, HIERARCHY_CONTROL, handles.PLATFORM, handles.ENDORSEMENT.to_bytes(4, "big") + b"\0")
    with refuses(0x185, "TPM2_CreatePrimary answered 0x185 TPM_RC_HIERARCHY (handle 1)"):
        tpm.create_primary(handles.ENDORSEMENT, AK_P256)


def test_a_tpm_without_room(tpm: LiveTpm) -> None:
    with contextlib.ExitStack() as loaded:
        for _ in range(3):
            loaded.enter_context(primary(tpm, AK_P256))
        with refuses(0x902, "TPM2_CreatePrimary answered 0x902 TPM_RC_OBJECT_MEMORY"):
            tpm.create_primary(handles.ENDORSEMENT, AK_P256)
    with contextlib.ExitStack() as loaded:
        for _ in range(3):
            loaded.enter_context(tpm.policy_session(alg.SHA256))
        with refuses(0x903, "TPM2_StartAuthSession answered 0x903 TPM_RC_SESSION_MEMORY"):
            loaded.enter_context(tpm.policy_session(alg.SHA256))


def test_five_hundred_rounds_leave_nothing(tpm: LiveTpm) -> None:
    with primary(tpm, creation_template("L-2")) as (ek, public), primary(tpm, AK_P256) as (ak, ak_public):
        contexts = tpm.context_save(ek), tpm.context_save(ak)
        blob = make_credential(public, ak_public.name, SECRET)
    for _ in range(500):
        with (
            tpm.transient(tpm.context_load(contexts[0])) as ek,
            tpm.transient(tpm.context_load(contexts[1])) as ak,
        ):
            with tpm.ek_session(public) as session:
                assert tpm.activate_credential(ak, ek, session, blob) == SECRET
            tpm.quote(ak, SECRET, ALL)
    assert tpm.loaded() == ()
