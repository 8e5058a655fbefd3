"""A port at which tpm2-tools find whatever TPM one of our channels leads to."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from app.tpm.transport import Transport
from tests.interop.software_tpm import ANSWERS_WITHIN_S, SoftwareTpm, demand

_HEADER_SIZE = 10
_SET_LOCALITY = bytes.fromhex("00000005 00")  # all that the tools ask of swtpm's control channel


@contextlib.contextmanager
def tool_bridge(folder: Path, channel: Transport) -> Iterator[SoftwareTpm]:
    """The TPM behind `channel`, for tpm2-tools, until the block ends."""
    demand("tpm2_createek")

    def pass_on(asked: BinaryIO) -> bytes:
        header = asked.read(_HEADER_SIZE)
        if len(header) < _HEADER_SIZE:
            return b""
        command = header + asked.read(int.from_bytes(header[2:6], "big") - _HEADER_SIZE)
        return channel.exchange(command, timeout_s=ANSWERS_WITHIN_S)

    with contextlib.ExitStack() as stack:
        data, control = _listeners(stack)
        for listener, serve in ((data, pass_on), (control, _take_locality)):
            thread = threading.Thread(target=_accept, args=(listener, serve), daemon=True)
            thread.start()
            stack.callback(thread.join, ANSWERS_WITHIN_S)
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
        yield SoftwareTpm(folder, data.getsockname()[1])


def _listeners(stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    """On two ports in a row, as the tools expect them."""
    while True:
        data = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        with contextlib.suppress(OSError, OverflowError):
            beside = ("127.0.0.1", data.getsockname()[1] + 1)
            return data, stack.enter_context(socket.create_server(beside))


def _accept(listener: socket.socket, answer: Callable[[BinaryIO], bytes]) -> None:
    with contextlib.suppress(OSError):  # the bridge is closed
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as asked:
                while answered := answer(asked):
                    connection.sendall(answered)


def _take_locality(asked: BinaryIO) -> bytes:
    return bytes(4) if asked.read(len(_SET_LOCALITY)) == _SET_LOCALITY else b""
