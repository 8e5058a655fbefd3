import hashlib
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import NonceError
from app.wire.session import CONSTRUCTION, NO_CHANNEL, Channel, ChannelType, Session
from app.wire.tpm.public import TpmtPublic
from tests.wire.tpm.statements import QUOTE_AK

DOCUMENT = Path(__file__).parents[2] / "docs" / "session.md"
REPORT = bytes(i % 251 for i in range(1184))
NAME = b"\x00\x0b" + bytes(32)
NONCE = bytes(range(64))


def published() -> list[dict[str, bytes]]:
    """The test vectors that people read."""
    text = DOCUMENT.read_text().partition("## Test vectors")[2]
    block = re.fullmatch(r".*```text\n(.*)```\n", text, re.DOTALL)
    assert block is not None
    vectors = []
    for paragraph in block[1].split("\n\n"):
        pairs = re.findall(r"^(\w+) +=((?:\s+[0-9a-f]+)*)$", paragraph, re.MULTILINE)
        assert len(pairs) == 8, paragraph
        vectors.append({name: bytes.fromhex(digits) for name, digits in pairs})
    return vectors


VECTORS = published()


def test_there_is_a_vector_for_every_channel_and_two_sizes_of_names() -> None:
    assert [int.from_bytes(vector["channel_type"], "big") for vector in VECTORS] == list(ChannelType)
    assert {len(vector["ak_name"]) for vector in VECTORS} == {34, 50}
    assert VECTORS[0]["ak_name"] == TpmtPublic.parse(QUOTE_AK).name


@pytest.mark.parametrize("vector", VECTORS)
def test_the_published_vectors_follow_from_the_published_construction(vector: dict[str, bytes]) -> None:
    def sized(part: bytes) -> bytes:
        return len(part).to_bytes(2, "big") + part

    channel = vector["channel_type"] + sized(vector["channel_value"])
    parts = sized(vector["nonce"]) + sized(vector["ak_name"]) + channel
    digest = hashlib.sha512(b"svsm-attest/session/1\x00" + parts).digest()
    assert vector["digest"] == digest
    assert vector["report_nonce"] == hashlib.sha512(b"svsm-attest/session/1/report\x00" + digest).digest()
    quote = b"svsm-attest/session/1/quote\x00" + digest
    assert vector["quote_with_report"] == hashlib.sha256(quote + b"\x02\xa0" + REPORT[:672]).digest()
    assert vector["quote_alone"] == hashlib.sha256(quote + b"\x00\x00").digest()


@pytest.mark.parametrize("vector", VECTORS)
def test_the_published_vectors_are_what_we_compute(vector: dict[str, bytes]) -> None:
    kind = ChannelType(vector["channel_type"][0])
    session = Session(vector["nonce"], vector["ak_name"], Channel(kind, vector["channel_value"]))
    assert session.digest == vector["digest"]
    assert session.report_nonce == vector["report_nonce"]
    assert session.qualifying_data(REPORT) == vector["quote_with_report"]
    assert session.qualifying_data(None) == vector["quote_alone"]


def test_the_document_names_the_construction() -> None:
    assert f"`{CONSTRUCTION}`" in DOCUMENT.read_text()


CHANNELS = st.one_of(
    st.just(NO_CHANNEL),
    st.builds(
        Channel,
        st.sampled_from((ChannelType.TLS_SERVER_END_POINT, ChannelType.TLS_EXPORTER)),
        st.binary(min_size=1, max_size=64),
    ),
)
SESSIONS = st.builds(
    Session,
    st.binary(min_size=64, max_size=64),
    st.sampled_from((32, 48, 64)).flatmap(lambda size: st.binary(min_size=2 + size, max_size=2 + size)),
    CHANNELS,
)


@given(one=SESSIONS, other=SESSIONS)
@settings(deadline=None)
def test_two_sessions_share_nothing(one: Session, other: Session) -> None:
    def values(session: Session) -> set[bytes]:
        both = {session.qualifying_data(None), session.qualifying_data(REPORT)}
        return {session.digest, session.report_nonce, *both}

    assert len(values(one) | {one.nonce}) == 5
    assert one == other or not values(one) & values(other)


@given(session=SESSIONS, at=st.integers(0, 1183), bit=st.integers(0, 7))
@settings(deadline=None)
def test_the_quote_covers_what_is_signed_of_the_report_and_not_its_signature(
    session: Session, at: int, bit: int
) -> None:
    changed = bytearray(REPORT)
    changed[at] ^= 1 << bit
    same = session.qualifying_data(bytes(changed)) == session.qualifying_data(REPORT)
    assert same == (at >= 0x2A0)


def test_every_part_of_a_session_counts() -> None:
    base = Session(NONCE, NAME)
    others = [
        Session(NONCE[:-1] + b"\x00", NAME),
        Session(NONCE, NAME[:-1] + b"\x01"),
        Session(NONCE, b"\x00\x0c" + bytes(48)),
        Session(NONCE, NAME, Channel(ChannelType.TLS_SERVER_END_POINT, b"\x00")),
        Session(NONCE, NAME, Channel(ChannelType.TLS_SERVER_END_POINT, b"\x00\x00")),
        Session(NONCE, NAME, Channel(ChannelType.TLS_EXPORTER, b"\x00")),
    ]
    assert len({session.digest for session in (base, *others)}) == 7


@pytest.mark.parametrize("size", [0, 63, 65, 128])
def test_a_nonce_has_64_bytes(size: int) -> None:
    with pytest.raises(NonceError, match=f"^nonce: {size} bytes, want exactly 64$"):
        Session(bytes(size), NAME)


@pytest.mark.parametrize("size", [0, 4, 33, 35, 49, 67])
def test_a_name_is_that_of_a_key(size: int) -> None:
    with pytest.raises(NonceError, match=f"attestation key: {size} bytes, want 34, 50 or 66$"):
        Session(NONCE, bytes(size))


@pytest.mark.parametrize("size", [0, 64, 672, 1183, 1185])
def test_a_report_is_given_whole(size: int) -> None:
    with pytest.raises(NonceError, match=f"report: {size} bytes, want 1184$"):
        Session(NONCE, NAME).qualifying_data(bytes(size))


def test_a_channel_has_an_identity_and_no_channel_has_none() -> None:
    assert Channel() == NO_CHANNEL
    for kind in (ChannelType.TLS_SERVER_END_POINT, ChannelType.TLS_EXPORTER):
        for size in (0, 65):
            with pytest.raises(NonceError, match=f"channel binding: {size} bytes, want 1 to 64$"):
                Channel(kind, bytes(size))
    with pytest.raises(NonceError, match="channel binding: 1 bytes, want none without a channel"):
        Channel(ChannelType.NONE, b"\x00")
