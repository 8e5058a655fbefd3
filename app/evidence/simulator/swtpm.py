"""One swtpm process: a TPM 2.0 in software, spoken to over descriptors that it inherits.

No port, no path: nobody else can speak to it. It ends with the process that started it, in whatever
way that ends, and swtpm alone would not: when its channels reach their end while it works on a command,
swtpm 0.7 runs on for ever. So a shell waits for the end beside it.
Source: swtpm(8); swtpm_ioctl(3) for the control channel.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
import weakref
from collections.abc import Callable
from typing import Self

from app.errors import TpmUnavailableError
from app.evidence.simulator.ephemeral_folder import EphemeralFolder
from app.tpm.causes import TpmCause
from app.tpm.transport import SocketTransport

PROGRAM = "swtpm"
ANSWERS_WITHIN_S = 30.0  # takes milliseconds, but perhaps on a busy machine
MAX_STATE_SIZE = 1 << 20  # bytes; 1.3 KiB when new
_STATE = "tpm2-00.permall"
_MESSAGES = "messages"
_MESSAGES_SHOWN = 500
_CMD_INIT = bytes.fromhex("00000002 00000000")  # no flags: keep the state
_RESULT_SIZE = 4
_REMEDY = (
    "Run swtpm by hand to see what it lacks (on Ubuntu its AppArmor profile wants TMPDIR below /tmp or the"
    " home directory), or set SVSM_ATTEST_SIMULATOR_VTPM=none to do without quotes"
)

# Its stdin and stdout are swtpm's channels; its stderr is a pipe that nobody writes to, and which ends when
# the last who has its other end does. What runs in the background has no terminal and no stdin.
_GUARD = """
messages=$1
shift
exec 8<&0 9>&1 </dev/null >/dev/null
"$@" --fd 8 --ctrl type=unixio,clientfd=9 2>"$messages" &
exec 8<&- 9>&-
read -r end <&2
kill -9 $!
wait
"""
_GONE_WITHIN_S = 10.0

_SocketPair = tuple[socket.socket, socket.socket]


class Swtpm:
    """A TPM from power-on to power-off; blocking, and for one thread at a time.

    Args:
        process: a swtpm and its guard that were just started; they are a process group.
        folder: where it keeps its state; goes with it.
        guarded: a descriptor whose end is swtpm's.
        data: our end of the channel for commands.
        control: our end of the control channel.
    """

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        folder: EphemeralFolder,
        guarded: int,
        data: socket.socket,
        control: socket.socket,
    ) -> None:
        self.transport = SocketTransport(data, name="swtpm")
        self._process = process
        self._folder = folder
        self._control = control
        # Also runs when nobody refers to this object any more, and when the interpreter ends.
        self._end = weakref.finalize(self, _end, os.getpid(), process, folder, guarded, data, control)

    @classmethod
    def start(cls, state: bytes | None = None, *, program: str = PROGRAM) -> Self:
        """Start the program and switch the TPM on; TPM2_Startup is left to the firmware.

        Args:
            state: what `state` of an earlier process gave; None for a new TPM.
            program: its path, or a name to look up.

        Raises:
            TpmUnavailableError: it does not start, or cannot use the state.
        """
        try:
            return cls._start(program, state, socket.socketpair)
        except TpmUnavailableError:
            # An AppArmor profile may keep it from using unix sockets, as Ubuntu's does.
            return cls._start(program, state, _loopback_pair)

    @classmethod
    def _start(cls, program: str, state: bytes | None, pair: Callable[[], _SocketPair]) -> Self:
        try:
            swtpm = cls._spawn(program, state, pair)
        except OSError as error:
            reason = f"swtpm cannot be started: {error.strerror or error}"
            raise TpmUnavailableError(TpmCause.MISSING, reason, _REMEDY, errno=error.errno) from error
        try:
            swtpm.power_cycle()
        except BaseException:
            swtpm.end()
            raise
        return swtpm

    @classmethod
    def _spawn(cls, program: str, state: bytes | None, pair: Callable[[], _SocketPair]) -> Self:
        with contextlib.ExitStack() as started, contextlib.ExitStack() as undo:
            folder = EphemeralFolder.make()
            undo.callback(folder.remove)
            if state is not None:
                (folder.path / _STATE).write_bytes(state)
            (data, its_data), (control, its_control) = pair(), pair()
            for channel in (data, control):
                undo.enter_context(channel)
            for channel in (its_data, its_control):
                started.enter_context(channel)
            end, guarded = os.pipe()
            started.callback(os.close, end)
            undo.callback(os.close, guarded)
            process = subprocess.Popen(  # noqa: S603 (nothing in it comes from outside)
                [
                    *("/bin/sh", "-c", _GUARD, "swtpm", str(folder.path / _MESSAGES)),
                    *(program, "socket", "--tpm2", "--tpmstate", f"dir={folder.path},mode=0600"),
                ],
                stdin=its_data.fileno(),
                stdout=its_control.fileno(),
                stderr=end,
                pass_fds=(folder.descriptor,),
                start_new_session=True,  # a Ctrl-C is meant for the service, which still needs it
            )
            control.settimeout(ANSWERS_WITHIN_S)
            undo.pop_all()
            return cls(process, folder, guarded, data, control)

    @property
    def alive(self) -> bool:
        """Does it still run, and can its channel be used?"""
        if self.transport.spent:
            return False
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        return not poll.poll(0)  # it says nothing there unless it is asked: what is to be read is the end

    def power_cycle(self) -> None:
        """Switch it on, or off and on again: what is not in its state is gone.

        Raises:
            TpmUnavailableError: it does not answer, or cannot use its state.
        """
        try:
            self._control.sendall(_CMD_INIT)
            result = self._control.recv(_RESULT_SIZE, socket.MSG_WAITALL)
        except TimeoutError as error:
            raise self._failed(f"no answer within {ANSWERS_WITHIN_S:g} s") from error
        except OSError as error:
            raise self._failed("it ended") from error
        if len(result) != _RESULT_SIZE:
            raise self._failed("it ended")
        if any(result):
            raise self._failed(f"it cannot use its state (0x{result.hex().lstrip('0')})")

    def state(self) -> bytes:
        """What the TPM has in its non-volatile memory just now: up to 1 MiB, secret seeds included.

        Raises:
            TpmUnavailableError: the state cannot be read.
        """
        try:
            with (self._folder.path / _STATE).open("rb") as file:
                return file.read(MAX_STATE_SIZE)
        except OSError as error:
            raise self._failed(f"its state cannot be read: {error.strerror}") from error

    def end(self) -> None:
        """Switch it off without a warning, and forget its state."""
        self.transport.close()
        self._end()

    def _failed(self, reason: str) -> TpmUnavailableError:
        said = self._messages()
        return TpmUnavailableError(
            TpmCause.GONE, f"swtpm does not work: {reason}{f' ({said})' if said else ''}", _REMEDY
        )

    def _messages(self) -> str:
        """The last of what it wrote, in one line."""
        try:
            raw = (self._folder.path / _MESSAGES).read_bytes()[-_MESSAGES_SHOWN:]
        except OSError:
            return ""
        return "; ".join(raw.decode("ascii", "replace").split("\n")).strip("; ")


def _end(
    owner: int,
    process: "subprocess.Popen[bytes]",
    folder: EphemeralFolder,
    guarded: int,
    *channels: socket.socket,
) -> None:
    if os.getpid() != owner:  # a fork of the owner has a copy of this object, not the TPM
        return
    for channel in channels:
        channel.close()
    os.close(guarded)
    try:
        process.wait(_GONE_WITHIN_S)  # the guard ends swtpm, and takes note of its end
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    folder.remove()


def _loopback_pair() -> _SocketPair:
    """A connected pair of TCP sockets, which no third party can be an end of."""
    with contextlib.ExitStack() as undo:
        listener = undo.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(ANSWERS_WITHIN_S)
        ours = undo.enter_context(socket.create_connection(listener.getsockname(), ANSWERS_WITHIN_S))
        while True:
            theirs, peer = listener.accept()
            if peer == ours.getsockname():
                undo.pop_all()
                listener.close()
                return ours, theirs
            theirs.close()
