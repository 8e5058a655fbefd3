import hashlib
import subprocess
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.utils import CryptographyDeprecationWarning
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import CertificateError
from app.trust import certificates
from app.trust.certificates import (
    MAX_BUNDLE_CERTIFICATES,
    MAX_BUNDLE_SIZE,
    MAX_CERTIFICATE_SIZE,
    MAX_CRL_SIZE,
    certificate_digest,
    crl_digest,
    der,
    key_digest,
    load_certificate,
    load_certificates,
    load_crl,
    serial_number,
)
from app.trust.chain import ChainFault, verify_chain
from app.trust.roots import TrustRoots
from app.trust.serial_zero import SerialZeroCertificate
from app.trust.signature import verify_report_signature
from tests.trust import pki
from tests.trust.evidence import milan

LEAF, INTERMEDIATE, ROOT = milan().leaf, milan().intermediate, milan().root


def pem(*ders: bytes) -> bytes:
    return b"".join(x509.load_der_x509_certificate(raw).public_bytes(Encoding.PEM) for raw in ders)


@pytest.fixture(scope="module")
def leaf_pem() -> bytes:
    return load_certificate(LEAF, "leaf").public_bytes(Encoding.PEM)


@pytest.fixture(scope="module")
def list_of_ours() -> x509.CertificateRevocationList:
    return pki.crl(pki.named("ARK-Milan"))


def openssl(*arguments: str, raw: bytes) -> str:
    done = subprocess.run(["openssl", *arguments], input=raw, capture_output=True, check=True)
    return done.stdout.decode()


def test_a_real_leaf_loads_without_a_warning_although_its_serial_number_is_0() -> None:
    certificates._parsed.clear()
    assert serial_number(load_certificate(LEAF, "leaf")) == 0
    with pytest.warns(CryptographyDeprecationWarning, match="serial number"):
        x509.load_der_x509_certificate(LEAF)  # what the loader spares everybody else


def test_the_filter_of_warnings_survives_many_threads() -> None:
    def load(number: int) -> int:
        certificates._parsed.clear()
        return serial_number(load_certificate(LEAF if number % 2 else ROOT, "thread"))

    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(load, range(200))) == {0, 0x10000}
    assert list(warnings.filters) == before


def test_pem_and_der_are_the_same_certificate(leaf_pem: bytes) -> None:
    assert load_certificate(leaf_pem, "pem") == load_certificate(LEAF, "der")
    assert load_certificate(b"\r\n" + leaf_pem.replace(b"\n", b"\r\n"), "crlf") == load_certificate(
        LEAF, "der"
    )


def test_the_same_bytes_are_decoded_once() -> None:
    assert load_certificate(LEAF, "here") is load_certificate(bytes(bytearray(LEAF)), "there")


def test_digests_are_those_of_openssl() -> None:
    fingerprint = openssl("x509", "-inform", "der", "-noout", "-fingerprint", "-sha256", raw=ROOT)
    root = load_certificate(ROOT, "root")
    assert certificate_digest(root) == fingerprint.strip().partition("=")[2].replace(":", "").lower()
    key = openssl("x509", "-inform", "der", "-noout", "-pubkey", raw=ROOT)
    spki = subprocess.run(
        ["openssl", "pkey", "-pubin", "-outform", "der"], input=key.encode(), capture_output=True, check=True
    )
    assert key_digest(root) == hashlib.sha256(spki.stdout).hexdigest()
    assert der(root) == ROOT


def test_a_bundle_keeps_its_order() -> None:
    bundle = load_certificates(pem(INTERMEDIATE, ROOT), "bundle")
    assert [der(one) for one in bundle] == [INTERMEDIATE, ROOT]
    assert load_certificates(ROOT, "der") == (load_certificate(ROOT, "root"),)


KEY = pki.ec_key("a key").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
LATE = pki.Plan(
    subject=pki.named("late"),
    issuer=pki.named("late"),
    key=pki.ec_key("late"),
    signer=pki.ec_key("late"),
    end=datetime(2051, 1, 1, tzinfo=UTC),
)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not a certificate"),
        (LEAF[:-1], "ShortData"),
        (LEAF + b"\0", "ExtraData"),
        (b"hello", "not a certificate"),
        (pem(INTERMEDIATE, ROOT), "2 certificates, want one"),
        (b"-----BEGIN", "text beside"),
        (pem(ROOT)[:-10], "text beside"),
        (pem(ROOT) + b"\0", "text beside"),
        (pem(ROOT) + b"Bag Attributes", "text beside"),
        (KEY, "holds a PRIVATE KEY, want CERTIFICATE"),
        (pem(ROOT).replace(b"MII", b"MI", 1), "invalid base64"),
        (b"-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n", "not a certificate"),
        (b"0" * (MAX_CERTIFICATE_SIZE + 1), f"{MAX_CERTIFICATE_SIZE + 1} bytes, at most"),
        (LEAF.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", 1), "not a certificate"),
        (der(LATE.issue()).replace(b"20510101", b"00000101"), "not a certificate"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_one_certificate_is_one_clear_error(raw: bytes, reason: str) -> None:
    with pytest.raises(CertificateError, match=reason) as caught:
        load_certificate(raw, "the file")
    assert caught.value.source == "the file"


def test_a_bundle_is_bounded() -> None:
    with pytest.raises(CertificateError, match="65 certificates, at most 64"):
        load_certificates(pem(ROOT) * (MAX_BUNDLE_CERTIFICATES + 1), "bundle")
    with pytest.raises(CertificateError, match="at most"):
        load_certificates(b"-----BEGIN" + b" " * MAX_BUNDLE_SIZE, "bundle")
    with pytest.raises(CertificateError, match="bundle, certificate 2"):
        load_certificates(
            pem(ROOT) + b"-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----", "bundle"
        )


def test_many_beginnings_without_an_end_are_refused_at_once() -> None:
    with pytest.raises(CertificateError, match="text beside"):
        load_certificates(b"-----BEGIN CERTIFICATE-----\nAAAA" * 30_000, "bundle")


def test_a_crl_loads_from_der_and_pem(list_of_ours: x509.CertificateRevocationList) -> None:
    raw = der(list_of_ours)
    assert load_crl(raw, "der") == load_crl(list_of_ours.public_bytes(Encoding.PEM), "pem") == list_of_ours
    assert crl_digest(list_of_ours) == hashlib.sha256(raw).hexdigest()


def test_what_is_not_one_crl_is_one_clear_error(list_of_ours: x509.CertificateRevocationList) -> None:
    text = list_of_ours.public_bytes(Encoding.PEM)
    for raw, reason in (
        (b"", "not a CRL"),
        (ROOT, "not a CRL"),
        (pem(ROOT), "holds a CERTIFICATE, want X509 CRL"),
        (text + text, "2 CRLs, want one"),
        (b"\0" * (MAX_CRL_SIZE + 1), "at most"),
    ):
        with pytest.raises(CertificateError, match=reason):
            load_crl(raw, "list")


@pytest.mark.parametrize("load", [load_certificate, load_certificates, load_crl])
@settings(deadline=None)
@given(raw=st.binary(max_size=300) | st.binary(max_size=100).map(lambda tail: b"-----BEGIN " + tail))
def test_arbitrary_bytes_raise_only_certificate_error(
    load: Callable[[bytes, str], object], raw: bytes
) -> None:
    with pytest.raises(CertificateError):
        load(raw, "anything")


@settings(deadline=None)
@given(data=st.data())
def test_altered_certificates_load_or_raise_certificate_error(data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from([LEAF, INTERMEDIATE, ROOT])))
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=4)):
        raw[place] = data.draw(st.integers(0, 255))
    try:
        loaded = load_certificate(bytes(raw), "altered")
    except CertificateError:
        return
    assert der(loaded) == bytes(raw)  # nothing is normalised away


# The day on which cryptography refuses serial number 0 is played in advance.


@pytest.fixture
def refusing_cryptography(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    load = x509.load_der_x509_certificate

    def refuse(raw: bytes) -> x509.Certificate:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                return load(raw)
            except CryptographyDeprecationWarning as warning:
                raise ValueError(str(warning)) from None

    monkeypatch.setattr(x509, "load_der_x509_certificate", refuse)
    certificates._parsed.clear()
    yield
    certificates._parsed.clear()


@pytest.mark.usefixtures("refusing_cryptography")
def test_a_refusing_cryptography_changes_nothing_for_a_real_chain() -> None:
    real = milan()
    leaf, intermediate, root = real.certificates
    assert isinstance(leaf, SerialZeroCertificate)
    status = verify_chain(leaf, intermediate, root, TrustRoots.amd(), pki.AT)
    assert status.problems == ()
    assert status.vek.hwid == real.parsed_report.chip_id
    assert verify_report_signature(real.parsed_report, leaf)
    assert serial_number(leaf) == 0
    assert certificate_digest(leaf) == hashlib.sha256(LEAF).hexdigest()
    assert der(leaf) == LEAF
    assert load_certificate(leaf.public_bytes(Encoding.PEM), "pem") == leaf


@pytest.mark.usefixtures("refusing_cryptography")
def test_a_refusing_cryptography_does_not_let_a_forged_leaf_through() -> None:
    _, intermediate, root = milan().certificates
    name = LEAF.index(b"Milan-B0")
    for forged, fault in (
        (LEAF[:name] + b"Genoa-B0" + LEAF[name + 8 :], ChainFault.SIGNATURE),
        (LEAF[:-1] + bytes([LEAF[-1] ^ 1]), ChainFault.SIGNATURE),
        (LEAF.replace(b"SEV-Milan", b"SEV-Genoa"), ChainFault.ISSUER),
    ):
        leaf = load_certificate(forged, "forged")
        status = verify_chain(leaf, intermediate, root, TrustRoots.amd(), pki.AT)
        assert fault in {problem.fault for problem in status.problems}


@pytest.mark.usefixtures("refusing_cryptography")
def test_the_stand_in_is_not_what_is_verified() -> None:
    # The issuer did sign this certificate, but with serial number 1.
    signed = der(pki.vcek().issue())
    renumbered = signed.replace(b"\x02\x01\x02\x02\x01\x01", b"\x02\x01\x02\x02\x01\x00", 1)
    assert renumbered != signed
    leaf = load_certificate(renumbered, "renumbered")
    root = pki.ark().issue()
    status = verify_chain(leaf, pki.ask().issue(), root, TrustRoots.amd().with_root(root, "extra"), pki.AT)
    assert [problem.fault for problem in status.problems] == [ChainFault.SIGNATURE]


@pytest.mark.usefixtures("refusing_cryptography")
def test_refused_certificates_with_another_serial_number_stay_refused() -> None:
    for raw in (LEAF[:-1], b"\x30\x00"):
        with pytest.raises(CertificateError, match="not a certificate"):
            load_certificate(raw, "broken")
    with pytest.raises(ValueError, match="not 0"):
        SerialZeroCertificate(ROOT)


def test_two_stand_ins_are_equal_if_their_bytes_are() -> None:
    one, same = SerialZeroCertificate(LEAF), SerialZeroCertificate(LEAF)
    assert one == same
    assert hash(one) == hash(same)
    assert one != load_certificate(ROOT, "root")
    assert one != SerialZeroCertificate(LEAF[:-1] + bytes([LEAF[-1] ^ 1]))


def test_large_certificates_are_read_but_not_remembered() -> None:
    padding = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), bytes(8000))
    large = der(pki.vcek().having(padding).issue())
    before = certificates._parsed.info().size
    assert der(load_certificate(large, "large")) == large
    assert certificates._parsed.info().size == before
