"""Asking again, deadlines, what is flushed when; and no answer raises anything but our two errors."""

import contextlib
import hashlib
import struct
import time
from collections.abc import Callable, Iterator
from itertools import pairwise, repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from app.errors import TpmRefusedError, TpmUnavailableError
from app.tpm import handles
from app.tpm.causes import TpmCause
from app.tpm.client import Tpm
from app.tpm.transport import SocketTransport
from app.wire.tpm import algorithms as alg
from app.wire.tpm.credential import CredentialBlob, IdObject
from app.wire.tpm.duplicate import ImportBlob, encode_public
from app.wire.tpm.pcr import PcrSelection
from app.wire.tpm.public import TpmtPublic
from app.wire.tpm.template import creation_template
from tests.tpm.live import AK_P256, LiveTpm, live_tpm, refuses
from tests.tpm.peer import Canned, Reply, answer, authorized, playing, scripted
from tests.wire.samples import SWTPM_EK, signing_key, sized

DONE = answer()
KEY = 0x80000000


@contextlib.contextmanager
def raises(cause: TpmCause, reason: str) -> Iterator[None]:
    with pytest.raises(TpmUnavailableError) as caught:
        yield
    assert caught.value.cause == cause
    assert reason in caught.value.reason


# Asking again


@pytest.mark.parametrize("code", [0x922, 0x908, 0x90A, 0x920])
def test_a_tpm_that_wants_to_be_asked_again(code: int) -> None:
    with scripted(*[answer(code=code)] * 4, DONE) as (channel, peer):
        Tpm(channel, timeout_s=30).flush(KEY)
        assert len(peer.commands) == 5
        assert len(set(peer.commands)) == 1


def test_a_tpm_that_wants_to_be_asked_again_for_ever() -> None:
    with playing(repeat(answer(code=0x922))) as (channel, peer):
        with raises(
            TpmCause.TIMEOUT, "TPM2_FlushContext was not done in time; the TPM said 0x922 TPM_RC_RETRY last"
        ):
            Tpm(channel, timeout_s=0.1).flush(KEY)
        assert len(peer.commands) > 2
        assert not channel.spent  # it did answer


class Clock:
    """Moved by sleeping alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def test_the_pauses_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = Clock(monkeypatch).pauses
    with raises(TpmCause.TIMEOUT, "0x922"):
        Tpm(Canned(answer(code=0x922)), timeout_s=1.0).flush(KEY)
    assert pauses[0] <= 0.01
    assert all(a < b or b == pytest.approx(0.25) for a, b in pairwise(pauses[:-1]))
    assert sum(pauses) == pytest.approx(1.0)  # the last one ends at the deadline


def test_a_silent_tpm() -> None:
    with scripted(None) as (channel, _), raises(TpmCause.TIMEOUT, "did not answer in time"):
        Tpm(channel, timeout_s=0.05).flush(KEY)


# Deadlines


def test_no_command_begins_after_the_deadline_but_flushing() -> None:
    with scripted(DONE) as (channel, peer):
        tpm = Tpm(channel, timeout_s=30, deadline=time.monotonic())
        with raises(TpmCause.TIMEOUT, "TPM2_GetCapability was not done in time"), tpm.transient(KEY):
            tpm.handles(handles.TRANSIENT)
        assert [command[6:].hex() for command in peer.commands] == ["0000016580000000"]


@pytest.mark.parametrize(
    ("timeout_s", "deadline", "waits_s"),
    [(30.0, None, 30.0), (30.0, 10.0, 10.0), (30.0, 0.0, 2.0), (1.0, 0.0, 1.0)],
)
def test_how_long_flushing_may_take(
    monkeypatch: pytest.MonkeyPatch, timeout_s: float, deadline: float | None, waits_s: float
) -> None:
    clock = Clock(monkeypatch)
    with raises(TpmCause.TIMEOUT, "0x922"):
        Tpm(Canned(answer(code=0x922)), timeout_s=timeout_s, deadline=deadline).flush(KEY)
    assert clock.now == pytest.approx(waits_s)


def test_a_deadline_ends_a_command_that_has_more_time_of_its_own() -> None:
    with scripted(None) as (channel, _):
        tpm = Tpm(channel, timeout_s=30, deadline=time.monotonic() + 0.05)
        with raises(TpmCause.TIMEOUT, "did not answer in time"):
            tpm.handles(handles.TRANSIENT)


# Flushing


class CustomError(Exception):
    pass


@pytest.mark.parametrize("error", [CustomError(), KeyboardInterrupt()])
def test_what_a_block_raises_is_raised_and_its_key_is_flushed(tpm: LiveTpm, error: BaseException) -> None:
    with pytest.raises(type(error)), tpm.transient(tpm.create_primary(handles.OWNER, AK_P256).handle):
        raise error
    with pytest.raises(type(error)), tpm.policy_session(alg.SHA256):
        raise error
    assert tpm.loaded() == ()


def test_a_key_that_its_block_flushed_itself(tpm: LiveTpm) -> None:
    with capture_logs() as logs, tpm.transient(tpm.create_primary(handles.OWNER, AK_P256).handle) as key:
        tpm.flush(key)
    assert [(entry["event"], entry["code"]) for entry in logs] == [
        ("tpm_flush_refused", "TPM_RC_HANDLE (parameter 1)")
    ]
    with refuses(0x1CB, "TPM2_FlushContext answered 0x1cb TPM_RC_HANDLE (parameter 1)"):
        tpm.flush(key)


def test_a_flush_that_fails_hides_no_failure() -> None:
    with (
        scripted(hangs_up=True) as (channel, _),
        capture_logs() as logs,
        pytest.raises(CustomError),
        Tpm(channel, timeout_s=30).transient(KEY),
    ):
        raise CustomError
    assert [entry["event"] for entry in logs] == ["tpm_flush_failed"]


def test_a_flush_that_cannot_be_asked_is_a_failure_of_its_own() -> None:
    with scripted(hangs_up=True) as (channel, _):
        tpm = Tpm(channel, timeout_s=30)
        with raises(TpmCause.GONE, ""), tpm.transient(KEY):
            pass


def test_everything_that_is_loaded_can_be_flushed(tpm: LiveTpm) -> None:
    with capture_logs() as logs, contextlib.ExitStack() as sessions:
        for _ in range(3):
            tpm.create_primary(handles.OWNER, AK_P256)
            sessions.enter_context(tpm.policy_session(alg.SHA256))
        assert len(tpm.loaded()) == 6
        tpm.flush_all()
        assert tpm.loaded() == ()
    assert [entry["event"] for entry in logs] == ["tpm_flush_refused"] * 3


def created(
    area: bytes, *, name: bytes | None = None, handle: int = 0x80FFFFFF, ticket: int = 0x8021
) -> bytes:
    """An answer to TPM2_CreatePrimary: area, creation data, its hash, ticket, Name."""
    name = b"\0\x0b" + hashlib.sha256(area).digest() if name is None else name
    ticket_ = struct.pack(">HIH", ticket, handles.OWNER, 0)
    return authorized(
        sized(area) + sized(bytes(55)) + sized(bytes(32)) + ticket_ + sized(name), handle=handle
    )


def test_what_an_unreadable_answer_loaded_is_flushed() -> None:
    raw = created(signing_key(), name=b"\0\x0b" + bytes(32))
    with scripted(raw, DONE) as (channel, peer):
        with raises(
            TpmCause.MALFORMED_ANSWER,
            "TPM2_CreatePrimary: TPM answer at 0xd1: the Name is not that of the public area",
        ):
            Tpm(channel, timeout_s=30).create_primary(handles.OWNER, AK_P256)
        assert peer.commands[1].hex() == "80010000000e0000016580ffffff"


def test_the_unreadable_answer_is_what_is_raised_whatever_flushing_gives() -> None:
    raw = created(signing_key(), name=b"")
    for after in (answer(code=0x101), b"\0"):
        with capture_logs() as logs, raises(TpmCause.MALFORMED_ANSWER, "the Name is not"):
            Tpm(Canned(raw, after), timeout_s=30).create_primary(handles.OWNER, AK_P256)
        assert [entry["event"] for entry in logs] == ["tpm_flush_failed"]


# Answers of all kinds


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (created(signing_key()[:-1]), "y needs 32 bytes, 31 left"),
        (created(signing_key() + b"\0"), "1 bytes follow the end of the structure"),
        (created(b"\0\x08" + signing_key()[2:]), "type 0x0008 is neither RSA nor ECC"),
        (created(signing_key(), ticket=0x8023), "ticket tag 0x8023, want 0x8021"),
        (created(signing_key(), handle=0x03000000), "handle 0x03000000 is not of kind 0x80000000"),
        (answer(created(signing_key())[10:]), "tag 0x8001, the command had 0x8002"),
    ],
)
def test_keys_that_are_none(raw: bytes, reason: str) -> None:
    with raises(TpmCause.MALFORMED_ANSWER, reason):
        Tpm(Canned(raw, DONE), timeout_s=30).create_primary(handles.OWNER, AK_P256)


def test_a_key_by_the_book() -> None:
    key = Tpm(Canned(created(signing_key())), timeout_s=30).create_primary(handles.OWNER, AK_P256)
    assert (key.handle, key.public) == (0x80FFFFFF, signing_key())
    assert key.name == b"\0\x0b" + hashlib.sha256(signing_key()).digest()


def session(nonce: bytes = bytes(16), handle: int = 0x03000000) -> bytes:
    return answer(handle.to_bytes(4, "big") + sized(nonce))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (session(handle=0x02000000), "handle 0x02000000 is not of kind 0x03000000"),
        (session(bytes(15)), "nonceTPM has 15 bytes, want 16 to 64"),
        (session(bytes(65)), "nonceTPM has 65 bytes, want 16 to 64"),
    ],
)
def test_sessions_that_are_none(raw: bytes, reason: str) -> None:
    tpm = Tpm(Canned(raw, DONE), timeout_s=30)
    with raises(TpmCause.MALFORMED_ANSWER, reason), tpm.policy_session(alg.SHA256):
        pytest.fail("there is no session")


def test_a_statement_that_answers_another_question(tpm: LiveTpm) -> None:
    with tpm.transient(tpm.create_primary(handles.ENDORSEMENT, AK_P256).handle) as key:
        quoted, certified = tpm.quote(key, b"nonce", ALL), tpm.certify(key, key, b"nonce")
    quote, certificate = statement(*quoted), statement(*certified)
    asked = "TPM answer at 0x10: the statement answers another question"
    with raises(TpmCause.MALFORMED_ANSWER, asked):
        Tpm(Canned(quote), timeout_s=30).quote(key, b"nonc", ALL)
    with raises(TpmCause.MALFORMED_ANSWER, asked):
        Tpm(Canned(certificate), timeout_s=30).quote(key, b"nonce", ALL)
    with raises(TpmCause.MALFORMED_ANSWER, asked):
        Tpm(Canned(statement(*quoted, sessions=2)), timeout_s=30).certify(key, key, b"nonce")
    with raises(TpmCause.MALFORMED_ANSWER, "TPMT_SIGNATURE at "):
        Tpm(Canned(authorized(quote[14:-6])), timeout_s=30).quote(key, b"nonce", ALL)
    assert Tpm(Canned(quote), timeout_s=30).quote(key, b"nonce", ALL) == quoted


def statement(attest: bytes, signature: bytes, *, sessions: int = 1) -> bytes:
    """An answer with a statement and a signature."""
    return authorized(sized(attest) + signature, sessions=sessions)


def capability(kind: int, *numbers: int, count: int | None = None, more: int = 0) -> bytes:
    width = 2 if kind == PROPERTIES else 1
    count = len(numbers) // width if count is None else count
    return answer(struct.pack(f">BII{len(numbers)}I", more, kind, count, *numbers))


HANDLES, PROPERTIES = 1, 6
A_HUNDRED = range(0x81000000, 0x81000064)


def test_a_list_of_handles_in_several_answers() -> None:
    pages = [
        capability(HANDLES, *A_HUNDRED[:64], more=1),
        capability(HANDLES, *A_HUNDRED[64:65], more=1),
        capability(HANDLES, *A_HUNDRED[65:]),
    ]
    tpm = Canned(*pages)
    assert Tpm(tpm, timeout_s=30).handles(handles.PERSISTENT) == tuple(A_HUNDRED)
    assert [command[14:18].hex() for command in tpm.commands] == ["81000000", "81000040", "81000041"]


def test_a_list_that_the_resource_manager_emptied() -> None:
    assert Tpm(Canned(capability(HANDLES, more=1)), timeout_s=30).handles(handles.TRANSIENT) == ()


def test_a_list_of_handles_without_end() -> None:
    def lists() -> Iterator[Reply]:
        for first in range(0x81000000, 0x82000000, 64):
            yield capability(HANDLES, *range(first, first + 64), more=1)

    with playing(lists()) as (channel, peer):
        with raises(TpmCause.MALFORMED_ANSWER, "the TPM lists handles twice, or without end"):
            Tpm(channel, timeout_s=30).handles(handles.PERSISTENT)
        assert len(peer.commands) == 17


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (capability(PROPERTIES, 0x105, 1), "capability 6, asked for 1"),
        (capability(HANDLES, more=2), "moreData is 2, want 0 or 1"),
        (capability(HANDLES, KEY, count=2), "handle needs 4 bytes, 0 left"),
        (capability(HANDLES, KEY, count=0), "4 bytes follow the end of the structure"),
        (capability(HANDLES, count=65), "65 handles, at most 64 were asked for"),
        (capability(HANDLES, KEY, KEY), "the TPM lists handles twice"),
        (capability(HANDLES, KEY, more=1), "the TPM lists handles twice"),
        (capability(HANDLES, 0xFFFFFFFF, more=1), "the TPM lists handles twice"),
    ],
)
def test_lists_that_are_none(raw: bytes, reason: str) -> None:
    with raises(TpmCause.MALFORMED_ANSWER, reason):
        Tpm(Canned(raw), timeout_s=30).handles(handles.TRANSIENT)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (capability(PROPERTIES, 0x106, 1), ""),
        (capability(PROPERTIES, 0x105, 1, 0x10F, 2), ""),
        (capability(PROPERTIES), ""),
        (capability(PROPERTIES, 0x104, 1), "other properties than it was asked for"),
        (capability(PROPERTIES, 0x106, 1, 0x105, 1), "other properties than it was asked for"),
        (capability(PROPERTIES, 0x105, 1, 0x105, 1), "other properties than it was asked for"),
        (capability(PROPERTIES, 0x105, 1, 0x106, 1, 0x107, 1), "other properties than it was asked for"),
        (capability(PROPERTIES, count=65), "65 properties, at most 64"),
        (capability(PROPERTIES, 0x105, count=1), "value needs 4 bytes, 0 left"),
        (capability(HANDLES), "capability 1, asked for 6"),
    ],
)
def test_properties(raw: bytes, reason: str) -> None:
    tpm = Tpm(Canned(raw), timeout_s=30)
    if not reason:
        assert set(tpm.properties(0x105, 2)) <= {0x105, 0x106, 0x10F}
        return
    with raises(TpmCause.MALFORMED_ANSWER, reason):
        tpm.properties(0x105, 2)


ALL = PcrSelection.of({"sha256": range(24)})
EK = TpmtPublic.parse(SWTPM_EK)
CHALLENGE = CredentialBlob(IdObject(bytes(32), bytes(34)), bytes(256))
IMPORT = ImportBlob(encode_public(bytes(32)), b"\0\x20" + bytes(106), bytes(256))


def with_session(tpm: Tpm) -> None:
    with tpm.ek_session(EK):
        pass


METHODS: dict[str, Callable[[Tpm], object]] = {
    "startup": lambda tpm: tpm.startup(),
    "flush_all": lambda tpm: tpm.flush_all(),
    "properties": lambda tpm: tpm.properties(0x105, 3),
    "ek_session": with_session,
    "create_primary": lambda tpm: tpm.create_primary(handles.OWNER, AK_P256),
    "read_public": lambda tpm: tpm.read_public(KEY),
    "context_save": lambda tpm: tpm.context_save(KEY),
    "context_load": lambda tpm: tpm.context_load(bytes(16) + b"\0\x01a"),
    "activate_credential": lambda tpm: tpm.activate_credential(KEY, KEY, None, CHALLENGE),
    "import_object": lambda tpm: tpm.import_object(KEY, None, IMPORT),
    "load": lambda tpm: tpm.load(KEY, None, b"private", b"public", b"name"),
    "certify": lambda tpm: tpm.certify(KEY, KEY),
    "quote": lambda tpm: tpm.quote(KEY, b"", ALL),
    "pcr_banks": lambda tpm: tpm.pcr_banks(),
    "pcr_read": lambda tpm: tpm.pcr_read(ALL),
    "pcr_extend": lambda tpm: tpm.pcr_extend(16, {alg.SHA256: bytes(32)}),
    "nv_define": lambda tpm: tpm.nv_define(0x01C00002, 10),
    "nv_undefine": lambda tpm: tpm.nv_undefine(0x01C00002),
    "nv_read": lambda tpm: tpm.nv_read(0x01C00002),
    "nv_write": lambda tpm: tpm.nv_write(0x01C00002, b"data"),
}
RESEND = {0x908, 0x90A, 0x920, 0x922}
HANDLE = st.sampled_from([None, 0x80000000, 0x80FFFFFF, 0x03000000])
ANSWERS = st.one_of(
    st.binary(max_size=100),
    st.builds(answer, st.binary(max_size=100)),
    st.builds(authorized, st.binary(max_size=100), handle=HANDLE, sessions=st.sampled_from([1, 2])),
    st.builds(
        answer, code=st.integers(1, 0xFFFFFFFF).filter(lambda code: code not in {0x908, 0x90A, 0x920, 0x922})
    ),
)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=40)
@given(answers=st.lists(ANSWERS, min_size=1, max_size=4))
def test_arbitrary_answers_raise_only_our_two_errors(method: str, answers: list[bytes]) -> None:
    with contextlib.suppress(TpmUnavailableError, TpmRefusedError):
        METHODS[method](Tpm(Canned(*answers), timeout_s=30))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    """What a software TPM answered to each method."""
    answers: dict[str, list[bytes]] = {}

    class Recorder:
        def __init__(self, channel: SocketTransport, into: list[bytes]) -> None:
            self._channel, self._into = channel, into

        def exchange(self, command: bytes, *, timeout_s: float) -> bytes:
            self._into.append(self._channel.exchange(command, timeout_s=timeout_s))
            return self._into[-1]

        def close(self) -> None:
            """Its owner does."""

    with live_tpm(tmp_path_factory.mktemp("tpm")) as live:
        for template in (creation_template("L-1"), AK_P256):
            live.create_primary(handles.ENDORSEMENT, template)
        for name, method in METHODS.items():
            tpm = Tpm(Recorder(live.channel, answers.setdefault(name, [])), timeout_s=30)
            with contextlib.suppress(TpmRefusedError):
                method(tpm)
        live.flush_all()
    return answers


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=40)
@given(data=st.data())
def test_damaged_answers_raise_only_our_two_errors(
    recorded: dict[str, list[bytes]], method: str, data: st.DataObject
) -> None:
    answers = list(recorded[method])
    number = data.draw(st.integers(0, len(answers) - 1))
    raw = bytearray(answers[number])
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    answers[number] = bytes(raw)
    with contextlib.suppress(TpmUnavailableError, TpmRefusedError):
        METHODS[method](Tpm(Canned(*answers), timeout_s=0.05))
