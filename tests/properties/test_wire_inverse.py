"""encode and parse are inverse, and nothing but the whole structure is the structure."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import WireError
from app.wire import b64
from app.wire.bits import GuestPolicy, PlatformInfo
from app.wire.certificate_table import CertificateTable
from app.wire.manifest import parse_manifest
from app.wire.report import AttestationReport, KeyInfo
from app.wire.services_manifest import ServicesManifest
from app.wire.tcb import TcbLayout, TcbVersion
from app.wire.tpm.attest import Attest
from app.wire.tpm.credential import CredentialBlob
from app.wire.tpm.duplicate import ImportBlob
from app.wire.tpm.public import TpmtPublic
from app.wire.tpm.signature import parse_signature
from app.wire.uefi_mm import UefiMmManifest
from tests.fuzz.targets import TARGETS
from tests.fuzz.tpm_targets import read_selection
from tests.properties import strategies as of

ANY_TCB = st.sampled_from(TcbLayout).flatmap(lambda layout: st.tuples(st.just(layout), of.tcbs(layout)))
VALUES: dict[str, tuple[st.SearchStrategy[Any], Any]] = {
    "report": (of.reports(), AttestationReport.parse),
    "certificate-table": (of.certificate_tables, CertificateTable.parse),
    "services-manifest": (of.services_manifests, ServicesManifest.parse),
    "manifest": (st.one_of(of.ek_manifests, of.key_lists, of.uefi_mm_manifests), parse_manifest),
    "tpmt-public": (of.keys(), TpmtPublic.parse),
    "uefi-mm": (of.uefi_mm_manifests, UefiMmManifest.parse),
    "attest": (of.attests, Attest.parse),
    "tpmt-signature": (of.tpm_signatures, parse_signature),
    "pcr-selection": (of.pcr_selections, read_selection),
}
EXACT = sorted(set(VALUES) - {"certificate-table"})


@pytest.mark.parametrize("name", VALUES)
@given(data=st.data())
@settings(deadline=None)
def test_parse_is_the_inverse_of_encode(name: str, data: st.DataObject) -> None:
    values, parse = VALUES[name]
    value = data.draw(values)
    raw = value.encode()
    assert parse(raw) == value
    assert TARGETS[name].feed(raw)


@given(value=ANY_TCB)
@settings(deadline=None)
def test_tcb(value: tuple[TcbLayout, TcbVersion]) -> None:
    layout, tcb = value
    assert TcbVersion.parse(tcb.encode(layout), layout) == tcb


@given(policy=of.policies, info=of.U64, key_info=of.key_infos)
@settings(deadline=None)
def test_bit_fields(policy: GuestPolicy, info: int, key_info: KeyInfo) -> None:
    assert GuestPolicy.parse(policy.encode()) == policy
    assert PlatformInfo.parse(info).encode() == info
    assert KeyInfo.parse(key_info.encode()) == key_info


@given(raw=st.binary(max_size=100))
@settings(deadline=None)
def test_base64(raw: bytes) -> None:
    assert b64.decode(b64.encode(raw)) == raw


@given(one=of.tcbs(TcbLayout.TURIN), other=of.tcbs(TcbLayout.TURIN), third=of.tcbs(TcbLayout.PRE_TURIN))
@settings(deadline=None)
def test_covers_is_a_partial_order(one: TcbVersion, other: TcbVersion, third: TcbVersion) -> None:
    assert one.covers(one)
    assert not (one.covers(other) and other.covers(one)) or one == other
    assert not (one.covers(other) and other.covers(third)) or one.covers(third)


@pytest.mark.parametrize("name", EXACT)
@given(data=st.data())
@settings(deadline=None)
def test_any_truncation_is_refused(name: str, data: st.DataObject) -> None:
    values, parse = VALUES[name]
    raw = data.draw(values).encode()
    with pytest.raises(WireError):
        parse(raw[: data.draw(st.integers(0, len(raw) - 1))])


@pytest.mark.parametrize("name", EXACT)
@given(data=st.data())
@settings(deadline=None)
def test_any_extension_is_refused(name: str, data: st.DataObject) -> None:
    values, parse = VALUES[name]
    raw = data.draw(values).encode()
    with pytest.raises(WireError):
        parse(raw + data.draw(st.binary(min_size=1, max_size=64)))
    with pytest.raises(WireError):
        parse(raw + bytes(data.draw(st.integers(1, 5000))))


@given(table=of.certificate_tables, data=st.data())
@settings(deadline=None)
def test_a_certificate_table_cut_short_is_refused(table: CertificateTable, data: st.DataObject) -> None:
    raw = table.encode()
    with pytest.raises(WireError):
        CertificateTable.parse(raw[: data.draw(st.integers(0, len(raw) - 1))])


@given(table=of.certificate_tables, padding=st.integers(0, 20000))
@settings(deadline=None)
def test_padding_says_nothing(table: CertificateTable, padding: int) -> None:
    assert CertificateTable.parse(table.encode() + bytes(padding)) == table


@given(blob=of.credentials, data=st.data())
@settings(deadline=None)
def test_credentials(blob: CredentialBlob, data: st.DataObject) -> None:
    file = blob.to_tools_file()
    assert CredentialBlob.from_tools_file(file) == blob
    assert CredentialBlob.parse(*blob.to_tpm2bs()) == blob
    assert TARGETS["credential-file"].feed(file)
    assert not TARGETS["credential-file"].feed(file[: data.draw(st.integers(0, len(file) - 1))])
    assert not TARGETS["credential-file"].feed(file + data.draw(st.binary(min_size=1, max_size=64)))


@given(blob=of.import_blobs, data=st.data())
@settings(deadline=None)
def test_import_blobs(blob: ImportBlob, data: st.DataObject) -> None:
    parts = [blob.public_area, blob.duplicate, blob.encrypted_seed]
    assert ImportBlob.parse(*parts) == blob
    assert TARGETS["import-blob"].feed(b"".join(blob.to_tpm2bs()))
    which = data.draw(st.integers(0, 2))
    whole = parts[which]
    for damaged in (
        whole[: data.draw(st.integers(0, len(whole) - 1))],
        whole + data.draw(st.binary(min_size=1, max_size=64)),
    ):
        with pytest.raises(WireError):
            ImportBlob.parse(*[damaged if place == which else part for place, part in enumerate(parts)])
