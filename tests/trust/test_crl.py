import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import CertificateError
from app.trust import crl as module
from app.trust.certificates import load_certificate, load_crl
from app.trust.crl import RevocationState, check_revocation, crl_fault
from app.wire.product import ProductLine
from tests.trust import pki

MILAN = pki.named("ARK-Milan")


def synthetic(vectors: Path, name: str) -> x509.CertificateRevocationList:
    return load_crl((vectors / f"synthetic/genoa/crl/{name}.der").read_bytes(), name)


@pytest.mark.parametrize(
    ("name", "state", "why"),
    [
        ("crl-empty", "clear", "it does not list SEV-Genoa (serial number 0x20002)"),
        ("crl-revokes-other-ask", "clear", "it does not list SEV-Genoa (serial number 0x20002)"),
        ("crl-revokes-ask", "revoked", "it lists serial number 0x20002, which is SEV-Genoa"),
        ("crl-wrong-signer", "invalid", "it was not signed by the key of ARK-Genoa"),
        ("crl-signed-by-ask", "invalid", "its issuer is SEV-Genoa, not ARK-Genoa"),
        ("crl-stale", "stale", "it was valid until 2021-01-01T00:00:00Z"),
        ("crl-future", "not-yet-valid", "it is valid from 2040-01-01T00:00:00Z"),
    ],
)
def test_each_synthetic_list(vectors: Path, name: str, state: str, why: str) -> None:
    files = ("synthetic/genoa/ask.der", "synthetic/genoa/ark.der")
    ask, ark = (load_certificate((vectors / file).read_bytes(), file) for file in files)
    status = check_revocation(synthetic(vectors, name), ask, ark, datetime(2026, 6, 1, tzinfo=UTC))
    assert (status.state, status.why) == (state, why)


def test_a_real_list(vectors: Path) -> None:
    raw = (vectors / "crl/milan-vcek-crl-2023.der").read_bytes()
    files = ("ca/milan-ask.der", "ca/milan-ark.der")
    ask, ark = (load_certificate((vectors / file).read_bytes(), file) for file in files)
    status = check_revocation(load_crl(raw, "2023"), ask, ark, datetime(2023, 6, 1, tzinfo=UTC))
    assert (status.state, status.number) == (RevocationState.CLEAR, 4)
    assert status.this_update == datetime(2023, 5, 9, 15, 45, 7, tzinfo=UTC)
    assert status.next_update == datetime(2024, 5, 9, 23, tzinfo=UTC)
    assert status.sha256 == hashlib.sha256(raw).hexdigest()
    later = check_revocation(load_crl(raw, "2023"), ask, ark, datetime(2026, 6, 1, tzinfo=UTC))
    assert later.state is RevocationState.STALE


def test_the_first_moment_is_inside_and_the_last_is_not(ask: x509.Certificate, ark: x509.Certificate) -> None:
    start, end = pki.AT - timedelta(days=1), pki.AT + timedelta(days=1)
    ours = pki.crl(ark.subject, start=start, end=end)
    second = timedelta(seconds=1)
    for at, state in (
        (start - second, RevocationState.NOT_YET_VALID),
        (start, RevocationState.CLEAR),
        (end - second, RevocationState.CLEAR),
        (end, RevocationState.STALE),
    ):
        assert check_revocation(ours, ask, ark, at).state is state


def test_no_list(ask: x509.Certificate, ark: x509.Certificate) -> None:
    assert check_revocation(None, ask, ark, pki.AT).why == "no CRL is at hand"
    status = check_revocation(None, ask, ark, pki.AT, absent_why="the network is down")
    assert (status.state, status.why, status.sha256) == (RevocationState.ABSENT, "the network is down", None)


def test_no_chain_that_it_could_be_about(ask: x509.Certificate, ark: x509.Certificate) -> None:
    for intermediate, root in ((None, ark), (ask, None), (None, None)):
        status = check_revocation(pki.crl(MILAN), intermediate, root, pki.AT)
        assert status.state is RevocationState.INVALID


def test_a_revocation_outlives_its_list(ask: x509.Certificate, ark: x509.Certificate) -> None:
    listed = pki.crl(MILAN, 1, 0x10001)
    for at in (pki.AT - timedelta(days=99), pki.AT, pki.AT + timedelta(days=99)):
        assert check_revocation(listed, ask, ark, at).state is RevocationState.REVOKED
    other = check_revocation(listed, pki.ask(kind="SEV-VLEK").but(serial=9).issue(), ark, pki.AT)
    assert other.state is RevocationState.CLEAR


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: pki.crl(pki.named("ARK-Genoa")), "its issuer is ARK-Genoa, not ARK-Milan"),
        (lambda: pki.crl(pki.named("ARK-Milan", pki.SIMULATED)), "its issuer is ARK-Milan, not ARK-Milan"),
        (lambda: pki.crl(MILAN, key="stranger"), "it was not signed by the key of ARK-Milan"),
        (lambda: pki.crl(MILAN, digest=hashes.SHA256()), "it is not signed with SHA-384"),
        (
            lambda: pki.crl(MILAN, extensions=((x509.DeltaCRLIndicator(1), True),)),
            "its critical extension 2.5.29.27 is unknown to this profile",
        ),
    ],
)
def test_a_list_that_is_not_the_roots(
    ask: x509.Certificate, ark: x509.Certificate, make: Callable[[], x509.CertificateRevocationList], why: str
) -> None:
    crl = make()
    status = check_revocation(crl, ask, ark, pki.AT)
    assert status.state is RevocationState.INVALID
    assert status.why.startswith(why)
    assert crl_fault(crl, ark) == status.why


def test_a_root_that_cannot_sign_lists(ask: x509.Certificate) -> None:
    key = pki.ec_key("ca")
    root = pki.ark().but(key=key, signer=key).issue()
    status = check_revocation(pki.crl(MILAN), ask, root, pki.AT)
    assert status.why == "the root cannot have signed it: its key is not an RSA key"


def test_a_list_without_a_number_and_without_an_end(ask: x509.Certificate, ark: x509.Certificate) -> None:
    unnumbered = pki.crl(MILAN, extensions=())
    assert check_revocation(unnumbered, ask, ark, pki.AT).number is None
    status = check_revocation(pki.endless_crl(), ask, ark, pki.AT)
    assert (status.state, status.why) == (RevocationState.INVALID, "it does not say until when it is valid")


def test_a_signature_is_judged_once(ask: x509.Certificate, ark: x509.Certificate) -> None:
    module._judged.clear()
    ours = pki.crl(MILAN, 5)
    for _ in range(3):
        check_revocation(ours, ask, ark, pki.AT)
    assert (module._judged.info().hits, module._judged.info().misses) == (2, 1)
    genoa = pki.ark(ProductLine.GENOA).issue()
    assert check_revocation(ours, ask, genoa, pki.AT).state is RevocationState.INVALID


@settings(deadline=None)
@given(data=st.data())
def test_no_altered_list_is_clear(data: st.DataObject) -> None:
    genuine = pki.crl(pki.named("ARK-Milan"), 1, 2, 3, start=pki.AT, end=pki.AT + timedelta(days=1))
    raw = bytearray(genuine.public_bytes(Encoding.DER))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        altered = load_crl(bytes(raw), "altered")
    except CertificateError:
        return
    status = check_revocation(altered, pki.ask().issue(), pki.ark().issue(), pki.AT)
    assert status.state is RevocationState.INVALID
