import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from structlog.testing import capture_logs

from app.trust.certificates import certificate_digest, der, load_certificate
from app.trust.names import VekKind
from app.trust.store import EndorsementStore
from app.trust.vek import read_vek
from app.wire.product import ProductLine
from app.wire.tcb import TcbVersion
from tests.trust import pki
from tests.trust.evidence import milan
from tests.trust.pki import HWID, MILAN_TCB, TURIN_TCB

MILAN, TURIN = ProductLine.MILAN, ProductLine.TURIN
NAME = "bl04_tee00_snp24_ucode219_vcek.der"


@pytest.fixture
def store(tmp_path: Path) -> EndorsementStore:
    return EndorsementStore(tmp_path / "store")


def files(store: EndorsementStore) -> set[str]:
    return {str(path.relative_to(store.path)) for path in store.path.rglob("*") if path.is_file()}


def test_an_absent_folder_is_an_empty_store(store: EndorsementStore, ark: x509.Certificate) -> None:
    with capture_logs() as logs:
        assert store.vcek(MILAN, HWID, MILAN_TCB) is None
        assert store.crl(VekKind.VCEK, ark) is None
        assert store.authorities() == ()
        assert list(store.entries()) == []
    assert (logs, store.path.exists()) == ([], False)


def test_vceks_lie_where_trustee_looks_for_them(store: EndorsementStore) -> None:
    milan_leaf, turin_leaf = pki.vcek().issue(), pki.vcek(TURIN).issue()
    store.keep_vcek(read_vek(milan_leaf))
    store.keep_vcek(read_vek(turin_leaf))
    assert files(store) == {
        f"vcek/{HWID.hex()}/{NAME}",
        "vcek/0001020304050607/bl02_tee03_snp04_ucode71_fmc01_vcek.der",
    }
    assert store.vcek(MILAN, HWID, MILAN_TCB) == milan_leaf
    assert store.vcek(TURIN, HWID[:8], TURIN_TCB) == turin_leaf
    assert store.vcek(ProductLine.GENOA, HWID, MILAN_TCB) is None


def test_a_real_vcek_of_trustees_layout(store: EndorsementStore) -> None:
    report = milan().parsed_report
    path = store.path / "vcek" / report.chip_id.hex() / "bl02_tee00_snp05_ucode68_vcek.der"
    path.parent.mkdir(parents=True)
    path.write_bytes(milan().leaf)
    tcb = TcbVersion.parse(report.reported_tcb, MILAN.tcb_layout)
    assert store.vcek(MILAN, report.chip_id, tcb) == load_certificate(milan().leaf, "leaf")


def test_trustees_flat_layout_is_read_for_the_tcb_it_holds(store: EndorsementStore) -> None:
    leaf = pki.vcek().issue()
    path = store.path / "vcek" / HWID.hex() / "vcek.der"
    path.parent.mkdir(parents=True)
    path.write_bytes(der(leaf))
    other = TcbVersion(bootloader=4, tee=0, snp=24, microcode=220)
    with capture_logs() as logs:
        assert store.vcek(MILAN, HWID, MILAN_TCB) == leaf
        assert store.vcek(MILAN, HWID, other) is None
    assert logs == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: b"", "not a certificate"),
        (lambda: milan().leaf, "another chip or TCB"),
        (lambda: der(pki.vcek().issue())[:-1], "not a certificate"),
        (
            lambda: der(pki.vcek(tcb=TcbVersion(bootloader=4, tee=0, snp=24, microcode=1)).issue()),
            "another chip or TCB",
        ),
        (lambda: der(pki.vlek().issue()), "another chip or TCB"),
        (lambda: bytes(70_000), "at most 65536"),
    ],
)
def test_a_damaged_or_misfiled_vcek_is_as_good_as_absent(
    store: EndorsementStore, content: Callable[[], bytes], reason: str
) -> None:
    leaf = pki.vcek().issue()
    path = store.keep_vcek(read_vek(leaf))
    path.write_bytes(content())
    with capture_logs() as logs:
        assert store.vcek(MILAN, HWID, MILAN_TCB) is None
    (log,) = logs
    assert (log["event"], log["log_level"], log["path"]) == ("store.ignored", "warning", str(path))
    assert reason in log["reason"]
    store.keep_vcek(read_vek(leaf))
    assert store.vcek(MILAN, HWID, MILAN_TCB) == leaf


def test_a_file_that_cannot_be_read_is_as_good_as_absent(store: EndorsementStore) -> None:
    (store.path / "vcek" / HWID.hex() / NAME).mkdir(parents=True)
    with capture_logs() as logs:
        assert store.vcek(MILAN, HWID, MILAN_TCB) is None
    assert "Is a directory" in logs[0]["reason"]


def test_authorities(store: EndorsementStore, ark: x509.Certificate, ask: x509.Certificate) -> None:
    for certificate in (ark, ask, ask):
        store.keep_authority(certificate)
    digests = [certificate_digest(one)[:16] for one in (ark, ask)]
    assert files(store) == {f"ca/ARK-Milan-{digests[0]}.der", f"ca/SEV-Milan-{digests[1]}.der"}
    assert set(store.authorities()) == {ark, ask}
    (store.path / f"ca/ARK-Milan-{digests[0]}.der").write_bytes(milan().root)
    (store.path / f"ca/SEV-Milan-{digests[1]}.der").write_bytes(b"?")
    with capture_logs() as logs:
        assert store.authorities() == ()
    assert ["promises another" in log["reason"] for log in logs] == [True, False]


def test_a_hostile_name_stays_inside(store: EndorsementStore) -> None:
    for name in ("../../outside", "/etc/passwd", "a\0b", ""):
        subject = pki.named(name) if name else x509.Name([])
        path = store.keep_authority(pki.ask().but(subject=subject).issue())
        assert path.parent == store.path / "ca"


def test_lists(store: EndorsementStore, ark: x509.Certificate) -> None:
    first, second = pki.crl(ark.subject), pki.crl(ark.subject, 7)
    store.keep_crl(first, VekKind.VCEK, ark)
    path = store.keep_crl(second, VekKind.VCEK, ark)
    assert path.name == f"vcek-ARK-Milan-{certificate_digest(ark)[:16]}.der"
    assert store.crl(VekKind.VCEK, ark) == second
    assert store.crl(VekKind.VLEK, ark) is None
    path.write_bytes(b"?")
    with capture_logs() as logs:
        assert store.crl(VekKind.VCEK, ark) is None
    assert logs[0]["event"] == "store.ignored"


def test_a_vcek_without_a_chip_has_no_place(store: EndorsementStore) -> None:
    with pytest.raises(ValueError, match="no place"):
        store.keep_vcek(read_vek(pki.vlek().issue()))


# Whole or not at all


def test_files_are_readable_by_all_and_nothing_else_is_left(store: EndorsementStore) -> None:
    path = store.keep_vcek(read_vek(pki.vcek().issue()))
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert files(store) == {str(path.relative_to(store.path))}


@pytest.mark.parametrize("call", ["fsync", "fchmod"])
def test_a_write_that_fails_leaves_what_was_there(
    store: EndorsementStore, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    first, second = pki.vcek().issue(), pki.vcek().issue()
    path = store.keep_vcek(read_vek(first))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"):
        store.keep_vcek(read_vek(second))
    monkeypatch.undo()
    assert path.read_bytes() == der(first)
    assert files(store) == {str(path.relative_to(store.path))}


def test_a_temporary_file_that_vanished_does_not_hide_the_error(
    store: EndorsementStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def vanish(self: Path, _target: Path) -> None:
        self.unlink()
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", vanish)
    with pytest.raises(PermissionError):
        store.keep_vcek(read_vek(pki.vcek().issue()))


def test_readers_never_see_half_a_file(store: EndorsementStore) -> None:
    leaves = [pki.vcek().issue() for _ in range(2)]
    veks = [read_vek(leaf) for leaf in leaves]
    store.keep_vcek(veks[0])
    done = threading.Event()

    def write() -> None:
        for number in range(100):
            store.keep_vcek(veks[number % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    with capture_logs() as logs:
        while not done.is_set():
            seen.add(store.vcek(MILAN, HWID, MILAN_TCB))
    writer.join()
    assert seen <= set(leaves)
    assert logs == []


# The list of entries


def test_the_list_says_what_everything_is(
    store: EndorsementStore, ark: x509.Certificate, ask: x509.Certificate
) -> None:
    assert list(store.entries()) == []
    leaf = pki.vcek().issue()
    vcek_path = store.keep_vcek(read_vek(leaf))
    (vcek_path.parent / "vcek.der").write_bytes(der(leaf))
    for certificate in (ark, ask):
        store.keep_authority(certificate)
    listed = pki.crl(ark.subject)
    store.keep_crl(listed, VekKind.VCEK, ark)
    entries = list(store.entries())
    assert [entry.what for entry in entries] == [
        "ARK-Milan",
        "SEV-Milan",
        "CRL of ARK-Milan",
        "VCEK Milan, bootloader=4 tee=0 snp=24 microcode=219",
        "VCEK Milan, bootloader=4 tee=0 snp=24 microcode=219",
    ]
    assert {entry.problem for entry in entries} == {None}
    assert (entries[0].not_before, entries[0].not_after) == (pki.START, pki.END)
    assert entries[2].not_after == listed.next_update_utc
    assert entries[3].path == f"vcek/{HWID.hex()}/{NAME}"


def test_the_list_names_what_is_wrong(store: EndorsementStore, ark: x509.Certificate) -> None:
    path = store.keep_vcek(read_vek(pki.vcek().issue()))
    store.keep_authority(ark).rename(store.path / "ca" / "ARK-Milan-0000000000000000.der")
    (path.parent / "bl00_tee00_snp00_ucode00_vcek.der").write_bytes(milan().leaf)
    path.write_bytes(b"?")
    (store.path / "crl").mkdir()
    (store.path / "crl" / "x.der").mkdir()
    (store.path / "vcek" / HWID.hex() / "vcek.der").write_bytes(der(pki.leaf({}, kind="SEV-VCEK").issue()))
    problems = {entry.path.rpartition("/")[2]: (entry.what, entry.problem or "") for entry in store.entries()}
    assert problems["ARK-Milan-0000000000000000.der"] == (
        "ARK-Milan",
        "its name promises another certificate",
    )
    assert problems["bl00_tee00_snp00_ucode00_vcek.der"][1] == "its name promises another certificate"
    assert problems["vcek.der"][0] == "VCEK Milan, no TCB"
    assert problems[NAME][0] == problems["x.der"][0] == "unreadable"
    assert "not a certificate" in problems[NAME][1]
    assert "Is a directory" in problems["x.der"][1]
