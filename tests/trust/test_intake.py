from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from app.errors import CertificateError, ConfigError
from app.trust.intake import import_endorsements
from app.trust.names import VekKind
from app.trust.offered import OfferedEndorsements
from app.trust.roots import TrustRoots
from app.trust.store import EndorsementStore
from app.wire.product import ProductLine
from tests.trust import pki
from tests.trust.evidence import milan

AMD = TrustRoots.amd()
LEAF, ASK, ARK = milan().certificates


@pytest.fixture
def store(tmp_path: Path) -> EndorsementStore:
    return EndorsementStore(tmp_path / "store")


def test_a_real_chain_enters_whole(store: EndorsementStore) -> None:
    entries = import_endorsements(store, OfferedEndorsements((LEAF,), (ASK,), (ARK,)), AMD, pki.AT)
    assert [entry.what for entry in entries] == [
        "ARK-Milan",
        "SEV-Milan",
        "VCEK Milan, bootloader=2 tee=0 snp=5 microcode=68",
    ]
    assert {entry.problem for entry in entries} == {None}
    assert set(store.authorities()) == {ASK, ARK}


def test_what_is_in_the_store_already_helps(store: EndorsementStore) -> None:
    import_endorsements(store, OfferedEndorsements(roots=(ARK,)), AMD, pki.AT)
    import_endorsements(store, OfferedEndorsements(intermediates=(ASK,)), AMD, pki.AT)
    (entry,) = import_endorsements(store, OfferedEndorsements((LEAF,)), AMD, pki.AT)
    assert entry.path.startswith(f"vcek/{milan().parsed_report.chip_id.hex()}/")


def test_an_expired_certificate_may_be_kept(store: EndorsementStore) -> None:
    whole = OfferedEndorsements((LEAF,), (ASK,), (ARK,))
    assert len(import_endorsements(store, whole, AMD, datetime(2060, 1, 1, tzinfo=UTC))) == 3


def test_a_list_serves_both_kinds_of_leaf(
    store: EndorsementStore, own_roots: TrustRoots, ark: x509.Certificate
) -> None:
    ours = pki.crl(ark.subject)
    entries = import_endorsements(store, OfferedEndorsements(crls=(ours,)), own_roots, pki.AT)
    assert [entry.what for entry in entries] == ["CRL of ARK-Milan"] * 2
    assert store.crl(VekKind.VCEK, ark) == store.crl(VekKind.VLEK, ark) == ours


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: OfferedEndorsements(roots=(pki.ark().issue(),)), "it is not a root that is trusted here"),
        (
            lambda: OfferedEndorsements(intermediates=(ASK,)),
            "no trusted certificate of its issuer, ARK-Milan",
        ),
        (
            lambda: OfferedEndorsements(intermediates=(pki.ask().issue(),), roots=(ARK,)),
            "intermediate: it was not signed by the key of ARK-Milan",
        ),
        (lambda: OfferedEndorsements((LEAF,)), "leaf: no certificate of its issuer, SEV-Milan, was offered"),
        (lambda: OfferedEndorsements((LEAF,), (ASK,)), "no trusted certificate of its issuer"),
        (
            lambda: OfferedEndorsements((pki.vcek().issue(),), (ASK,), (ARK,)),
            "leaf: it was not signed by the key of SEV-Milan",
        ),
        (
            lambda: OfferedEndorsements((pki.vlek().issue(),), (ASK,), (ARK,)),
            "a VLEK certificate comes with the evidence",
        ),
        (
            lambda: OfferedEndorsements(roots=(ARK,), crls=(pki.crl(pki.named("ARK-Genoa")),)),
            "no trusted certificate of its issuer, ARK-Genoa",
        ),
        (
            lambda: OfferedEndorsements(roots=(ARK,), crls=(pki.crl(pki.named("ARK-Milan")),)),
            "it was not signed by the key of ARK-Milan",
        ),
    ],
)
def test_what_does_not_verify_keeps_everything_out(
    store: EndorsementStore, make: Callable[[], OfferedEndorsements], reason: str
) -> None:
    offered = make()
    genuine = OfferedEndorsements(roots=(ARK,)) if offered.roots else OfferedEndorsements()
    with pytest.raises(CertificateError, match=reason):
        import_endorsements(store, genuine + offered, AMD, pki.AT)
    assert not store.path.exists()


def test_an_intermediate_of_another_line_is_nobodys(store: EndorsementStore) -> None:
    crossed = OfferedEndorsements((pki.vcek(ProductLine.GENOA).issue(),), (ASK,), (ARK,))
    with pytest.raises(CertificateError, match="no certificate of its issuer, SEV-Genoa"):
        import_endorsements(store, crossed, AMD, pki.AT)


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = EndorsementStore(tmp_path / "file")
    with pytest.raises(ConfigError, match=r"endorsement store .* cannot be written: Not a directory"):
        import_endorsements(store, OfferedEndorsements(roots=(ARK,)), AMD, pki.AT)
