import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import CertificateError
from app.trust.certificates import load_certificate
from app.trust.chain import (
    UNTIMELY,
    ChainFault,
    ChainStatus,
    authority_problems,
    chain_cache_info,
    clear_chain_cache,
    verify_chain,
)
from app.trust.issuance import issue_faults
from app.trust.names import VekKind
from app.trust.roots import TrustRoots
from app.wire.product import ProductLine
from tests.trust import pki
from tests.trust.evidence import cases, chain_of, milan
from tests.trust.pki import Plan

AMD = TrustRoots.amd()
FAULTS_OF_CATEGORY = {
    "tampered certificate": {("signature", "leaf")},
    "malformed certificate": {("algorithm", "leaf")},
    "swapped": {("issuer", "leaf")},
}
FAULTS_OF_SYNTHETIC = {
    "hwid-missing": {("profile", "leaf")},
    "both-hwid-and-cspid": {("profile", "leaf")},
    "vcek-cn-vlek": {("profile", "leaf")},
    "spl-missing": {("profile", "leaf")},
    "struct-version-wrong": {("profile", "leaf")},
    "vcek-expired": {("expired", "leaf")},
    "vcek-not-yet-valid": {("not-yet-valid", "leaf")},
    "ask-expired": {("expired", "intermediate")},
    "ask-not-ca": {("profile", "intermediate")},
    "ark-impostor-same-name": {("unknown-root", "root"), ("signature", "intermediate")},
    "ark-expired": {("unknown-root", "root"), ("expired", "root")},
    "vcek-issued-by-ark": {("profile", "leaf"), ("issuer", "leaf")},
    "vcek-pkcs1v15": {("algorithm", "leaf")},
    "vcek-pss-sha256": {("algorithm", "leaf")},
    "vcek-p256": {("algorithm", "leaf")},
    "vcek-rsa-key": {("algorithm", "leaf")},
}


def faults(status: ChainStatus) -> set[tuple[str, str]]:
    return {(problem.fault.value, problem.certificate) for problem in status.problems}


def judge(
    leaf: Plan | None = None,
    intermediate: Plan | None = None,
    root: Plan | None = None,
    *,
    at: datetime = pki.AT,
) -> ChainStatus:
    """The verdict on a chain of the tests' own, whose root is trusted if its profile allows."""
    certificates = [
        plan.issue() for plan in (leaf or pki.vcek(), intermediate or pki.ask(), root or pki.ark())
    ]
    roots = AMD
    try:
        roots = AMD.with_root(certificates[2], "extra")
    except CertificateError:
        assert root is not None
    return verify_chain(certificates[0], certificates[1], certificates[2], roots, at)


# Published chains


def test_a_real_chain_holds() -> None:
    status = verify_chain(*milan().certificates, AMD, pki.AT)
    assert status.problems == ()
    assert status.root is not None
    assert (status.root.name, status.root.origin) == ("ARK-Milan", "amd")
    assert (status.line, status.vek.kind, status.simulated) == (ProductLine.MILAN, VekKind.VCEK, False)


def test_every_published_chain_holds(index: dict[str, Any], vectors: Path) -> None:
    seen = set()
    for case in cases(index, "real"):
        real = chain_of(case, vectors)
        leaf, intermediate, root = real.certificates
        inside = leaf.not_valid_before_utc + timedelta(days=200)
        leaves = [leaf]
        if "vcek_alt" in case["files"]:
            leaves.append(load_certificate((vectors / case["files"]["vcek_alt"]).read_bytes(), "alt"))
        for one in leaves:
            status = verify_chain(one, intermediate, root, AMD, inside)
            assert (status.problems, status.line) == ((), case["product_line"]), case["id"]
            seen.add((status.vek.kind, status.line))
        for at, expected in case.get("verdict_at", {}).items():
            problems = faults(verify_chain(leaf, intermediate, root, AMD, datetime.fromisoformat(at)))
            assert problems == (set() if expected == "valid" else {("expired", "leaf")}), case["id"]
    assert len(seen) == 4


def test_a_published_turin_leaf_without_a_report(vectors: Path) -> None:
    files = ("certs/turin-vcek-virtee.der", "ca/turin-ask.der", "ca/turin-ark.der")
    leaf, intermediate, root = (load_certificate((vectors / name).read_bytes(), name) for name in files)
    inside = leaf.not_valid_before_utc + timedelta(days=1)
    assert verify_chain(leaf, intermediate, root, AMD, inside).problems == ()


@pytest.mark.parametrize("name", ["milan-vcek-invalid-legacy-hwid", "milan-vcek-invalid-octetstring-hwid"])
def test_published_leaves_with_an_edited_hwid(vectors: Path, name: str) -> None:
    files = (f"certs/{name}.der", "ca/milan-ask.der", "ca/milan-ark.der")
    leaf, intermediate, root = (load_certificate((vectors / file).read_bytes(), file) for file in files)
    status = verify_chain(leaf, intermediate, root, AMD, leaf.not_valid_before_utc)
    assert faults(status) == {("signature", "leaf")}
    assert status.vek.hwid is not None  # both encodings are read


def test_every_negative_chain_fails_for_its_own_reason(index: dict[str, Any], vectors: Path) -> None:
    met = set()
    for case in cases(index, "negatives"):
        try:
            leaf, intermediate, root = chain_of(case, vectors).certificates
        except CertificateError:
            assert case["id"].endswith(("leaf-truncated", "leaf-trailing-byte"))
            continue
        expected: set[tuple[str, str]] = set()
        same_issuer = leaf.issuer == intermediate.subject
        if case["category"] in FAULTS_OF_CATEGORY and not (case["category"] == "swapped" and same_issuer):
            expected = FAULTS_OF_CATEGORY[case["category"]]
        inside = leaf.not_valid_before_utc + timedelta(days=1)
        assert faults(verify_chain(leaf, intermediate, root, AMD, inside)) == expected, case["id"]
        met.add(case["category"] if expected else None)
    assert met == {*FAULTS_OF_CATEGORY, None}


def test_every_synthetic_chain_fails_for_its_own_reason(index: dict[str, Any], vectors: Path) -> None:
    anchor = load_certificate((vectors / "synthetic/genoa/ark.der").read_bytes(), "anchor")
    roots = AMD.with_root(anchor, "extra")
    met = set()
    for case in cases(index, "synthetic"):
        name = case["id"].removeprefix("synthetic-genoa-")
        chain = chain_of(case, vectors).certificates
        at = datetime(2025, 6, 1, tzinfo=UTC)
        expected = FAULTS_OF_SYNTHETIC.get(name, set())
        assert faults(verify_chain(*chain, roots, at)) == expected, name
        assert ("unknown-root", "root") in faults(verify_chain(*chain, AMD, at)), name
        met.add(name)
    assert met >= set(FAULTS_OF_SYNTHETIC)


def test_the_outer_algorithm_must_be_the_inner_one() -> None:
    leaf = pki.vcek().issue()
    other = pki.vcek().but(padding=padding.PKCS1v15()).issue()
    root = pki.ark().issue()
    forged = pki.with_inner_algorithm(leaf, other)
    status = verify_chain(forged, pki.ask().issue(), root, AMD.with_root(root, "extra"), pki.AT)
    assert [str(problem) for problem in status.problems] == [
        "leaf: the signature algorithm inside it is not the one outside"
    ]


# Our own chains, in which one thing is wrong


def test_the_tests_own_chains_hold() -> None:
    for line in ProductLine:
        status = judge(pki.vcek(line), pki.ask(line), pki.ark(line))
        assert (status.problems, status.line, status.simulated) == ((), line, False)
    status = judge(pki.vlek(), pki.ask(kind="SEV-VLEK"))
    assert (status.problems, status.vek.kind) == ((), VekKind.VLEK)


UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"?")
ELSEWHERE = (*pki.ORGANISATION[:-1], (NameOID.ORGANIZATION_NAME, "Somebody Else"))
SMALL_CA = pki.rsa_key("small ca", 2048)


@pytest.mark.parametrize(
    ("change", "expected", "why"),
    [
        (lambda p: p.without(x509.BasicConstraints), "profile", "it has no basic constraints"),
        (
            lambda p: p.without(x509.BasicConstraints).having(pki.constraints(ca=False)),
            "profile",
            "its basic constraints say",
        ),
        (
            lambda p: p.without(x509.BasicConstraints).having(pki.constraints()),
            "profile",
            "its path length is unlimited, want 0",
        ),
        (
            lambda p: p.without(x509.BasicConstraints).having(pki.constraints(path_length=1)),
            "profile",
            "its path length is 1, want 0",
        ),
        (lambda p: p.without(x509.KeyUsage), "profile", "it has no key usage"),
        (
            lambda p: p.without(x509.KeyUsage).having(pki.usage(certificates=False)),
            "profile",
            "its key usage does not let it sign certificates",
        ),
        (lambda p: p.having(UNKNOWN, critical=True), "profile", "its critical extension 1.2.3.4"),
        (
            lambda p: p.without(x509.KeyUsage).having(
                x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.15"), b"\xff")
            ),
            "profile",
            "its extensions cannot be read",
        ),
        (lambda p: p.but(start=pki.AT + timedelta(1)), "not-yet-valid", "it is valid from 2026-11-02"),
        (lambda p: p.but(end=pki.AT - timedelta(1)), "expired", "it was valid until 2026-10-31"),
        (lambda p: p.but(signer=pki.rsa_key("stranger")), "signature", "it was not signed by the key of"),
        (lambda p: p.but(padding=padding.PKCS1v15()), "algorithm", "it is not signed with RSASSA-PSS"),
        (lambda p: p.but(digest=hashes.SHA512()), "algorithm", "it is not signed with SHA-384"),
        (
            lambda p: p.but(padding=padding.PSS(padding.MGF1(hashes.SHA384()), 47)),
            "algorithm",
            "it is not signed with SHA-384",
        ),
        (
            lambda p: p.but(padding=padding.PSS(padding.MGF1(hashes.SHA256()), 48)),
            "algorithm",
            "it is not signed with SHA-384",
        ),
    ],
)
def test_each_departure_of_an_intermediate(change: Callable[[Plan], Plan], expected: str, why: str) -> None:
    (problem,) = judge(intermediate=change(pki.ask())).problems
    assert (problem.fault, problem.certificate) == (expected, "intermediate")
    assert problem.why.startswith(why)


def test_an_intermediate_may_have_extensions_that_are_not_critical() -> None:
    assert judge(intermediate=pki.ask().having(UNKNOWN)).problems == ()


def test_an_intermediate_of_another_kind_of_key_signs_nothing() -> None:
    for key in (SMALL_CA, pki.rsa_key("exponent 3", 4096, 3), pki.ec_key("ca")):
        status = judge(pki.vcek().but(signer=key), pki.ask().but(key=key))
        assert ("algorithm", "intermediate") in faults(status)
        assert {"signature", "algorithm"} & {fault for fault, where in faults(status) if where == "leaf"}


def test_the_names_of_an_intermediate() -> None:
    nobody = pki.ask().but(subject=pki.named("SEV-Naples"))
    assert faults(judge(intermediate=nobody)) == {("profile", "intermediate"), ("issuer", "leaf")}
    crossed = pki.ask().but(issuer=pki.named("ARK-Genoa"))
    status = judge(intermediate=crossed, root=pki.ark(ProductLine.GENOA))
    assert faults(status) == {("profile", "intermediate")}
    assert status.line is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda p: p.without(x509.BasicConstraints), {("profile", "root")}),
        (
            lambda p: p.without(x509.BasicConstraints).having(pki.constraints(path_length=0)),
            {("profile", "root")},
        ),
        (lambda p: p.without(x509.KeyUsage).having(pki.usage()), {("profile", "root")}),
        (lambda p: p.but(digest=hashes.SHA256()), {("algorithm", "root")}),
        (lambda p: p.but(signer=pki.rsa_key("stranger")), {("signature", "root")}),
        (
            lambda p: p.but(issuer=pki.named("ARK-Genoa")),
            {("issuer", "root")},
        ),
        (
            lambda p: p.but(subject=pki.named("AMD"), issuer=pki.named("AMD")),
            {("profile", "root"), ("issuer", "intermediate")},
        ),
        (
            lambda p: p.but(key=SMALL_CA, signer=SMALL_CA),
            {("algorithm", "root"), ("signature", "root"), ("signature", "intermediate")},
        ),
    ],
)
def test_each_departure_of_a_root(change: Callable[[Plan], Plan], expected: set[tuple[str, str]]) -> None:
    # A root with a fault in its profile cannot be trusted in the first place.
    assert faults(judge(root=change(pki.ark()))) == expected | {("unknown-root", "root")}


def test_a_root_of_version_1_and_one_whose_key_cannot_be_read() -> None:
    root = pki.ark().issue()
    old = pki.as_version_1(root)
    problems = verify_chain(pki.vcek().issue(), pki.ask().issue(), old, AMD, pki.AT).problems
    assert "root: it is an X.509 v1 certificate, want v3" in map(str, problems)
    raw = root.public_bytes(Encoding.DER)
    rsa_oid, other_oid = bytes.fromhex("2a864886f70d010101"), bytes.fromhex("2a864886f70d010163")
    strange = load_certificate(raw.replace(rsa_oid, other_oid), "strange")
    status = verify_chain(pki.vcek().issue(), pki.ask().issue(), strange, AMD, pki.AT)
    assert any(problem.why.startswith("its key cannot be read") for problem in status.problems)


def test_a_duplicate_extension_in_an_authority() -> None:
    raw = pki.ask().having(UNKNOWN).issue().public_bytes(Encoding.DER)
    usage, unknown = bytes.fromhex("0603551d0f"), bytes.fromhex("06032a0304")
    doubled = load_certificate(raw.replace(unknown, usage), "doubled")
    problems = verify_chain(pki.vcek().issue(), doubled, pki.ark().issue(), AMD, pki.AT).problems
    assert "intermediate: its extension 2.5.29.15 occurs twice" in map(str, problems)


def test_a_signature_algorithm_that_cannot_be_read() -> None:
    raw = pki.vcek().issue().public_bytes(Encoding.DER)
    sha384, unknown = bytes.fromhex("608648016503040202"), bytes.fromhex("60864801650304027f")
    strange = load_certificate(raw.replace(sha384, unknown), "strange")
    problems = verify_chain(strange, pki.ask().issue(), pki.ark().issue(), AMD, pki.AT).problems
    assert any(problem.why.startswith("its signature algorithm cannot be read") for problem in problems)


# Trust


def test_an_unknown_root_is_named_by_its_digest() -> None:
    root = pki.ark(key="other ark").issue()
    ask = pki.ask().but(signer=pki.rsa_key("other ark")).issue()
    status = verify_chain(pki.vcek().issue(), ask, root, AMD, pki.AT)
    (problem,) = status.problems
    assert problem.fault is ChainFault.UNKNOWN_ROOT
    assert hashlib.sha256(root.public_bytes(Encoding.DER)).hexdigest() in problem.why
    assert (status.root, status.line) == (None, ProductLine.MILAN)


def test_missing_certificates_are_problems() -> None:
    leaf, intermediate, root = milan().certificates
    no_ask = "leaf: no certificate of its issuer, SEV-Milan, was offered"
    no_ark = "intermediate: no certificate of its issuer, ARK-Milan, was offered"
    for ask, ark, expected in (
        (None, root, [no_ask]),
        (intermediate, None, [no_ark]),
        (None, None, [no_ask]),
    ):
        status = verify_chain(leaf, ask, ark, AMD, pki.AT)
        assert list(map(str, status.problems)) == expected
        assert status.line is None


def test_another_organisation_is_for_roots_that_were_trusted_explicitly() -> None:
    leaf, ask, root = (plan(organisation=ELSEWHERE).issue() for plan in (pki.vcek, pki.ask, pki.ark))
    assert verify_chain(leaf, ask, root, AMD.with_root(root, "extra"), pki.AT).problems == ()
    status = verify_chain(leaf, ask, root, AMD, pki.AT)
    named = [problem for problem in status.problems if problem.fault is ChainFault.PROFILE]
    assert {problem.certificate for problem in named} == {"root", "intermediate", "leaf"}
    assert {problem.why for problem in named} == {"the organisation in its subject is not AMD's"}


def test_two_organisations_are_not_amds() -> None:
    twice = (*pki.ORGANISATION, pki.ORGANISATION[-1])
    leaf, ask, root = (plan.issue() for plan in (pki.vcek(organisation=twice), pki.ask(), pki.ark()))
    assert ("profile", "leaf") in faults(verify_chain(leaf, ask, root, AMD, pki.AT))


def test_simulated_chains_say_so_whatever_trusts_them() -> None:
    leaf, ask, ark = (plan(organisation=pki.SIMULATED).issue() for plan in (pki.vcek, pki.ask, pki.ark))
    for roots, expected in (
        (AMD, {("unknown-root", "root")}),
        (AMD.with_root(ark, "simulator"), set()),
        (AMD.with_root(ark, "extra"), set()),
    ):
        status = verify_chain(leaf, ask, ark, roots, pki.AT)
        assert (status.simulated, faults(status)) == (True, expected)
    assert verify_chain(leaf, None, None, AMD, pki.AT).simulated
    plain = pki.ark().issue()
    trusted_as_simulator = AMD.with_root(plain, "simulator")
    assert verify_chain(pki.vcek().issue(), pki.ask().issue(), plain, trusted_as_simulator, pki.AT).simulated


def test_authorities_are_judged_without_a_leaf() -> None:
    _, intermediate, root = milan().certificates
    assert authority_problems(intermediate, root, AMD) == ()
    ours = pki.ark().issue()
    found = {problem.fault for problem in authority_problems(intermediate, ours, AMD)}
    assert found == {ChainFault.UNKNOWN_ROOT, ChainFault.SIGNATURE}


# Time and memory


def test_both_ends_of_a_validity_period_are_inside() -> None:
    leaf, intermediate, root = milan().certificates
    second = timedelta(seconds=1)
    start, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    for at, expected in (
        (start - second, {("not-yet-valid", "leaf")}),
        (start, set()),
        (end, set()),
        (end + second, {("expired", "leaf")}),
        (datetime(2050, 1, 1, tzinfo=UTC), {("expired", role) for role in ("leaf", "intermediate", "root")}),
    ):
        assert faults(verify_chain(leaf, intermediate, root, AMD, at)) == expected
    assert {"expired", "not-yet-valid"} == UNTIMELY


def test_a_sound_chain_is_judged_once_and_its_validity_always() -> None:
    clear_chain_cache()
    leaf, intermediate, root = milan().certificates
    first = verify_chain(leaf, intermediate, root, AMD, pki.AT)
    assert (chain_cache_info().hits, chain_cache_info().misses) == (0, 1)
    late = verify_chain(leaf, intermediate, root, TrustRoots.amd(), datetime(2050, 1, 1, tzinfo=UTC))
    again = verify_chain(leaf, intermediate, root, AMD, pki.AT)
    assert (chain_cache_info().hits, chain_cache_info().misses) == (2, 1)
    assert again is first
    assert late == replace(first, problems=late.problems)


def test_a_chain_is_judged_anew_under_other_roots() -> None:
    leaf, ask, root = pki.vcek().issue(), pki.ask().issue(), pki.ark().issue()
    trusting = AMD.with_root(root, "extra")
    assert verify_chain(leaf, ask, root, trusting, pki.AT).problems == ()
    assert faults(verify_chain(leaf, ask, root, AMD, pki.AT)) == {("unknown-root", "root")}


def test_broken_chains_are_not_remembered() -> None:
    clear_chain_cache()
    leaf, _, root = milan().certificates
    for _ in range(3):
        verify_chain(leaf, None, root, AMD, pki.AT)
    assert (chain_cache_info().size, chain_cache_info().misses) == (0, 3)


# Properties


def accepted(raw: bytes) -> bool:
    _, intermediate, root = milan().certificates
    try:
        leaf = load_certificate(raw, "altered")
    except CertificateError:
        return False
    # The link alone is asked first, which makes ten thousand alterations a matter of seconds.
    if any(issue_faults(leaf, intermediate)):
        return False
    return verify_chain(leaf, intermediate, root, AMD, pki.AT).problems == ()


def test_no_altered_bit_of_a_real_leaf_is_accepted() -> None:
    raw = milan().leaf
    assert accepted(raw)
    for place in range(len(raw)):
        for bit in range(8):
            altered = bytearray(raw)
            altered[place] ^= 1 << bit
            assert not accepted(bytes(altered)), f"byte {place}, bit {bit}"


def test_the_count_of_unused_bits_is_not_a_place_to_hide(index: dict[str, Any], vectors: Path) -> None:
    # No signature covers it, and where a signature ends in a zero bit it parses.
    hidden = 0
    for case in cases(index, "real"):
        leaf, intermediate, root = chain_of(case, vectors).certificates
        raw = bytearray(leaf.public_bytes(Encoding.DER))
        assert raw[-513] == 0
        raw[-513] = 1
        try:
            altered = load_certificate(bytes(raw), "altered")
        except CertificateError:
            continue
        hidden += 1
        inside = leaf.not_valid_before_utc
        assert faults(verify_chain(altered, intermediate, root, AMD, inside)) == {("algorithm", "leaf")}
    assert hidden > 0


@settings(deadline=None)
@given(data=st.data())
def test_no_altered_chain_raises_or_holds(data: st.DataObject) -> None:
    real = milan()
    raws = [bytearray(raw) for raw in (real.leaf, real.intermediate, real.root)]
    which = data.draw(st.integers(0, 2))
    for place in data.draw(st.lists(st.integers(0, len(raws[which]) - 1), min_size=1, max_size=4)):
        raws[which][place] = data.draw(st.integers(0, 255))
    if [*map(bytes, raws)] == [real.leaf, real.intermediate, real.root]:
        return
    try:
        leaf, intermediate, root = (load_certificate(bytes(raw), "altered") for raw in raws)
    except CertificateError:
        return
    assert verify_chain(leaf, intermediate, root, AMD, pki.AT).problems != ()
