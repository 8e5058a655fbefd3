"""Channels against peers that misbehave, and against a software TPM."""

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import TpmUnavailableError
from app.tpm.causes import TpmCause
from app.tpm.client import Tpm
from app.tpm.transport import DeviceTransport, SocketTransport
from tests.interop.software_tpm import bare_tpm, software_tpm
from tests.tpm.peer import answer, playing, scripted

COMMAND = bytes.fromhex("8001 0000000c 00000144 0000")
LONG_S = 30.0  # never used up
SHORT_S = 0.05
GOOD = answer(b"well")


@contextlib.contextmanager
def raises(cause: TpmCause, reason: str) -> Iterator[None]:
    with pytest.raises(TpmUnavailableError) as caught:
        yield
    assert caught.value.cause == cause
    assert reason in caught.value.reason
    assert caught.value.remedy


def test_commands_and_answers_follow_each_other() -> None:
    with scripted(GOOD, answer(b"better")) as (channel, peer):
        assert channel.exchange(COMMAND, timeout_s=LONG_S) == GOOD
        assert channel.exchange(COMMAND[:10], timeout_s=LONG_S) == answer(b"better")
        assert peer.commands == [COMMAND, COMMAND[:10]]
        assert not channel.spent


def test_the_longest_answer() -> None:
    longest = answer(bytes(4086))
    with scripted(longest) as (channel, _):
        assert channel.exchange(COMMAND, timeout_s=LONG_S) == longest


@pytest.mark.parametrize("cut", [1, 2, 6, 9, 10, 11, 13])
def test_an_answer_in_two_parts(cut: int) -> None:
    ours, theirs = socket.socketpair()
    got: list[bytes] = []
    with theirs, contextlib.closing(SocketTransport(ours)) as channel:
        asking = threading.Thread(target=lambda: got.append(channel.exchange(COMMAND, timeout_s=LONG_S)))
        asking.start()
        assert theirs.recv(100) == COMMAND
        theirs.sendall(GOOD[:cut])
        asking.join(0.02)
        assert got == []
        theirs.sendall(GOOD[cut:])
        asking.join(LONG_S)
    assert got == [GOOD]


@pytest.mark.parametrize(
    ("reply", "hangs_up", "cause", "reason"),
    [
        (None, False, TpmCause.TIMEOUT, "did not answer in time"),
        (GOOD[:5], False, TpmCause.TIMEOUT, "did not answer in time"),
        (GOOD[:13], False, TpmCause.TIMEOUT, "did not answer in time"),
        (None, True, TpmCause.GONE, "closed after 0 bytes of an answer"),
        (GOOD[:5], True, TpmCause.GONE, "closed after 5 bytes of an answer"),
        (GOOD[:13], True, TpmCause.GONE, "closed after 13 bytes of an answer"),
        (GOOD + b"!", False, TpmCause.MALFORMED_ANSWER, "1 bytes follow the 14 that the answer announces"),
        (GOOD + bytes(5000), False, TpmCause.MALFORMED_ANSWER, "follow the 14 that the answer announces"),
        (b"\x80\x01" + bytes(8), False, TpmCause.MALFORMED_ANSWER, "0 bytes announced"),
        (b"\x80\x01\0\0\0\x09" + bytes(4), False, TpmCause.MALFORMED_ANSWER, "9 bytes announced"),
        (b"\x80\x01\0\0\x10\x01" + bytes(4), False, TpmCause.MALFORMED_ANSWER, "4097 bytes announced"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", False, TpmCause.MALFORMED_ANSWER, "TPM answer at 0x2"),
    ],
)
def test_what_is_no_answer(reply: bytes | None, *, hangs_up: bool, cause: TpmCause, reason: str) -> None:
    timeout_s = SHORT_S if cause is TpmCause.TIMEOUT else LONG_S
    with scripted(reply, hangs_up=hangs_up) as (channel, _):
        with raises(cause, reason):
            channel.exchange(COMMAND, timeout_s=timeout_s)
        assert channel.spent
        with raises(TpmCause.GONE, "is spent since an earlier failure"):  # whatever comes late
            channel.exchange(COMMAND, timeout_s=LONG_S)


def test_bytes_that_nobody_asked_for_answer_nothing() -> None:
    ours, theirs = socket.socketpair()
    with theirs, contextlib.closing(SocketTransport(ours)) as channel:
        theirs.sendall(GOOD)
        with raises(TpmCause.MALFORMED_ANSWER, "bytes came before a command was sent"):
            channel.exchange(COMMAND, timeout_s=LONG_S)


def test_a_peer_that_left() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with (
        contextlib.closing(SocketTransport(ours)) as channel,
        raises(TpmCause.GONE, "closed at the other end"),
    ):
        channel.exchange(COMMAND, timeout_s=LONG_S)


def test_a_connection_that_breaks() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        channel = SocketTransport.tcp(*server.getsockname())
        theirs, _ = server.accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        theirs.close()  # with a reset
        with contextlib.closing(channel), pytest.raises(TpmUnavailableError) as caught:
            channel.exchange(COMMAND, timeout_s=LONG_S)
    assert (caught.value.cause, caught.value.errno) == (TpmCause.GONE, errno.ECONNRESET)


def filled(channel: socket.socket) -> int:
    """Write until nothing more fits."""
    channel.setblocking(False)
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            count += channel.send(bytes(1000))
    return count


def test_a_peer_that_reads_nothing() -> None:
    ours, theirs = socket.socketpair()
    filled(ours)
    with theirs, contextlib.closing(SocketTransport(ours)) as channel, raises(TpmCause.TIMEOUT, "in time"):
        channel.exchange(COMMAND, timeout_s=SHORT_S)


def test_a_peer_that_reads_late() -> None:
    ours, theirs = socket.socketpair()
    left = filled(ours) + 4096

    def serve() -> None:
        nonlocal left
        while left:
            left -= len(theirs.recv(min(left, 999)))
        theirs.sendall(GOOD)

    with theirs, contextlib.closing(SocketTransport(ours)) as channel:
        serving = threading.Thread(target=serve)
        serving.start()
        assert channel.exchange(bytes(4096), timeout_s=LONG_S) == GOOD
        serving.join(LONG_S)


def test_closing_wakes_up_who_waits() -> None:
    causes: list[str] = []

    def ask(channel: SocketTransport) -> None:
        try:
            channel.exchange(COMMAND, timeout_s=LONG_S)
        except TpmUnavailableError as error:
            causes.append(error.cause)

    ours, theirs = socket.socketpair()
    channel = SocketTransport(ours)
    with theirs:
        asking = threading.Thread(target=ask, args=(channel,))
        asking.start()
        assert theirs.recv(100) == COMMAND
        channel.close()
        asking.join(LONG_S)
    assert causes == [TpmCause.GONE]
    channel.close()
    assert channel.spent
    with raises(TpmCause.CLOSED, "is closed"):
        channel.exchange(COMMAND, timeout_s=LONG_S)


def test_users_of_one_channel_take_turns() -> None:
    def echo(command: bytes) -> bytes:
        return answer(command)

    def replies() -> Iterator[Callable[[bytes], bytes]]:
        while True:
            yield echo

    wrong: list[bytes] = []
    with playing(replies()) as (channel, peer):

        def ask(user: int) -> None:
            for round_ in range(50):
                command = bytes([user, round_]) * 600
                if channel.exchange(command, timeout_s=LONG_S) != answer(command):
                    wrong.append(command)

        users = [threading.Thread(target=ask, args=(user,)) for user in range(4)]
        for user in users:
            user.start()
        for user in users:
            user.join(LONG_S)
        assert len(peer.commands) == 200
    assert wrong == []


def test_a_user_does_not_wait_for_another_past_its_deadline() -> None:
    ours, theirs = socket.socketpair()
    with theirs, contextlib.closing(SocketTransport(ours)) as channel:
        got: list[bytes] = []
        first = threading.Thread(target=lambda: got.append(channel.exchange(COMMAND, timeout_s=LONG_S)))
        first.start()
        assert theirs.recv(100) == COMMAND
        with raises(TpmCause.TIMEOUT, "another user kept the TPM's socket for 0.05 s"):
            channel.exchange(COMMAND, timeout_s=SHORT_S)
        theirs.sendall(GOOD)
        first.join(LONG_S)
        assert got == [GOOD]
        assert not channel.spent


def test_an_interrupt_spends_the_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with scripted(GOOD) as (channel, _):
        with monkeypatch.context() as patch:
            patch.setattr(SocketTransport, "_wait", interrupt)
            with pytest.raises(KeyboardInterrupt):
                channel.exchange(COMMAND, timeout_s=LONG_S)
        with raises(TpmCause.GONE, "a peer was interrupted"):
            channel.exchange(COMMAND, timeout_s=LONG_S)


@settings(max_examples=100)
@given(said=st.binary(max_size=60), well_framed=st.booleans())
def test_arbitrary_answers_raise_only_tpm_unavailable(said: bytes, *, well_framed: bool) -> None:
    raw = answer(said) if well_framed else said
    with scripted(raw, hangs_up=True) as (channel, _):
        try:
            assert channel.exchange(COMMAND, timeout_s=LONG_S) == raw
        except TpmUnavailableError:
            assert not well_framed


# Opening


def test_no_socket_there(tmp_path: Path) -> None:
    with raises(TpmCause.MISSING, f"{tmp_path / 'data'} cannot be opened: No such file or directory"):
        SocketTransport.unix(tmp_path / "data")


def test_nobody_listens(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        with raises(TpmCause.MISSING, "Connection refused"):
            SocketTransport.unix(path)
    with socket.socket() as tcp:
        tcp.bind(("127.0.0.1", 0))
        with raises(TpmCause.MISSING, "Connection refused"):
            SocketTransport.tcp(*tcp.getsockname())


def test_a_socket_where_others_wait_already(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with socket.socket(socket.AF_UNIX) as server, contextlib.ExitStack() as others:
        server.bind(str(path))
        server.listen(0)
        others.enter_context(contextlib.closing(SocketTransport.unix(path)))
        with raises(TpmCause.IN_USE, "cannot be opened"):
            SocketTransport.unix(path, timeout_s=SHORT_S)


@pytest.mark.parametrize(
    ("error", "cause", "reason"),
    [
        (TimeoutError("timed out"), TpmCause.TIMEOUT, "tpm.example:2321 took no connection in time"),
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            TpmCause.MISSING,
            "tpm.example:2321 is not known: Name or service not known",
        ),
        (OSError(errno.EHOSTUNREACH, "No route to host"), TpmCause.GONE, "No route to host"),
        (PermissionError(errno.EACCES, "Permission denied"), TpmCause.PERMISSION_DENIED, "Permission denied"),
    ],
)
def test_a_host_out_of_reach(
    monkeypatch: pytest.MonkeyPatch, error: OSError, cause: TpmCause, reason: str
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(socket, "create_connection", refuse)
    with raises(cause, reason):
        SocketTransport.tcp("tpm.example", 2321)


def test_descriptors_that_are_no_sockets() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    with raises(TpmCause.MISSING, "Socket operation on non-socket"):
        SocketTransport.descriptor(reader)
    os.close(reader)
    with raises(TpmCause.MISSING, "Bad file descriptor"):
        SocketTransport.descriptor(reader)


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (errno.ENOENT, TpmCause.MISSING),
        (errno.ENODEV, TpmCause.MISSING),
        (errno.ENXIO, TpmCause.MISSING),
        (errno.EBUSY, TpmCause.IN_USE),
        (errno.EACCES, TpmCause.PERMISSION_DENIED),
        (errno.EPERM, TpmCause.PERMISSION_DENIED),
        (errno.EIO, TpmCause.GONE),
    ],
)
def test_devices_that_do_not_open(monkeypatch: pytest.MonkeyPatch, code: int, cause: TpmCause) -> None:
    def refuse(path: Path, flags: int) -> int:
        assert path == Path("/dev/tpmrm0")
        assert flags & (os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC) == os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(TpmUnavailableError) as caught:
        DeviceTransport(Path("/dev/tpmrm0"))
    assert (caught.value.cause, caught.value.errno) == (cause, code)
    assert "/dev/tpmrm0 cannot be opened" in caught.value.reason


def test_what_is_no_device(tmp_path: Path) -> None:
    with raises(TpmCause.MISSING, "No such file or directory"):
        DeviceTransport(tmp_path / "tpmrm0")
    (tmp_path / "file").write_bytes(b"")
    with raises(TpmCause.MISSING, "is not a character device"):
        DeviceTransport(tmp_path / "file")


# Devices: one write is a command, one read its answer. A pair of message sockets does the same.


@contextlib.contextmanager
def message_pair() -> Iterator[tuple[DeviceTransport, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, contextlib.closing(DeviceTransport.over(ours.detach())) as channel:
        yield channel, theirs


def test_a_device_answers() -> None:
    with message_pair() as (channel, theirs):
        for reply in (GOOD, answer(bytes(4086))):
            theirs.send(reply)
            assert channel.exchange(COMMAND, timeout_s=LONG_S) == reply
            assert theirs.recv(100) == COMMAND


def test_a_device_that_is_silent_is_closed_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    closed_by: list[str] = []
    done = threading.Event()

    def close(descriptor: int) -> None:
        closed_by.append(threading.current_thread().name)
        real_close(descriptor)
        done.set()

    real_close = os.close
    with message_pair() as (channel, _):
        with raises(TpmCause.TIMEOUT, "did not answer in time"):
            channel.exchange(COMMAND, timeout_s=SHORT_S)
        with raises(TpmCause.GONE, "is spent"):
            channel.exchange(COMMAND, timeout_s=LONG_S)
        with monkeypatch.context() as patch:
            patch.setattr(os, "close", close)
            channel.close()
            assert done.wait(LONG_S)
    assert closed_by == ["tpm-close"]


def test_a_device_that_is_not_a_tpm() -> None:
    channel = DeviceTransport(Path("/dev/null"))
    with contextlib.closing(channel), raises(TpmCause.GONE, "/dev/null answered nothing"):
        channel.exchange(COMMAND, timeout_s=LONG_S)


def test_a_device_that_refuses_the_command() -> None:
    channel = DeviceTransport(Path("/dev/full"))
    with contextlib.closing(channel), pytest.raises(TpmUnavailableError) as caught:
        channel.exchange(COMMAND, timeout_s=LONG_S)
    assert (caught.value.cause, caught.value.errno) == (TpmCause.GONE, errno.ENOSPC)


def test_a_device_that_takes_a_part_of_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    with message_pair() as (channel, _):
        monkeypatch.setattr(os, "write", lambda *_: 3)
        with raises(TpmCause.GONE, "took a part of a command"):
            channel.exchange(COMMAND, timeout_s=LONG_S)


def test_a_device_that_is_closed() -> None:
    channel = DeviceTransport(Path("/dev/null"))
    channel.close()
    channel.close()
    with raises(TpmCause.CLOSED, "/dev/null is closed"):
        channel.exchange(COMMAND, timeout_s=LONG_S)


# A software TPM


def manufacturer(channel: SocketTransport) -> int:
    with contextlib.closing(channel):
        return Tpm(channel, timeout_s=LONG_S).properties(0x105)[0x105]


IBM = int.from_bytes(b"IBM\0", "big")  # who libtpms says made it


def test_inherited_descriptor(tmp_path: Path) -> None:
    with bare_tpm(tmp_path) as tpm:
        assert tpm.data is not None
        assert manufacturer(SocketTransport.descriptor(tpm.data.detach())) == IBM


def test_unix_socket(tmp_path: Path) -> None:
    with bare_tpm(tmp_path, listening=True) as tpm:
        assert manufacturer(SocketTransport.unix(tpm.path)) == IBM
        assert manufacturer(SocketTransport.unix(tpm.path)) == IBM


def test_tcp(tmp_path: Path) -> None:
    with software_tpm(tmp_path) as tpm:
        assert manufacturer(SocketTransport.tcp("127.0.0.1", tpm.port)) == IBM


def test_a_second_user_of_a_software_tpm_waits_for_the_first(tmp_path: Path) -> None:
    with bare_tpm(tmp_path, listening=True) as tpm:
        first, second = (SocketTransport.unix(tpm.path) for _ in range(2))
        assert manufacturer(first) == IBM
        assert manufacturer(second) == IBM
        first, second = (SocketTransport.unix(tpm.path) for _ in range(2))
        with contextlib.closing(first), raises(TpmCause.TIMEOUT, "did not answer in time"):
            second.exchange(COMMAND, timeout_s=SHORT_S)
        second.close()


def test_a_software_tpm_that_is_killed_in_mid_command(tmp_path: Path) -> None:
    with bare_tpm(tmp_path) as tpm:
        assert tpm.data is not None
        tpm.freeze()
        with contextlib.closing(SocketTransport(tpm.data)) as channel:
            causes: list[str] = []

            def ask() -> None:
                try:
                    channel.exchange(COMMAND, timeout_s=LONG_S)
                except TpmUnavailableError as error:
                    causes.append(error.cause)

            asking = threading.Thread(target=ask)
            asking.start()
            asking.join(SHORT_S)
            tpm.kill()
            asking.join(LONG_S)
            assert causes == [TpmCause.GONE]
    with bare_tpm(tmp_path) as tpm:  # with the same state
        assert tpm.data is not None
        assert manufacturer(SocketTransport(tpm.data)) == IBM
