"""TPM structures beside tpm2-pytss, and statements that a software TPM signed for tpm2-tools."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given, settings

from app.trust import kdf, tpm_key
from app.wire.tpm import algorithms as alg
from app.wire.tpm.attest import Attest, CertifyInfo, QuoteInfo
from app.wire.tpm.credential import CredentialBlob
from app.wire.tpm.duplicate import ImportBlob
from app.wire.tpm.fields import to_tpm2b
from app.wire.tpm.pcr import PcrSelection, PcrValues
from app.wire.tpm.public import TpmtPublic
from app.wire.tpm.signature import EcdsaSignature, HmacSignature, RsaSignature, TpmtSignature, parse_signature
from tests.interop.software_tpm import SoftwareTpm, software_tpm
from tests.properties import strategies as of
from tests.wire.samples import LEADING_ZERO_SCALARS, SWTPM_EK, p256_ek, p384_ek, patched, signing_key
from tests.wire.tpm import statements

MISSING = "tpm2-pytss is not installed (make test builds it)"
tss = pytest.importorskip("tpm2_pytss", reason=MISSING)
tools = pytest.importorskip("tpm2_pytss.utils", reason=MISSING)
crypto = pytest.importorskip("tpm2_pytss.internal.crypto", reason=MISSING)

KEYS = (
    SWTPM_EK,
    signing_key(),
    signing_key(curve="P-384"),
    statements.QUOTE_AK,
    *(p256_ek(scalar) for (curve, _), scalar in LEADING_ZERO_SCALARS.items() if curve == "P-256"),
    *(p384_ek(scalar) for (curve, _), scalar in LEADING_ZERO_SCALARS.items() if curve == "P-384"),
)


def theirs(kind: str, raw: bytes) -> Any:
    """What tpm2-pytss reads in all of `raw`, once it writes the same bytes again."""
    value, size = getattr(tss, kind).unmarshal(raw)
    assert size == len(raw)
    assert value.marshal() == raw
    return value


@pytest.mark.parametrize("raw", KEYS, ids=lambda raw: raw[-8:].hex())
def test_public_areas_and_names(raw: bytes) -> None:
    ours = TpmtPublic.parse(raw)
    read = tss.TPMT_PUBLIC.unmarshal(raw)[0]
    assert read.marshal() == raw
    assert bytes(read.get_name()) == ours.name
    assert read.to_pem().decode() == tpm_key.pem(ours)
    assert (read.type, read.nameAlg, read.objectAttributes) == (ours.key.type, ours.name_alg, ours.attributes)
    assert tss.TPM2B_PUBLIC(read).marshal() == ours.to_tpm2b()


@given(key=of.keys())
@settings(deadline=None)
def test_any_public_area(key: TpmtPublic) -> None:
    read = tss.TPMT_PUBLIC.unmarshal(key.encode())[0]
    assert read.marshal() == key.encode()
    assert bytes(read.get_name()) == key.name


THEIR_EXTRA_DATA = 64  # a TPM takes 66 (sizeof(TPMT_HA)), their TPM2B_DATA has no room for them


def same_attest(raw: bytes, ours: Attest) -> None:
    read = tss.TPMS_ATTEST.unmarshal(raw)[0]
    assert read.marshal() == raw == ours.encode()
    assert bytes(read.qualifiedSigner) == ours.qualified_signer
    assert bytes(read.extraData) == ours.extra_data
    clock = read.clockInfo
    assert (clock.clock, clock.resetCount, clock.restartCount, bool(clock.safe)) == (
        ours.clock.clock_ms,
        ours.clock.reset_count,
        ours.clock.restart_count,
        ours.clock.safe,
    )
    assert read.firmwareVersion == ours.firmware_version
    assert read.type == ours.attested.type
    if isinstance(ours.attested, QuoteInfo):
        assert read.attested.quote.pcrSelect.marshal() == ours.attested.selection.encode()
        assert bytes(read.attested.quote.pcrDigest) == ours.attested.pcr_digest
    else:
        assert bytes(read.attested.certify.name) == ours.attested.name
        assert bytes(read.attested.certify.qualifiedName) == ours.attested.qualified_name


@pytest.mark.parametrize("raw", [statements.QUOTE, statements.CERTIFY, statements.LARGEST_QUOTE])
def test_statements(raw: bytes) -> None:
    attest = Attest.parse(raw)
    attest = replace(attest, extra_data=attest.extra_data[:THEIR_EXTRA_DATA])
    same_attest(attest.encode(), attest)


@given(attest=of.attests.filter(lambda attest: len(attest.extra_data) <= THEIR_EXTRA_DATA))
@settings(deadline=None)
def test_any_statement(attest: Attest) -> None:
    same_attest(attest.encode(), attest)


def same_signature(raw: bytes, ours: TpmtSignature) -> None:
    read = tss.TPMT_SIGNATURE.unmarshal(raw)[0]
    assert read.marshal() == raw == ours.encode()
    assert read.sigAlg == ours.scheme
    if isinstance(ours, HmacSignature):
        assert (read.signature.hmac.hashAlg, bytes(read.signature.hmac)) == (ours.hash_alg, ours.digest)
    elif isinstance(ours, EcdsaSignature):
        both = read.signature.ecdsa
        assert both.hash == ours.hash_alg
        assert (bytes(both.signatureR), bytes(both.signatureS)) == (ours.r, ours.s)
    else:
        assert (read.signature.rsassa.hash, bytes(read.signature.rsassa.sig)) == (
            ours.hash_alg,
            ours.signature,
        )


@given(signature=of.tpm_signatures)
@settings(deadline=None)
def test_any_signature(signature: TpmtSignature) -> None:
    same_signature(signature.encode(), signature)


@given(selection=of.pcr_selections)
@settings(deadline=None)
def test_any_selection(selection: PcrSelection) -> None:
    theirs("TPML_PCR_SELECTION", selection.encode())
    words = "+".join(f"{name}:{','.join(map(str, pcrs))}" for name, pcrs in selection.names().items())
    assert tss.TPML_PCR_SELECTION.parse(words).marshal() == selection.encode()
    assert tss.TPML_PCR_SELECTION.parse(words.replace("sha256", "0xb")).marshal() == selection.encode()


@given(blob=of.credentials)
@settings(deadline=None)
def test_any_credential(blob: CredentialBlob) -> None:
    id_object, secret = blob.to_tpm2bs()
    inner = theirs("TPM2B_ID_OBJECT", id_object)
    theirs("TPM2B_ENCRYPTED_SECRET", secret)
    read = tss.TPMS_ID_OBJECT.unmarshal(to_tpm2b(blob.id_object.integrity) + to_tpm2b(b"identity"))[0]
    assert bytes(read.integrityHMAC) == blob.id_object.integrity
    assert bytes(inner) == to_tpm2b(blob.id_object.integrity) + blob.id_object.encrypted_identity
    assert tools.credential_to_tools(*tools.tools_to_credential(blob.to_tools_file())) == (
        blob.to_tools_file()
    )
    written = tools.credential_to_tools(bytes(inner), blob.encrypted_secret)
    assert CredentialBlob.from_tools_file(written) == blob


@given(blob=of.import_blobs)
@settings(deadline=None)
def test_any_key_to_import(blob: ImportBlob) -> None:
    public, private, seed = blob.to_tpm2bs()
    read = tss.TPM2B_PUBLIC.unmarshal(public)[0]
    assert read.marshal() == public
    assert bytes(read.get_name()) == blob.name
    assert read.publicArea.objectAttributes == (
        tss.TPMA_OBJECT.USERWITHAUTH
        | tss.TPMA_OBJECT.NODA
        | tss.TPMA_OBJECT.RESTRICTED
        | tss.TPMA_OBJECT.SIGN_ENCRYPT
    )
    theirs("TPM2B_PRIVATE", private)
    theirs("TPM2B_ENCRYPTED_SECRET", seed)


@pytest.mark.parametrize("hash_alg", [alg.SHA256, alg.SHA384, alg.SHA512])
@pytest.mark.parametrize("bits", [128, 256, 384, 512, 1024])
def test_key_derivation(hash_alg: int, bits: int) -> None:
    key, u, v = bytes(range(48)), b"\x01" * 48, b"\x02" * 32
    assert kdf.kdfa(hash_alg, key, b"STORAGE", u, v, bits) == crypto._kdfa(
        hash_alg, key, b"STORAGE", u, v, bits
    )
    assert kdf.kdfe(hash_alg, key, b"IDENTITY", u, v, bits) == crypto.kdfe(
        hash_alg, key, b"IDENTITY\x00", u, v, bits
    )


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareTpm]:
    with software_tpm(tmp_path_factory.mktemp("tpm")) as running:
        yield running


AK_ATTRIBUTES = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign"
AKS = (
    ("ecc256", "ecdsa", "sha256"),
    ("ecc256", "ecdsa", "sha384"),
    ("ecc384", "ecdsa", "sha384"),
    ("rsa2048", "rsassa", "sha256"),
    ("rsa2048", "rsassa", "sha384"),
    ("rsa2048", "rsapss", "sha256"),
)


def make_ak(tpm: SoftwareTpm, kind: str, context: str) -> TpmtPublic:
    key = ("-C", "e", "-G", f"{kind}:null", "-a", AK_ATTRIBUTES)
    tpm.run("tpm2_createprimary", "-Q", *key, "-c", context)
    tpm.run("tpm2_readpublic", "-Q", "-c", context, "-f", "tpmt", "-o", "ak")
    return TpmtPublic.parse(tpm.read("ak"))


def pcr_values(tpm: SoftwareTpm, selection: str) -> PcrValues:
    printed = yaml.safe_load(tpm.run("tpm2_pcrread", selection))
    sizes = {"sha256": 32, "sha384": 48}
    return PcrValues.of(
        {
            bank: {pcr: value.to_bytes(sizes[bank], "big") for pcr, value in values.items()}
            for bank, values in printed.items()
        }
    )


@pytest.mark.parametrize(("key", "scheme", "hash_name"), AKS)
def test_quotes_of_a_software_tpm(tpm: SoftwareTpm, key: str, scheme: str, hash_name: str) -> None:
    selection = "sha384:0,23+sha256:0,7,16"
    tpm.run("tpm2_pcrextend", f"16:sha256={'a5' * 32}", f"23:sha384={'5a' * 48}")
    ak = make_ak(tpm, f"{key}:{scheme}-{hash_name}", "ak.ctx")
    where = ("-q", "00" * 31 + "07", "-m", "quote", "-s", "signature")
    how = ("-l", selection, "-g", hash_name, "--scheme", scheme)
    tpm.run("tpm2_quote", "-Q", "-c", "ak.ctx", *how, *where)
    raw, raw_signature = tpm.read("quote"), tpm.read("signature")

    attest, signature = Attest.parse(raw), parse_signature(raw_signature)
    same_attest(raw, attest)
    same_signature(raw_signature, signature)
    assert isinstance(signature, EcdsaSignature if scheme == "ecdsa" else RsaSignature)
    assert tpm_key.verify_attest(ak, signature, raw)
    assert attest.extra_data == bytes(31) + b"\x07"
    assert attest.qualified_signer == ak.qualified_name(bytes.fromhex("4000000b"))
    assert isinstance(attest.attested, QuoteInfo)
    assert attest.attested.selection == PcrSelection.of({"sha384": [0, 23], "sha256": [0, 7, 16]})
    values = pcr_values(tpm, selection)
    assert values.get(alg.SHA256, 16) not in {None, bytes(32)}
    assert values.digest(signature.hash_alg) == attest.attested.pcr_digest

    tss.TPMT_SIGNATURE.unmarshal(raw_signature)[0].verify_signature(
        tss.TPMT_PUBLIC.unmarshal(ak.encode())[0], raw
    )
    for at in range(0, len(raw), 7):
        assert not tpm_key.verify_attest(ak, signature, patched(raw, (at, bytes([raw[at] ^ 1]))))


@pytest.mark.parametrize("kind", ["ecc256:ecdsa-sha256", "rsa2048:rsassa-sha256"])
def test_certifications_of_a_software_tpm(tpm: SoftwareTpm, kind: str) -> None:
    subject = make_ak(tpm, "ecc384:ecdsa-sha384", "subject.ctx")
    ak = make_ak(tpm, kind, "ak.ctx")
    keys = ("-c", "subject.ctx", "-C", "ak.ctx", "-g", "sha256")
    tpm.run("tpm2_certify", "-Q", *keys, "-o", "certification", "-s", "signature")
    raw, raw_signature = tpm.read("certification"), tpm.read("signature")
    attest = Attest.parse(raw)
    same_attest(raw, attest)
    assert isinstance(attest.attested, CertifyInfo)
    assert attest.attested.name == subject.name
    assert tpm_key.verify_attest(ak, parse_signature(raw_signature), raw)
