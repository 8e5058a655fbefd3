"""Challenges made here, answered by a software TPM; challenges of others, read here."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from app.trust.credential import make_credential, make_import, verify_certify_mac
from app.trust.tpm_key import verify_attest
from app.wire.tpm import algorithms as alg
from app.wire.tpm import duplicate
from app.wire.tpm.attest import Attest, CertifyInfo
from app.wire.tpm.credential import CredentialBlob
from app.wire.tpm.duplicate import ImportBlob
from app.wire.tpm.public import EccKey, TpmtPublic
from app.wire.tpm.signature import EcdsaSignature, parse_signature
from tests.interop.software_tpm import SoftwareTpm, software_tpm
from tests.wire.samples import SWTPM_EK, p256_ek, p384_ek, patched, signing_key, sized

MISSING = "tpm2-pytss is not installed (make test builds it)"
tss = pytest.importorskip("tpm2_pytss", reason=MISSING)
tools = pytest.importorskip("tpm2_pytss.utils", reason=MISSING)

SECRET = bytes(range(32))
EKS = {"rsa": SWTPM_EK, "ecc": p256_ek(), "ecc384": p384_ek()}
AKS = ("ecc256:ecdsa-sha256", "ecc384:ecdsa-sha384", "rsa2048:rsassa-sha256")
AK_ATTRIBUTES = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign"
ATTEMPTS = 5000  # at finding a byte of zero: the chance of none is 3e-9


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareTpm]:
    with software_tpm(tmp_path_factory.mktemp("tpm")) as running:
        yield running


@contextmanager
def esapi(tpm: SoftwareTpm) -> Iterator[Any]:
    """The TPM for tpm2-pytss alone, which no tool of tpm2-tools may ask meanwhile."""
    with tss.ESAPI(f"swtpm:host=127.0.0.1,port={tpm.port}") as context:
        yield context


def made_ek(tpm: SoftwareTpm, kind: str) -> TpmtPublic:
    tpm.run("tpm2_createek", "-Q", "-c", "ek.ctx", "-G", kind, "-u", "ek", "-f", "tpmt")
    return TpmtPublic.parse(tpm.read("ek"))


def made_ak(tpm: SoftwareTpm, kind: str) -> TpmtPublic:
    key = ("-C", "e", "-G", f"{kind}:null", "-a", AK_ATTRIBUTES)
    tpm.run("tpm2_createprimary", "-Q", *key, "-c", "ak.ctx")
    tpm.run("tpm2_readpublic", "-Q", "-c", "ak.ctx", "-f", "tpmt", "-o", "ak")
    return TpmtPublic.parse(tpm.read("ak"))


def activated(tpm: SoftwareTpm, ek: TpmtPublic, blob: CredentialBlob) -> bytes:
    """What tpm2_activatecredential takes out of the blob, for the EK and the AK made last."""
    tpm.write("blob", blob.to_tools_file())
    keys = ("-c", "ak.ctx", "-C", "ek.ctx", "-i", "blob", "-o", "secret")
    if ek.template == "H-3":  # of the high range: its password is empty, and enough
        tpm.run("tpm2_activatecredential", "-Q", *keys)
        return tpm.read("secret")
    tpm.run("tpm2_startauthsession", "--policy-session", "-S", "session")
    try:
        tpm.run("tpm2_policysecret", "-Q", "-S", "session", "-c", "e")
        tpm.run("tpm2_activatecredential", "-Q", *keys, "-P", "session:session")
    finally:
        tpm.run("tpm2_flushcontext", "session")
    return tpm.read("secret")


@pytest.mark.parametrize("ak_kind", AKS)
@pytest.mark.parametrize("ek_kind", EKS)
def test_a_tpm_opens_our_credentials(tpm: SoftwareTpm, ek_kind: str, ak_kind: str) -> None:
    ek, ak = made_ek(tpm, ek_kind), made_ak(tpm, ak_kind)
    assert activated(tpm, ek, make_credential(ek, ak.name, SECRET)) == SECRET
    longest = bytes(alg.HASH_SIZES[ek.name_alg])
    assert activated(tpm, ek, make_credential(ek, ak.name, longest)) == longest


def test_a_tpm_does_not_open_them_for_another_key(tpm: SoftwareTpm) -> None:
    ek, ak = made_ek(tpm, "ecc"), made_ak(tpm, AKS[0])
    other = TpmtPublic.parse(signing_key())
    with pytest.raises(subprocess.CalledProcessError, match="tpm2_activatecredential"):
        activated(tpm, ek, make_credential(ek, other.name, SECRET))
    with pytest.raises(subprocess.CalledProcessError, match="tpm2_activatecredential"):
        activated(tpm, ek, make_credential(TpmtPublic.parse(p256_ek()), ak.name, SECRET))
    assert activated(tpm, ek, make_credential(ek, ak.name, SECRET)) == SECRET


@pytest.mark.parametrize("kind", EKS)
def test_credentials_of_tpm2_tools(tpm: SoftwareTpm, kind: str) -> None:
    ek, ak = made_ek(tpm, kind), made_ak(tpm, AKS[0])
    tpm.write("plain", SECRET)
    tpm.write("ek.tss", ek.to_tpm2b())
    tpm.run("tpm2_makecredential", "-Q", "-e", "ek.tss", "-n", ak.name.hex(), "-s", "plain", "-o", "made")
    raw = tpm.read("made")
    blob = CredentialBlob.from_tools_file(raw)
    assert blob.to_tools_file() == raw
    assert activated(tpm, ek, CredentialBlob.parse(*blob.to_tpm2bs())) == SECRET


@pytest.mark.parametrize("kind", EKS)
def test_credentials_of_tpm2_pytss(tpm: SoftwareTpm, kind: str) -> None:
    ek, ak = made_ek(tpm, kind), made_ak(tpm, AKS[0])
    public = tss.TPM2B_PUBLIC.unmarshal(ek.to_tpm2b())[0]
    id_object, secret = tools.make_credential(public, SECRET, tss.TPM2B_NAME(ak.name))
    blob = CredentialBlob.parse(id_object.marshal(), secret.marshal())
    assert blob.to_tools_file() == tools.credential_to_tools(id_object, secret)
    assert activated(tpm, ek, blob) == SECRET


@contextmanager
def ek_session(context: Any, ek: TpmtPublic) -> Iterator[Any]:
    """What lets tpm2-pytss use an EK once."""
    if ek.template == "H-3":
        yield tss.ESYS_TR.PASSWORD
        return
    session = context.start_auth_session(
        tss.ESYS_TR.NONE,
        tss.ESYS_TR.NONE,
        tss.TPM2_SE.POLICY,
        tss.TPMT_SYM_DEF(algorithm=alg.NULL),
        alg.SHA256,
    )
    try:
        context.policy_secret(tss.ESYS_TR.ENDORSEMENT, session, expiration=0)
        yield session
    finally:
        context.flush_context(session)


def primary(context: Any, stack: ExitStack, template: bytes) -> tuple[Any, TpmtPublic]:
    """A key of the endorsement hierarchy, until the stack unwinds."""
    public = tss.TPM2B_PUBLIC(tss.TPMT_PUBLIC.unmarshal(template)[0])
    handle, made, *_ = context.create_primary(None, public, tss.ESYS_TR.ENDORSEMENT)
    stack.callback(context.flush_context, handle)
    return handle, TpmtPublic.from_tpm2b(made.marshal())


def with_unique(area: bytes, number: int) -> bytes:
    """A template that makes another key for each number (of a P-256 area)."""
    return area[:-68] + sized(number.to_bytes(32, "big")) + sized(bytes(32))


AK_TEMPLATE = signing_key()


def rsa_template(area: bytes) -> bytes:
    return area[:-256] + bytes(256)


EK_TEMPLATES = {
    "rsa": rsa_template(SWTPM_EK),
    "ecc": with_unique(p256_ek(), 0),
    "ecc384": p384_ek()[:-100] + sized(b"") + sized(b""),
}


@pytest.mark.parametrize("kind", EK_TEMPLATES)
def test_a_tpm_imports_our_keys_and_certifies_with_them(tpm: SoftwareTpm, kind: str) -> None:
    with esapi(tpm) as context, ExitStack() as stack:
        ek_handle, ek = primary(context, stack, EK_TEMPLATES[kind])
        ak_handle, ak = primary(context, stack, with_unique(AK_TEMPLATE, 1))
        challenge = make_import(ek)
        public, private, seed = (
            one.unmarshal(raw)[0]
            for one, raw in zip(
                (tss.TPM2B_PUBLIC, tss.TPM2B_PRIVATE, tss.TPM2B_ENCRYPTED_SECRET),
                challenge.blob.to_tpm2bs(),
                strict=True,
            )
        )
        no_inner_wrap = tss.TPMT_SYM_DEF_OBJECT(algorithm=alg.NULL)
        with ek_session(context, ek) as session:
            imported = context.import_(ek_handle, b"", public, private, seed, no_inner_wrap, session1=session)
        with ek_session(context, ek) as session:
            key = context.load(ek_handle, imported, public, session1=session)
        stack.callback(context.flush_context, key)
        assert bytes(context.read_public(key)[1]) == challenge.name

        scheme = tss.TPMT_SIG_SCHEME(scheme=alg.NULL)
        info, signature = context.certify(ak_handle, key, b"", scheme)
        raw, mac = bytes(info), parse_signature(signature.marshal())
        assert verify_certify_mac(challenge.key, raw, mac)
        assert not verify_certify_mac(make_import(ek).key, raw, mac)
        assert not verify_certify_mac(challenge.key, patched(raw, (len(raw) - 1, b"\xff")), mac)
        attested = Attest.parse(raw).attested
        assert isinstance(attested, CertifyInfo)
        assert attested.name == ak.name


@pytest.mark.parametrize("kind", EKS)
def test_keys_to_import_of_tpm2_pytss(kind: str) -> None:
    ek = TpmtPublic.parse(EKS[kind])
    obfuscation, key = b"\x0f" * 32, b"\x1e" * 32
    challenge = make_import(ek)
    public = tss.TPM2B_PUBLIC(tss.TPMT_PUBLIC.unmarshal(challenge.blob.public_area)[0])
    raw = duplicate.encode_sensitive(obfuscation, key)
    sensitive = tss.TPM2B_SENSITIVE.unmarshal(raw)[0]
    assert bytes(sensitive.sensitiveArea.seedValue) == obfuscation
    assert bytes(sensitive.sensitiveArea.sensitive.bits) == key
    assert sensitive.marshal() == raw
    parent = tss.TPMT_PUBLIC.unmarshal(ek.encode())[0]
    _, private, seed = tools.wrap(parent, public, sensitive)
    blob = ImportBlob.parse(challenge.blob.public_area, bytes(private), bytes(seed.secret))
    assert blob.to_tpm2bs()[1:] == (private.marshal(), seed.marshal())
    sizes = [len(part) for part in (blob.public_area, blob.duplicate, blob.encrypted_seed)]
    ours = challenge.blob
    assert sizes == [len(part) for part in (ours.public_area, ours.duplicate, ours.encrypted_seed)]


def starts_with_zero(key: TpmtPublic) -> bool:
    assert isinstance(key.key, EccKey)
    return min(key.key.x, key.key.y) >> 248 == 0


def test_a_tpms_own_keys_whose_coordinates_start_with_a_zero_byte(tpm: SoftwareTpm) -> None:
    with esapi(tpm) as context:
        for template, is_ek in ((p256_ek(), True), (AK_TEMPLATE, False)):
            for number in range(ATTEMPTS):
                with ExitStack() as stack:
                    handle, key = primary(context, stack, with_unique(template, number))
                    if not starts_with_zero(key):
                        continue
                    assert bytes(context.read_public(handle)[1]) == key.name
                    if is_ek:
                        ak_handle, ak = primary(context, stack, with_unique(AK_TEMPLATE, 1))
                        id_object, secret = make_credential(key, ak.name, SECRET).to_tpm2bs()
                        with ek_session(context, key) as session:
                            opened = context.activate_credential(
                                ak_handle,
                                handle,
                                tss.TPM2B_ID_OBJECT.unmarshal(id_object)[0],
                                tss.TPM2B_ENCRYPTED_SECRET.unmarshal(secret)[0],
                                session2=session,
                            )
                        assert bytes(opened) == SECRET
                    else:
                        quote, signature = context.quote(handle, "sha256:0", b"nonce")
                        assert verify_attest(key, parse_signature(signature.marshal()), bytes(quote))
                break
            else:
                pytest.fail("no coordinate started with a zero byte")


def test_a_tpms_own_signatures_whose_integers_start_with_a_zero_byte(tpm: SoftwareTpm) -> None:
    with esapi(tpm) as context, ExitStack() as stack:
        handle, ak = primary(context, stack, with_unique(AK_TEMPLATE, 1))
        for number in range(ATTEMPTS):
            quote, made = context.quote(handle, "sha256:0", number.to_bytes(4, "big"))
            signature = parse_signature(made.marshal())
            assert isinstance(signature, EcdsaSignature)
            assert verify_attest(ak, signature, bytes(quote))
            assert signature.encode() == made.marshal()
            if any(len(part) < 32 or not part[0] for part in (signature.r, signature.s)):
                return
        pytest.fail("no integer started with a zero byte")
