from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from app.errors import CertificateError
from app.trust.certificates import certificate_digest, key_digest, load_certificate
from app.trust.roots import AMD_ROOTS, TrustedRoot, TrustRoots
from app.wire.product import ProductLine
from tests.trust import pki
from tests.trust.evidence import milan


def test_the_pins_are_those_of_the_published_roots(index: dict[str, Any], vectors: Path) -> None:
    assert [root.line for root in AMD_ROOTS] == list(ProductLine)
    for root in AMD_ROOTS:
        raw = (vectors / index["anchors"][root.line]["ark"]).read_bytes()
        certificate = load_certificate(raw, root.name)
        assert certificate_digest(certificate) == root.certificate_sha256
        assert key_digest(certificate) == root.key_sha256
        assert TrustRoots.amd().match(certificate) is root
        bundle = (vectors / index["anchors"][root.line]["vcek_cert_chain"]).read_bytes()
        assert TrustRoots.amd().match(load_certificate(bundle[bundle.rindex(b"-----BEGIN") :], "pem")) is root


def test_a_pinned_root_is_recognised_wherever_it_comes_from() -> None:
    _, intermediate, root = milan().certificates
    assert TrustRoots.amd().match(root) is AMD_ROOTS[0]
    assert TrustRoots.amd().match(intermediate) is None


def test_both_digests_must_match() -> None:
    _, _, root = milan().certificates
    other_key = TrustedRoot(
        line=ProductLine.MILAN,
        name="ARK-Milan",
        certificate_sha256=certificate_digest(root),
        key_sha256="00" * 32,
        origin="amd",
    )
    assert TrustRoots((other_key,)).match(root) is None


def test_a_pinned_certificate_whose_key_cannot_be_read_is_no_root() -> None:
    raw = pki.ark().issue().public_bytes(Encoding.DER)
    strange = load_certificate(
        raw.replace(bytes.fromhex("2a864886f70d010101"), bytes.fromhex("2a864886f70d010163")), "strange"
    )
    pinned = TrustedRoot(
        line=ProductLine.MILAN,
        name="ARK-Milan",
        certificate_sha256=certificate_digest(strange),
        key_sha256="00" * 32,
        origin="extra",
    )
    assert TrustRoots((pinned,)).match(strange) is None


def test_one_more_root(ark: x509.Certificate) -> None:
    roots = TrustRoots.amd().with_root(ark, "extra")
    added = roots.match(ark)
    assert added is not None
    assert (added.name, added.line, added.origin, added.simulated) == (
        "ARK-Milan",
        ProductLine.MILAN,
        "extra",
        False,
    )
    assert (added.certificate_sha256, added.key_sha256) == (certificate_digest(ark), key_digest(ark))
    assert roots.roots[:3] == AMD_ROOTS
    assert roots.certificates == (ark,)
    assert TrustRoots.amd().match(ark) is None  # the others are as they were


def test_adding_a_root_again_only_brings_its_certificate(ark: x509.Certificate) -> None:
    _, _, amd = milan().certificates
    roots = TrustRoots.amd().with_root(amd, "extra")
    assert roots.roots == AMD_ROOTS
    assert roots.certificates == (amd,)
    once = TrustRoots.amd().with_root(ark, "simulator")
    assert once.with_root(ark, "extra").match(ark) == once.match(ark)


def test_roots_are_equal_by_what_they_trust_not_by_the_data_they_carry() -> None:
    _, _, amd = milan().certificates
    assert TrustRoots.amd().with_root(amd, "extra") == TrustRoots.amd()
    assert hash(TrustRoots.amd().with_root(amd, "extra")) == hash(TrustRoots.amd())


@pytest.mark.parametrize("origin", ["extra", "simulator"])
def test_a_root_that_says_simulated_is_simulated(origin: Any) -> None:
    certificate = pki.ark(organisation=pki.SIMULATED).issue()
    root = TrustRoots.amd().with_root(certificate, origin).match(certificate)
    assert root is not None
    assert (root.origin, root.simulated) == (origin, True)


def test_a_simulators_root_is_simulated_even_if_it_does_not_say_so(ark: x509.Certificate) -> None:
    root = TrustRoots.amd().with_root(ark, "simulator").match(ark)
    assert root is not None
    assert root.simulated


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (pki.ask, "its subject CN is 'SEV-Milan', want ARK-<line>"),
        (pki.vcek, "its key is not an RSA key"),
        (lambda: pki.ark().but(signer=pki.rsa_key("stranger")), "it was not signed by the key of ARK-Milan"),
        (lambda: pki.ark().without(x509.KeyUsage), "it has no key usage"),
    ],
)
def test_what_is_not_shaped_like_an_ark_cannot_be_trusted(plan: Callable[[], pki.Plan], reason: str) -> None:
    with pytest.raises(CertificateError, match="trust root: ") as caught:
        TrustRoots.amd().with_root(plan().issue(), "extra")
    assert reason in caught.value.reason
