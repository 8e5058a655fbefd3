import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from app.errors import CollateralUnavailableError, WireError
from app.trust import leaf_search
from app.trust.certificates import der, load_certificate
from app.trust.chain import verify_chain
from app.trust.collateral import Collateral, Provenance
from app.trust.crl import RevocationState, check_revocation
from app.trust.endorsements import Endorsements, EndorsementSource, OfferedEndorsements
from app.trust.intake import import_endorsements
from app.trust.kds import AMD_KDS, KdsClient, KdsLimits
from app.trust.names import VekKind
from app.trust.roots import TrustRoots
from app.trust.signature import verify_report_signature
from app.trust.store import EndorsementStore
from app.trust.vek import read_vek
from app.wire.product import Cpuid, ProductLine
from app.wire.report import AttestationReport
from app.wire.tcb import TcbVersion
from tests.trust import pki
from tests.trust.evidence import cases, chain_of, milan, signed_report
from tests.trust.pki import AT, HWID, MILAN_TCB

AMD = TrustRoots.amd()
MILAN, GENOA, TURIN = ProductLine
MILAN_CPU = Cpuid(family=0x19, model=0x01, stepping=1)
TURIN_CPU = Cpuid(family=0x1A, model=0x02, stepping=1)
CHIP_URL = f"{AMD_KDS}/vcek/v1/Milan/{HWID.hex()}"
VCEK_URL = f"{CHIP_URL}?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219"
CHAIN_URL = f"{AMD_KDS}/vcek/v1/Milan/cert_chain"
CRL_URL = f"{AMD_KDS}/vcek/v1/Milan/crl"
NEWER = TcbVersion(bootloader=4, tee=0, snp=25, microcode=220)
OFFERED, STORE, KDS, ROOTS = Provenance.OFFERED, Provenance.STORE, Provenance.KDS, Provenance.ROOTS


@pytest.fixture
def kds() -> Iterator[respx.MockRouter]:
    with respx.mock(assert_all_called=False) as mock:
        yield mock


@pytest.fixture
def store(tmp_path: Path) -> EndorsementStore:
    return EndorsementStore(tmp_path / "store")


@pytest.fixture(scope="module")
def report() -> AttestationReport:
    """Version 3 of Milan, signed with the key of the fixture vcek."""
    return signed_report(version=3, cpuid=MILAN_CPU)


@pytest.fixture(scope="module")
def whole(vcek: x509.Certificate, ask: x509.Certificate, ark: x509.Certificate) -> OfferedEndorsements:
    return OfferedEndorsements((vcek,), (ask,), (ark,))


class Bench:
    """A source whose KDS, if it has one, is whatever respx answers."""

    def __init__(self, roots: TrustRoots, store: EndorsementStore | None = None) -> None:
        self.roots, self.store = roots, store

    def gather(
        self,
        report: AttestationReport,
        offered: OfferedEndorsements | None = None,
        *,
        online: bool = True,
        times: int = 1,
        want_crl: bool = False,
        **options: Any,
    ) -> Endorsements:
        async def inside() -> Endorsements:
            async with httpx.AsyncClient() as client:
                kds = KdsClient(client, limits=KdsLimits(pause_s=0.0)) if online else None
                source = EndorsementSource(self.roots, self.store, kds, clock=lambda: AT)
                given = offered or OfferedEndorsements()
                found = [
                    await source.gather(report, given, want_crl=want_crl, **options) for _ in range(times)
                ]
                return found[-1]

        return asyncio.run(inside())

    def refusal(self, *arguments: Any, **options: Any) -> CollateralUnavailableError:
        with pytest.raises(CollateralUnavailableError) as caught:
            self.gather(*arguments, **options)
        return caught.value


def chain_of_three(found: Endorsements) -> tuple[Any, Any, Any]:
    return found.leaf, found.intermediate, found.root


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


# What is offered whole is judged as it is


def test_every_published_chain_is_taken_as_it_was_offered(index: dict[str, Any], vectors: Path) -> None:
    for case in cases(index, "real"):
        real = chain_of(case, vectors)
        leaf, intermediate, root = real.certificates
        found = Bench(AMD).gather(
            real.parsed_report, OfferedEndorsements((leaf,), (intermediate,), (root,)), online=False
        )
        assert chain_of_three(found) == real.certificates
        assert found.signature_valid, case["id"]
        assert (found.leaf_from, found.intermediate_from, found.root_from) == (OFFERED,) * 3


def test_a_whole_folder_of_authorities_is_no_confusion(index: dict[str, Any], vectors: Path) -> None:
    authorities = OfferedEndorsements.from_paths([vectors / "ca"])
    assert len(authorities.intermediates) == 6
    leaves = [
        (vectors / (case["files"].get("vcek") or case["files"]["vlek"])).read_bytes()
        for case in cases(index, "real")
    ]
    every_leaf = OfferedEndorsements.sort(load_certificate(raw, "leaf") for raw in leaves)
    for case in cases(index, "real"):
        real = chain_of(case, vectors)
        found = Bench(AMD).gather(real.parsed_report, authorities + every_leaf, online=False)
        leaf = found.leaf
        assert leaf is not None
        at = leaf.not_valid_before_utc + timedelta(days=1)
        assert verify_chain(leaf, found.intermediate, found.root, AMD, at).problems == ()
        assert found.signature_valid


def test_a_chain_that_was_offered_whole_costs_one_signature_and_no_question(
    own_roots: TrustRoots,
    store: EndorsementStore,
    kds: respx.MockRouter,
    report: AttestationReport,
    whole: OfferedEndorsements,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = 0

    def counting(*arguments: Any) -> bool:
        nonlocal count
        count += 1
        return verify_report_signature(*arguments)

    monkeypatch.setattr(leaf_search, "verify_report_signature", counting)
    found = Bench(own_roots, store).gather(report, whole)
    assert (count, found.signature_valid, len(kds.calls)) == (1, True, 0)
    assert not store.path.exists()


def test_an_offered_chain_that_is_wrong_is_not_repaired(
    own_roots: TrustRoots, kds: respx.MockRouter, report: AttestationReport, whole: OfferedEndorsements
) -> None:
    genoa_ask, genoa_ark = pki.ask(GENOA).issue(), pki.ark(GENOA).issue()
    stranger = pki.ark(key="stranger").issue()
    for offered, expected in (
        (replace(whole, intermediates=(genoa_ask,)), (genoa_ask, whole.roots[0])),
        (replace(whole, intermediates=(genoa_ask,), roots=(genoa_ark,)), (genoa_ask, genoa_ark)),
        (replace(whole, roots=(stranger,)), (whole.intermediates[0], stranger)),
        (replace(whole, intermediates=(genoa_ask,), roots=()), (genoa_ask, None)),
    ):
        found = Bench(own_roots).gather(report, offered)
        assert (found.intermediate, found.root) == expected
        assert verify_chain(found.leaf, found.intermediate, found.root, own_roots, AT).problems  # type: ignore[arg-type]
    assert len(kds.calls) == 0


def test_of_several_offered_roots_the_trusted_one_of_the_right_name(
    own_roots: TrustRoots, report: AttestationReport, whole: OfferedEndorsements, ark: x509.Certificate
) -> None:
    stranger, genoa = pki.ark(key="stranger").issue(), pki.ark(GENOA).issue()
    amd = milan().certificates[2]
    for roots in ((stranger, ark), (genoa, amd, stranger, ark), (amd, genoa, ark)):
        found = Bench(own_roots).gather(report, replace(whole, roots=roots), online=False)
        assert found.root == ark
    found = Bench(AMD).gather(report, replace(whole, roots=(genoa, amd)), online=False)
    assert found.root == amd  # trusted, and to be refused for its name
    found = Bench(AMD).gather(report, replace(whole, roots=(genoa, stranger)), online=False)
    assert found.root == stranger


def test_of_several_offered_leaves_the_one_whose_key_signed(
    own_roots: TrustRoots, report: AttestationReport, whole: OfferedEndorsements, vcek: x509.Certificate
) -> None:
    other_key = pki.vcek().but(key=pki.ec_key("another")).issue()
    other_chip = pki.vcek(hwid=HWID[::-1]).but(key=pki.ec_key("another")).issue()
    vlek = pki.vlek().but(key=pki.ec_key("another")).issue()
    nobody = pki.leaf({}, issuer="SEV-Naples").but(key=pki.ec_key("another")).issue()
    others = (nobody, vlek, other_chip, other_key)
    found = Bench(own_roots).gather(report, replace(whole, leaves=(*others, vcek)), online=False)
    assert (found.leaf, found.signature_valid) == (vcek, True)
    for leaves, likeliest in (
        (others, other_key),
        (others[:3], other_chip),
        ((vlek, other_chip), other_chip),
        ((vlek, nobody), vlek),
    ):
        found = Bench(own_roots).gather(report, replace(whole, leaves=leaves), online=False)
        assert (found.leaf, found.signature_valid) == (likeliest, False)


# A report that names no key


@pytest.mark.parametrize("signing_key", [2, 3, 6, 7])
def test_a_report_that_names_no_key(own_roots: TrustRoots, kds: respx.MockRouter, signing_key: int) -> None:
    found = Bench(own_roots).gather(signed_report(signing_key=signing_key), want_crl=True)
    assert chain_of_three(found) == (None, None, None)
    assert (found.signature_valid, found.crl, found.leaf_from) == (False, None, None)
    assert found.crl_why == "the report names no signing key"
    assert len(kds.calls) == 0


def test_an_offered_leaf_is_judged_whatever_the_report_names(
    own_roots: TrustRoots, whole: OfferedEndorsements, vcek: x509.Certificate
) -> None:
    found = Bench(own_roots).gather(signed_report(signing_key=7), whole, online=False)
    assert (found.leaf, found.signature_valid) == (vcek, True)


# Nothing offered: store and KDS


def test_everything_from_kds_is_kept_and_not_asked_for_again(
    own_roots: TrustRoots,
    store: EndorsementStore,
    kds: respx.MockRouter,
    report: AttestationReport,
    whole: OfferedEndorsements,
) -> None:
    (vcek,), (ask,), (ark,) = whole.leaves, whole.intermediates, whole.roots
    kds.get(VCEK_URL).respond(content=der(vcek))
    kds.get(CHAIN_URL).respond(content=pem(ask, ark))
    kds.get(CRL_URL).respond(content=der(pki.crl(ark.subject)))
    bench = Bench(TrustRoots(own_roots.roots), store)
    found = bench.gather(report, want_crl=True)
    assert chain_of_three(found) == (vcek, ask, ark)
    assert found.signature_valid
    assert {found.leaf_from, found.intermediate_from, found.root_from, found.crl_from} == {KDS}
    assert verify_chain(vcek, found.intermediate, found.root, own_roots, AT).problems == ()
    assert len(kds.calls) == 3
    bench.gather(report, want_crl=True, times=3)
    assert len(kds.calls) == 3
    offline = bench.gather(report, want_crl=True, online=False)
    assert chain_of_three(offline) == (vcek, ask, ark)
    assert (offline.crl, offline.crl_why) == (found.crl, "")
    assert {offline.leaf_from, offline.intermediate_from, offline.root_from, offline.crl_from} == {STORE}


def test_without_a_store_the_memory_serves(
    own_roots: TrustRoots, kds: respx.MockRouter, report: AttestationReport, whole: OfferedEndorsements
) -> None:
    kds.get(VCEK_URL).respond(content=der(whole.leaves[0]))
    kds.get(CHAIN_URL).respond(content=pem(whole.intermediates[0], whole.roots[0]))
    found = Bench(TrustRoots(own_roots.roots)).gather(report, times=3)
    assert chain_of_three(found) == (whole.leaves[0], whole.intermediates[0], whole.roots[0])
    assert len(kds.calls) == 2


def test_a_trusted_roots_own_certificate_is_data(
    own_roots: TrustRoots, report: AttestationReport, whole: OfferedEndorsements
) -> None:
    found = Bench(own_roots).gather(report, replace(whole, roots=()), online=False)
    assert (found.root, found.root_from) == (whole.roots[0], ROOTS)


def test_a_turin_report(own_roots: TrustRoots, kds: respx.MockRouter) -> None:
    roots = own_roots.with_root(pki.ark(TURIN).issue(), "extra")
    report = signed_report(chip_id=HWID[:8], tcb=pki.TURIN_TCB, line=TURIN, version=3, cpuid=TURIN_CPU)
    url = f"{AMD_KDS}/vcek/v1/Turin/0001020304050607?fmcSPL=01&blSPL=02&teeSPL=03&snpSPL=04&ucodeSPL=71"
    kds.get(url).respond(content=der(pki.vcek(TURIN).issue()))
    offered = OfferedEndorsements((), (pki.ask(TURIN).issue(),), ())
    assert Bench(roots).gather(report, offered).signature_valid


@pytest.mark.parametrize("online", [True, False])
def test_what_cannot_be_had_is_unavailable_and_never_untrusted(
    own_roots: TrustRoots,
    kds: respx.MockRouter,
    report: AttestationReport,
    whole: OfferedEndorsements,
    online: bool,  # noqa: FBT001
) -> None:
    kds.get(url__startswith=AMD_KDS).mock(side_effect=httpx.ConnectError("down"))
    reason = "it cannot be reached" if online else "the store does not hold it, and no KDS is configured"
    bench = Bench(TrustRoots(own_roots.roots))
    for offered, what in (
        (OfferedEndorsements(), "the VCEK certificate (Milan)"),
        (replace(whole, intermediates=(), roots=()), "the VCEK certificate chain (Milan)"),
        (replace(whole, roots=()), "the VCEK certificate chain (Milan)"),
    ):
        error = bench.refusal(report, offered, online=online)
        assert error.what == what
        assert reason in error.reason
    error = bench.refusal(report, allow_network=False)
    assert "the network may not be used" in error.reason


def test_an_unknown_chip_is_unavailable(
    own_roots: TrustRoots, kds: respx.MockRouter, report: AttestationReport
) -> None:
    kds.get(url__startswith=AMD_KDS).respond(404)
    assert Bench(own_roots).refusal(report).upstream_status == 404


def test_a_masked_chip_id(own_roots: TrustRoots, kds: respx.MockRouter) -> None:
    error = Bench(own_roots).refusal(signed_report(chip_id=bytes(64)))
    assert error.chip_id_masked is True
    assert "offer the certificate" in error.reason
    assert len(kds.calls) == 0


def test_a_vlek_must_come_along(own_roots: TrustRoots, kds: respx.MockRouter) -> None:
    error = Bench(own_roots).refusal(signed_report(signing_key=1))
    assert error.what == "the VLEK certificate"
    assert "KDS does not hand VLEK certificates out; offer" in error.reason
    assert len(kds.calls) == 0


def test_an_offered_vlek_may_lack_its_asvk(own_roots: TrustRoots, kds: respx.MockRouter) -> None:
    asvk, ark = pki.ask(kind="SEV-VLEK").issue(), own_roots.certificates[0]
    kds.get(f"{AMD_KDS}/vlek/v1/Milan/cert_chain").respond(content=pem(asvk, ark))
    vlek = pki.vlek().issue()
    found = Bench(own_roots).gather(signed_report(signing_key=1), OfferedEndorsements((vlek,)))
    assert chain_of_three(found) == (vlek, asvk, ark)


def test_a_processor_that_nobody_certifies(own_roots: TrustRoots, kds: respx.MockRouter) -> None:
    venice = Cpuid(family=0x1A, model=0x50, stepping=0)
    error = Bench(own_roots).refusal(signed_report(version=3, cpuid=venice))
    assert "AMD publishes no certificates for a processor with CPUID 1a/50/00" in error.reason
    assert len(kds.calls) == 0


def test_a_tcb_that_the_line_cannot_have(own_roots: TrustRoots) -> None:
    odd = signed_report(tcb=pki.TURIN_TCB, line=TURIN, version=3, cpuid=MILAN_CPU)
    with pytest.raises(WireError, match="TCB_VERSION"):
        Bench(own_roots).gather(odd, online=False)


# Version 2 reports do not tell their line


def test_version_2_takes_its_line_from_what_was_offered(
    own_roots: TrustRoots, kds: respx.MockRouter, whole: OfferedEndorsements
) -> None:
    route = kds.get(VCEK_URL).respond(content=der(whole.leaves[0]))
    for offered in (replace(whole, leaves=(), roots=()), replace(whole, leaves=(), intermediates=())):
        kds.get(CHAIN_URL).respond(content=pem(whole.intermediates[0], whole.roots[0]))
        assert Bench(own_roots).gather(signed_report(), offered).leaf == whole.leaves[0]
    assert route.call_count == 2


def test_version_2_without_a_hint(
    own_roots: TrustRoots, store: EndorsementStore, kds: respx.MockRouter, whole: OfferedEndorsements
) -> None:
    bench = Bench(own_roots, store)
    error = bench.refusal(signed_report())
    assert "a version 2 report does not tell its product line" in error.reason
    two_lines = OfferedEndorsements(intermediates=(pki.ask().issue(), pki.ask(GENOA).issue()))
    assert bench.refusal(signed_report(), two_lines).reason == error.reason
    import_endorsements(store, whole, own_roots, AT)
    assert bench.gather(signed_report()).leaf == whole.leaves[0]
    assert len(kds.calls) == 0


# Certificates that a host handed out before an update


def stale(whole: OfferedEndorsements) -> tuple[AttestationReport, OfferedEndorsements, x509.Certificate]:
    """A report at a newer TCB, the old certificate, and the one it should be."""
    report = signed_report(version=3, cpuid=MILAN_CPU, tcb=NEWER, key="newer vek")
    newer = pki.vcek(tcb=NEWER).but(key=pki.ec_key("newer vek")).issue()
    return report, whole, newer


def test_a_stale_leaf_is_replaced_from_kds_and_then_from_the_store(
    own_roots: TrustRoots, store: EndorsementStore, kds: respx.MockRouter, whole: OfferedEndorsements
) -> None:
    report, offered, newer = stale(whole)
    route = kds.get(f"{CHIP_URL}?blSPL=04&teeSPL=00&snpSPL=25&ucodeSPL=220").respond(content=der(newer))
    for online in (True, False):
        found = Bench(own_roots, store).gather(report, offered, online=online)
        assert (found.leaf, found.signature_valid) == (newer, True)
        assert found.leaf_from is (KDS if online else STORE)
    assert route.call_count == 1


def test_a_stale_leaf_without_kds_is_judged_as_it_is(
    own_roots: TrustRoots, kds: respx.MockRouter, whole: OfferedEndorsements, vcek: x509.Certificate
) -> None:
    report, offered, _ = stale(whole)
    for options in ({"online": False}, {"allow_network": False}):
        found = Bench(own_roots).gather(report, offered, **options)
        assert (found.leaf, found.signature_valid, found.leaf_from) == (vcek, False, OFFERED)
    kds.get(url__startswith=AMD_KDS).respond(404)
    assert Bench(own_roots).gather(report, offered).leaf == vcek  # KDS is sure: there is no other


def test_a_stale_leaf_while_kds_is_down_is_unavailable(
    own_roots: TrustRoots, kds: respx.MockRouter, whole: OfferedEndorsements
) -> None:
    report, offered, _ = stale(whole)
    kds.get(url__startswith=AMD_KDS).respond(503)
    assert Bench(own_roots).refusal(report, offered).upstream_status == 503


def test_leaves_that_are_not_stale_are_not_replaced(
    own_roots: TrustRoots, kds: respx.MockRouter, whole: OfferedEndorsements
) -> None:
    forged = pki.vcek().but(key=pki.ec_key("another")).issue()
    other_chip = pki.vcek(hwid=HWID[::-1], tcb=NEWER).but(key=pki.ec_key("another")).issue()
    vlek = pki.vlek().but(key=pki.ec_key("another")).issue()
    nobody = pki.leaf({}, issuer="SEV-Naples").but(key=pki.ec_key("another")).issue()
    report = signed_report(version=3, cpuid=MILAN_CPU)
    for leaf in (forged, other_chip, vlek, nobody):
        found = Bench(own_roots).gather(report, replace(whole, leaves=(leaf,)))
        assert (found.leaf, found.signature_valid) == (leaf, False)
    assert len(kds.calls) == 0


def test_a_report_that_claims_more_than_its_firmware_has_is_judged_as_it_is(
    own_roots: TrustRoots, kds: respx.MockRouter, whole: OfferedEndorsements
) -> None:
    """Raising REPORTED_TCB must not turn a forged report into one that merely lacks a certificate."""
    report = signed_report(version=3, cpuid=MILAN_CPU, key="another")
    raised = replace(report, reported_tcb=NEWER.encode(MILAN.tcb_layout))
    unreadable = replace(raised, current_tcb=b"\0\0\1\0\0\0\0\0")
    for odd in (raised, unreadable):
        found = Bench(own_roots).gather(odd, whole)
        assert (found.leaf, found.signature_valid) == (whole.leaves[0], False)
    assert len(kds.calls) == 0


def test_a_report_whose_tcb_is_none_has_no_other_leaf(
    own_roots: TrustRoots, kds: respx.MockRouter, whole: OfferedEndorsements
) -> None:
    odd = signed_report(tcb=pki.TURIN_TCB, line=TURIN, key="another")
    found = Bench(own_roots).gather(odd, whole)
    assert (found.leaf, found.signature_valid) == (whole.leaves[0], False)
    assert len(kds.calls) == 0


# Missing links


def test_an_issuer_that_amd_does_not_have_is_not_looked_for(
    own_roots: TrustRoots, kds: respx.MockRouter, report: AttestationReport
) -> None:
    nobody = pki.vcek().but(issuer=pki.named("SEV-Naples")).issue()
    found = Bench(own_roots).gather(report, OfferedEndorsements((nobody,)), want_crl=True)
    assert (found.intermediate, found.root, found.intermediate_from) == (None, None, None)
    assert found.crl_why == "there is no chain to a trusted root that it could be about"
    assert len(kds.calls) == 0


def test_a_simulated_leaf_is_not_unavailable_but_unfounded(
    kds: respx.MockRouter, report: AttestationReport
) -> None:
    _, ask, ark = milan().certificates
    chain = kds.get(CHAIN_URL).respond(content=pem(ask, ark))
    leaf = pki.vcek(organisation=pki.SIMULATED).issue()
    found = Bench(AMD).gather(report, OfferedEndorsements((leaf,)), times=3)
    assert (found.intermediate, found.root) == (None, None)
    assert chain.call_count == 1  # AMD's answer will not change at once


def test_an_ask_that_was_renewed_under_its_name(
    own_roots: TrustRoots, store: EndorsementStore, kds: respx.MockRouter, report: AttestationReport
) -> None:
    ark = own_roots.certificates[0]
    withdrawn = pki.ask().but(key=pki.rsa_key("stranger"), serial=0x10002).issue()
    import_endorsements(store, OfferedEndorsements((), (withdrawn,), (ark,)), own_roots, AT)
    leaf = OfferedEndorsements((pki.vcek().issue(),))
    bench = Bench(own_roots, store)
    assert bench.gather(report, leaf, online=False).intermediate == withdrawn
    kds.get(CHAIN_URL).respond(503)
    assert bench.refusal(report, leaf).upstream_status == 503
    renewed = pki.ask().issue()
    kds.get(CHAIN_URL).respond(content=pem(renewed, ark))
    assert bench.gather(report, leaf).intermediate == renewed
    assert bench.gather(report, leaf, online=False).intermediate == renewed


def test_authorities_in_the_store_that_do_not_verify_are_not_used(
    own_roots: TrustRoots, store: EndorsementStore, report: AttestationReport, whole: OfferedEndorsements
) -> None:
    store.keep_authority(pki.ask().but(signer=pki.rsa_key("stranger")).issue())
    store.keep_authority(pki.ark(key="stranger").issue())
    error = Bench(TrustRoots(own_roots.roots), store).refusal(
        report, replace(whole, intermediates=(), roots=()), online=False
    )
    assert error.what == "the VCEK certificate chain (Milan)"


def test_a_stored_leaf_whose_signature_is_damaged_is_as_good_as_absent(
    own_roots: TrustRoots,
    store: EndorsementStore,
    kds: respx.MockRouter,
    report: AttestationReport,
    whole: OfferedEndorsements,
) -> None:
    import_endorsements(store, whole, own_roots, AT)
    (path,) = store.path.glob("vcek/*/*.der")
    sound = path.read_bytes()
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    bench = Bench(own_roots, store)
    assert "the store does not hold it" in bench.refusal(report, online=False).reason
    kds.get(VCEK_URL).respond(content=sound)
    assert bench.gather(report).leaf_from is KDS
    assert path.read_bytes() == sound
    assert bench.gather(report, online=False).leaf_from is STORE


def test_a_stored_leaf_whose_issuer_is_offered_is_judged_with_it(
    own_roots: TrustRoots, store: EndorsementStore, report: AttestationReport, whole: OfferedEndorsements
) -> None:
    store.keep_vcek(read_vek(whole.leaves[0]))
    found = Bench(own_roots, store).gather(report, replace(whole, leaves=()), online=False)
    assert (found.leaf, found.leaf_from, found.signature_valid) == (whole.leaves[0], STORE, True)


# A KDS that answers with what does not verify is a KDS without an answer


def test_a_chain_from_kds_that_is_not_trusted(
    store: EndorsementStore, kds: respx.MockRouter, report: AttestationReport, whole: OfferedEndorsements
) -> None:
    kds.get(CHAIN_URL).respond(content=pem(whole.intermediates[0], whole.roots[0]))
    error = Bench(AMD, store).refusal(report, replace(whole, intermediates=(), roots=()))
    assert "KDS answered with a chain that does not hold: root: ARK-Milan with SHA-256" in error.reason
    assert not store.path.exists()


def test_a_leaf_from_kds_that_does_not_hold(
    own_roots: TrustRoots,
    store: EndorsementStore,
    kds: respx.MockRouter,
    report: AttestationReport,
    whole: OfferedEndorsements,
) -> None:
    forged = pki.vcek().but(signer=pki.rsa_key("stranger")).issue()
    kds.get(VCEK_URL).respond(content=der(forged))
    kds.get(CHAIN_URL).respond(content=pem(whole.intermediates[0], whole.roots[0]))
    bench = Bench(own_roots, store)
    error = bench.refusal(report)
    assert "KDS answered with one that does not hold: leaf: it was not signed" in error.reason
    assert list((store.path).glob("vcek/*")) == []
    # With an offered chain, nobody can say whose fault it is: it is judged.
    found = bench.gather(report, replace(whole, leaves=()))
    assert (found.leaf, found.signature_valid) == (forged, True)
    assert list((store.path).glob("vcek/*")) == []


def test_a_store_that_cannot_be_written_does_not_stop_anything(
    own_roots: TrustRoots,
    tmp_path: Path,
    kds: respx.MockRouter,
    report: AttestationReport,
    whole: OfferedEndorsements,
) -> None:
    (tmp_path / "file").touch()
    kds.get(VCEK_URL).respond(content=der(whole.leaves[0]))
    kds.get(CHAIN_URL).respond(content=pem(whole.intermediates[0], whole.roots[0]))
    kds.get(CRL_URL).respond(content=der(pki.crl(whole.roots[0].subject)))
    bench = Bench(TrustRoots(own_roots.roots), EndorsementStore(tmp_path / "file"))
    assert bench.gather(report, want_crl=True).signature_valid


# CRLs


def state(found: Endorsements) -> RevocationState:
    return check_revocation(found.crl, found.intermediate, found.root, AT, absent_why=found.crl_why).state


def test_no_crl_is_looked_for_unless_asked(
    own_roots: TrustRoots, kds: respx.MockRouter, report: AttestationReport, whole: OfferedEndorsements
) -> None:
    found = Bench(own_roots).gather(report, whole)
    assert (found.crl, found.crl_why, found.crl_from) == (None, "it was not asked for", None)
    assert len(kds.calls) == 0


def test_an_offered_crl_comes_first(
    own_roots: TrustRoots, kds: respx.MockRouter, report: AttestationReport, whole: OfferedEndorsements
) -> None:
    name = whole.roots[0].subject
    clear, revoking, bad = pki.crl(name), pki.crl(name, 0x10001), pki.crl(name, key="stranger")
    old = pki.crl(name, start=AT - timedelta(days=9), end=AT - timedelta(days=8))
    foreign = pki.crl(pki.named("ARK-Genoa"), key="stranger")
    for crls, decisive in (
        ((clear,), clear),
        ((foreign, clear), clear),
        ((foreign,), foreign),
        ((clear, bad), bad),
        ((clear, bad, revoking), revoking),
        ((old, clear), clear),
    ):
        for want_crl in (True, False):
            found = Bench(own_roots).gather(report, replace(whole, crls=crls), want_crl=want_crl)
            assert (found.crl, found.crl_from, found.crl_why) == (decisive, OFFERED, "")
    assert len(kds.calls) == 0


def test_an_offered_crl_that_is_out_of_date_gives_way_to_a_current_one(
    own_roots: TrustRoots, kds: respx.MockRouter, report: AttestationReport, whole: OfferedEndorsements
) -> None:
    name = whole.roots[0].subject
    old = pki.crl(name, start=AT - timedelta(days=9), end=AT - timedelta(days=8))
    offered = replace(whole, crls=(old,))
    current = pki.crl(name)
    route = kds.get(CRL_URL).respond(content=der(current))
    assert Bench(own_roots).gather(report, offered).crl == old
    assert Bench(own_roots).gather(report, offered, want_crl=True).crl == current
    route.respond(503)
    found = Bench(own_roots).gather(report, offered, want_crl=True)
    assert (found.crl, state(found)) == (old, RevocationState.STALE)


def test_a_revocation_that_is_known_beats_an_older_list_that_was_offered(
    own_roots: TrustRoots, store: EndorsementStore, report: AttestationReport, whole: OfferedEndorsements
) -> None:
    ark = whole.roots[0]
    offered = replace(whole, crls=(pki.crl(ark.subject),))
    store.keep_crl(pki.crl(ark.subject, 0x10001), VekKind.VCEK, ark)
    found = Bench(own_roots, store).gather(report, offered, online=False)
    assert (state(found), found.crl_from) == (RevocationState.REVOKED, STORE)


def test_a_stored_crl_serves_until_its_end(
    own_roots: TrustRoots,
    store: EndorsementStore,
    kds: respx.MockRouter,
    report: AttestationReport,
    whole: OfferedEndorsements,
) -> None:
    ark = whole.roots[0]
    stored = pki.crl(ark.subject, end=AT + timedelta(days=2))
    store.keep_crl(stored, VekKind.VCEK, ark)
    newer = pki.crl(ark.subject, start=AT, end=AT + timedelta(days=99))
    route = kds.get(CRL_URL).respond(content=der(newer))
    bench = Bench(own_roots, store)
    found = bench.gather(report, whole, want_crl=True)
    assert (found.crl, found.crl_from) == (stored, STORE)
    late = AT + timedelta(days=3)
    assert bench.gather(report, whole, want_crl=True, at=late).crl == newer
    assert bench.gather(report, whole, want_crl=True, at=late, online=False).crl == newer
    assert route.call_count == 1


def test_a_stored_crl_that_is_out_of_date_is_never_used_silently(
    own_roots: TrustRoots, store: EndorsementStore, report: AttestationReport, whole: OfferedEndorsements
) -> None:
    ark = whole.roots[0]
    store.keep_crl(pki.crl(ark.subject), VekKind.VCEK, ark)
    late = AT + timedelta(days=400)
    found = Bench(own_roots, store).gather(report, whole, want_crl=True, online=False, at=late)
    assert (found.crl, found.crl_from) == (None, None)
    assert "no KDS is configured" in found.crl_why


def test_a_stored_crl_that_does_not_hold_is_fetched_anew(
    own_roots: TrustRoots,
    store: EndorsementStore,
    kds: respx.MockRouter,
    report: AttestationReport,
    whole: OfferedEndorsements,
) -> None:
    ark = whole.roots[0]
    store.keep_crl(pki.crl(ark.subject, key="stranger"), VekKind.VCEK, ark)
    good = pki.crl(ark.subject)
    kds.get(CRL_URL).respond(content=der(good))
    assert Bench(own_roots, store).gather(report, whole, want_crl=True).crl == good
    assert store.crl(VekKind.VCEK, ark) == good


def test_no_crl_is_never_an_error_here(
    own_roots: TrustRoots,
    store: EndorsementStore,
    kds: respx.MockRouter,
    report: AttestationReport,
    whole: OfferedEndorsements,
) -> None:
    forged = der(pki.crl(whole.roots[0].subject, key="stranger"))
    for answer, why in (
        (httpx.Response(503), "it answered 503"),
        (httpx.Response(404), "KDS has none"),
        (httpx.Response(200, content=b"?"), "KDS answered with not a CRL"),
        (httpx.Response(200, content=forged), "a CRL that does not hold: it was not signed by the key of"),
    ):
        kds.get(CRL_URL).mock(return_value=answer)
        found = Bench(own_roots, store).gather(report, whole, want_crl=True)
        assert found.crl is None
        assert why in found.crl_why
    found = Bench(own_roots).gather(report, whole, want_crl=True, online=False)
    assert "no KDS is configured" in found.crl_why
    assert not store.path.exists()


def test_no_crl_is_fetched_for_a_root_that_is_not_trusted(
    kds: respx.MockRouter, report: AttestationReport, whole: OfferedEndorsements
) -> None:
    found = Bench(AMD).gather(report, whole, want_crl=True)
    assert found.crl_why == "there is no chain to a trusted root that it could be about"
    assert len(kds.calls) == 0


def test_a_crl_from_kds_that_does_not_help_is_not_fetched_again_at_once(
    own_roots: TrustRoots, kds: respx.MockRouter, report: AttestationReport, whole: OfferedEndorsements
) -> None:
    ark = whole.roots[0]
    route = kds.get(CRL_URL).respond(content=der(pki.crl(ark.subject)))
    late = AT + timedelta(days=400)
    found = Bench(own_roots).gather(report, whole, want_crl=True, at=late, times=5)
    assert found.crl is not None
    assert check_revocation(found.crl, found.intermediate, ark, late).state is RevocationState.STALE
    assert route.call_count == 1


# Small print


def test_what_the_memory_cannot_file_is_not_kept(own_roots: TrustRoots, store: EndorsementStore) -> None:
    collateral = Collateral(own_roots, store, None)
    asyncio.run(collateral.keep_vcek(pki.vlek().issue()))
    assert not store.path.exists()


def test_a_leaf_key_of_another_curve_signs_nothing(own_roots: TrustRoots, whole: OfferedEndorsements) -> None:
    p256 = pki.vcek().but(key=pki.ec_key("p256", ec.SECP256R1)).issue()
    found = Bench(own_roots).gather(signed_report(), replace(whole, leaves=(p256,)), online=False)
    assert (found.leaf, found.signature_valid) == (p256, False)
    assert read_vek(p256).problems
    assert read_vek(p256).tcb == MILAN_TCB
