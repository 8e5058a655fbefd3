from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from app.evidence.simulator.authority import CertificateAuthority
from app.evidence.simulator.endorsements import SimulatedEndorsements
from app.evidence.simulator.processor import SecurityProcessor
from app.evidence.simulator.vault import Vault
from app.trust.names import VekKind
from app.wire import guid
from app.wire.certificate_table import CertificateTable
from app.wire.product import ProductLine


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC).replace(microsecond=0)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def endorsements(vault: Vault, clock: Clock, kind: VekKind = VekKind.VCEK) -> SimulatedEndorsements:
    authority = CertificateAuthority(ProductLine.MILAN, vault, clock=clock)
    return SimulatedEndorsements(authority, SecurityProcessor(ProductLine.MILAN, bytes(32), signing_key=kind))


@pytest.mark.parametrize(("kind", "name", "days"), [("vcek", guid.VCEK, 2557), ("vlek", guid.VLEK, 365)])
def test_the_table_holds_leaf_intermediate_root_and_crl(
    vault: Vault, clock: Clock, milan: CertificateAuthority, kind: str, name: object, days: int
) -> None:
    chip = endorsements(vault, clock, VekKind(kind))
    raw = chip.table()
    assert len(raw) < 16384
    table = CertificateTable.parse(raw)
    assert [entry.guid for entry in table.entries] == [name, guid.ASK, guid.ARK, guid.CRL]
    leaf, intermediate, root, crl = (entry.data for entry in table.entries)
    certificate = x509.load_der_x509_certificate(leaf)
    assert certificate.public_key() == chip.processor.vek(chip.processor.reported_tcb).public_key()
    assert certificate.not_valid_before_utc == clock.now - timedelta(days=1)
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == timedelta(days=days)
    assert intermediate == milan.intermediate(VekKind(kind)).public_bytes(Encoding.DER)
    assert root == milan.ark.public_bytes(Encoding.DER)
    assert list(x509.load_der_x509_crl(crl)) == []


def test_the_table_is_of_the_day(vault: Vault, clock: Clock) -> None:
    chip = endorsements(vault, clock)
    first = chip.table()
    clock.now += timedelta(hours=23)
    assert chip.table() == first
    clock.now += timedelta(hours=2)
    renewed = CertificateTable.parse(chip.table())
    leaf = renewed.get(guid.VCEK)
    assert leaf is not None
    start = x509.load_der_x509_certificate(leaf).not_valid_before_utc
    assert start == clock.now - timedelta(days=1)


def test_the_crl_is_of_the_day_and_lives_for_weeks(vault: Vault, clock: Clock) -> None:
    chip = endorsements(vault, clock)
    first = chip.crl()
    assert chip.crl() == first
    clock.now += timedelta(hours=25)
    renewed = chip.crl()
    assert renewed is not None
    assert renewed != first
    crl = x509.load_der_x509_crl(renewed)
    assert crl.next_update_utc is not None
    assert crl.next_update_utc - crl.last_update_utc == timedelta(days=47)
    assert crl.last_update_utc < clock.now < crl.next_update_utc
