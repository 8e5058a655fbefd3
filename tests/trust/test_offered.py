from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from app.errors import CertificateError, WireError
from app.trust.certificates import MAX_BUNDLE_SIZE, load_certificate
from app.trust.offered import MAX_FILES, OfferedEndorsements
from app.wire import guid
from app.wire.certificate_table import CertificateEntry, CertificateTable
from tests.trust import pki
from tests.trust.evidence import milan

LEAF, ASK, ARK = milan().certificates
STRANGER = pki.Plan(
    subject=pki.named("web.example", ()),
    issuer=pki.named("Some CA", ()),
    key=pki.ec_key("web"),
    signer=pki.ec_key("web ca"),
).issue()


def table(*entries: tuple[object, bytes]) -> bytes:
    return CertificateTable(tuple(CertificateEntry(name, data) for name, data in entries)).encode()  # type: ignore[arg-type]


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


@pytest.fixture(scope="module")
def listed() -> x509.CertificateRevocationList:
    return pki.crl(pki.named("ARK-Milan"))


@pytest.mark.parametrize("name", ["good", "good-page-padded", "little-endian-guid", "unknown-guid-extra"])
def test_published_tables(vectors: Path, name: str) -> None:
    offered = OfferedEndorsements.from_table((vectors / f"certtable/genoa-{name}.bin").read_bytes())
    files = ("genoa-v5-a/vcek.der", "ca/genoa-ask.der", "ca/genoa-ark.der")
    leaf, ask, ark = (load_certificate((vectors / file).read_bytes(), file) for file in files)
    assert offered == OfferedEndorsements((leaf,), (ask,), (ark,))


def test_published_tables_with_less_in_them(vectors: Path) -> None:
    for name, counts in (("empty", (0, 0, 0)), ("vcek-only", (1, 0, 0)), ("vcek-pem", (1, 1, 1))):
        offered = OfferedEndorsements.from_table((vectors / f"certtable/genoa-{name}.bin").read_bytes())
        assert tuple(map(len, (offered.leaves, offered.intermediates, offered.roots))) == counts, name


def test_published_tables_that_are_none(vectors: Path) -> None:
    paths = [vectors / f"certtable/genoa-{name}.bin" for name in ("no-terminator", "length-past-end")]
    for path in paths:
        with pytest.raises(WireError):
            OfferedEndorsements.from_table(path.read_bytes())
        with pytest.raises(CertificateError, match="nor a certificate table"):
            OfferedEndorsements.from_paths([path])


def test_a_table_of_pem_with_a_crl(listed: x509.CertificateRevocationList) -> None:
    raw = table(
        (guid.ARK, pem(ARK)),
        (guid.ASK, pem(ASK)),
        (guid.VCEK, pem(LEAF)),
        (guid.CRL, listed.public_bytes(Encoding.DER)),
        (guid.EXTRA_PLATFORM_INFO, b"something else"),
    )
    assert OfferedEndorsements.from_table(raw) == OfferedEndorsements((LEAF,), (ASK,), (ARK,), (listed,))
    assert OfferedEndorsements.from_bytes(raw, "auxblob") == OfferedEndorsements.from_table(raw)


def test_the_name_in_a_certificate_decides_and_else_the_entry() -> None:
    raw = table((guid.VCEK, milan().intermediate), (guid.ASK, milan().leaf), (guid.ARK, pem(STRANGER)))
    assert OfferedEndorsements.from_table(raw) == OfferedEndorsements((LEAF,), (ASK,), (STRANGER,))
    for slot in (guid.VCEK, guid.VLEK):
        assert OfferedEndorsements.from_table(table((slot, pem(STRANGER)))).leaves == (STRANGER,)


@pytest.mark.parametrize(
    ("slot", "data", "place"),
    [
        (guid.VCEK, b"", "certificate table, VCEK"),
        (guid.ASK, b"\x30\x00", "certificate table, ASK or ASVK"),
        (guid.CRL, b"?", "certificate table, CRL"),
    ],
)
def test_an_entry_that_is_not_what_it_says(slot: object, data: bytes, place: str) -> None:
    with pytest.raises(CertificateError) as caught:
        OfferedEndorsements.from_table(table((slot, data)))
    assert caught.value.source == place


def test_roles_by_name() -> None:
    vlek, asvk = pki.vlek().issue(), pki.ask(kind="SEV-VLEK").issue()
    odd_leaf = pki.vcek().but(subject=pki.named("SEV-VCEJ", ())).issue()
    odd_intermediate = pki.ask().but(subject=pki.named("SEV-Naples")).issue()
    odd_root = pki.ark().but(subject=pki.named("ARK-Naples")).issue()
    nameless = pki.vcek().but(subject=x509.Name([])).issue()
    web = pki.named("web.example", ())
    own = pki.Plan(subject=web, issuer=web, key=pki.ec_key("web"), signer=pki.ec_key("web")).issue()
    everything = (vlek, asvk, ARK, odd_leaf, odd_intermediate, odd_root, nameless, STRANGER, own)
    assert OfferedEndorsements.sort(everything) == OfferedEndorsements(
        (vlek, nameless), (asvk, odd_leaf, odd_intermediate), (ARK, odd_root)
    )


def test_what_is_offered_twice_is_offered_once(listed: x509.CertificateRevocationList) -> None:
    one = OfferedEndorsements((LEAF,), (ASK,), (), (listed,))
    two = OfferedEndorsements((LEAF,), (), (ARK,), (listed, pki.crl(pki.named("ARK-Genoa"))))
    assert one + two == OfferedEndorsements((LEAF,), (ASK,), (ARK,), (listed, two.crls[1]))
    assert OfferedEndorsements.sort([LEAF, LEAF]).leaves == (LEAF,)


def test_a_table_adds_to_what_is_there() -> None:
    given = OfferedEndorsements(roots=(ARK,))
    parsed = CertificateTable((CertificateEntry(guid.VCEK, milan().leaf),))
    assert given.with_table(parsed, "evidence") == OfferedEndorsements((LEAF,), (), (ARK,))
    with pytest.raises(CertificateError, match="evidence, VCEK"):
        given.with_table(CertificateTable((CertificateEntry(guid.VCEK, b""),)), "evidence")


def test_files_and_folders(tmp_path: Path, listed: x509.CertificateRevocationList) -> None:
    (tmp_path / "leaf.der").write_bytes(milan().leaf)
    (tmp_path / "chain.PEM").write_bytes(pem(ASK, ARK))
    (tmp_path / "list.crl").write_bytes(listed.public_bytes(Encoding.DER))
    (tmp_path / "web.crt").write_bytes(pem(STRANGER))
    (tmp_path / "notes.txt").write_text("not a certificate, and not said to be one")
    (tmp_path / "below.der").mkdir()
    whole = OfferedEndorsements((LEAF,), (ASK,), (ARK,), (listed,))
    assert OfferedEndorsements.from_paths([tmp_path]) == whole
    assert OfferedEndorsements.from_paths([tmp_path / "leaf.der", tmp_path]) == whole
    (tmp_path / "list.txt").write_bytes(listed.public_bytes(Encoding.PEM))
    (tmp_path / "auxblob").write_bytes(table((guid.VCEK, milan().leaf)))
    files = [tmp_path / name for name in ("list.txt", "auxblob")]
    assert OfferedEndorsements.from_paths(files) == OfferedEndorsements((LEAF,), crls=(listed,))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("broken.pem", b"hello", "not a certificate"),
        ("key.pem", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "holds a PRIVATE KEY"),
        ("empty.der", b"", "not a certificate"),
        ("list.pem", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "not a CRL"),
        ("huge.der", b"\x30" * (MAX_BUNDLE_SIZE + 1), "more than 1048576 bytes"),
        ("large.der", b"\x30" * MAX_BUNDLE_SIZE, "at most 65536"),
    ],
)
def test_a_file_that_says_it_is_a_certificate_must_be_one(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CertificateError, match=reason) as caught:
        OfferedEndorsements.from_paths([tmp_path])
    assert caught.value.source == str(tmp_path / name)
    with pytest.raises(CertificateError):
        OfferedEndorsements.from_paths([tmp_path / name])


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="No such file"):
        OfferedEndorsements.from_paths([tmp_path / "nothing"])
    (tmp_path / "loop.der").symlink_to(tmp_path / "loop.der")
    assert OfferedEndorsements.from_paths([tmp_path]) == OfferedEndorsements()  # no file to read
    with pytest.raises(CertificateError, match="symbolic links"):
        OfferedEndorsements.from_paths([tmp_path / "loop.der"])


def test_a_folder_is_bounded(tmp_path: Path) -> None:
    for number in range(MAX_FILES + 1):
        (tmp_path / f"{number}.der").touch()
    with pytest.raises(CertificateError, match="257 certificate files, at most 256"):
        OfferedEndorsements.from_paths([tmp_path])
