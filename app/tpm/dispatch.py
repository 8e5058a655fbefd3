"""Asking a TPM one command after another: resends, deadlines, and nothing left loaded.

Source: TCG TPM 2.0 Library, Part 1, 39 (warnings that ask for the same command again); Part 3,
TPM2_Startup, TPM2_FlushContext and TPM2_GetCapability.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import structlog

from app.errors import TpmRefusedError, TpmUnavailableError, WireError
from app.tpm import codes, handles
from app.tpm.causes import TpmCause, unavailable
from app.tpm.command import Answer, Command, CommandCode, parse_answer, return_code
from app.tpm.transport import Transport
from app.wire.cursor import Cursor
from app.wire.tpm import fields

T = TypeVar("T")

_log = structlog.get_logger(__name__)

_FIRST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.25
_FLUSH_S = 2.0
_CLEAR = 0x0000  # TPM_SU_CLEAR
_CAP_HANDLES = 1
CAP_PCRS = 5
_CAP_PROPERTIES = 6
_HANDLES_AT_ONCE = 64
_MAX_HANDLES = 1024
_NO_HANDLE = 0xFFFFFFFF  # the last number that a handle could have; no list goes on after it
_PROPERTIES_AT_ONCE = 64


class Dispatcher:
    """Sends commands over a transport, one at a time, and reads their answers strictly.

    Args:
        transport: the channel; closing it is its owner's business.
        timeout_s: how long one command may take, resends included.
        deadline: a time of the monotonic clock after which no command is begun or waited for, but
            the flushing of what is loaded.
    """

    def __init__(self, transport: Transport, *, timeout_s: float, deadline: float | None = None) -> None:
        self._transport = transport
        self._timeout_s = timeout_s
        self._deadline = float("inf") if deadline is None else deadline

    def ask(self, command: Command, read: Callable[[Answer], T]) -> T:
        """Send a command and read its answer, whose parameters `read` must use up.

        Raises:
            TpmRefusedError: a return code other than success.
            TpmUnavailableError: no answer in time, or one that is not an answer to this command;
                an object that it may have loaded has been flushed.
            WireError: the command is too long to send.
        """
        return self._ask(command, read, min(time.monotonic() + self._timeout_s, self._deadline))

    def tell(self, command: Command) -> None:
        """Send a command whose answer has no parameters. Raises as `ask`."""
        self.ask(command, _nothing)

    def startup(self) -> None:
        """TPM2_Startup(CLEAR), as firmware does it; a TPM that is started already is left alone."""
        try:
            self.tell(Command(CommandCode.STARTUP, parameters=fields.p16(_CLEAR)))
        except TpmRefusedError as error:
            if error.code != codes.INITIALIZE:
                raise

    def flush(self, handle: int) -> None:
        """Take an object or a session out of the TPM. Has two seconds also where the deadline is past.

        Raises:
            TpmRefusedError: there is no such object or session.
        """
        command = Command(CommandCode.FLUSH_CONTEXT, parameters=handle.to_bytes(4, "big"))
        now = time.monotonic()
        self._ask(command, _nothing, min(now + self._timeout_s, max(self._deadline, now + _FLUSH_S)))

    @contextmanager
    def transient(self, handle: int) -> Iterator[int]:
        """An object or a session that leaves the TPM with the block, however the block ends.

        A flush that the TPM refuses is logged: what the block did stays done.
        """
        try:
            yield handle
        except BaseException:
            self._discard(handle)
            raise
        try:
            self.flush(handle)
        except TpmRefusedError as error:
            _log.warning("tpm_flush_refused", handle=f"0x{handle:08x}", code=error.name)

    def flush_all(self) -> None:
        """Take out every transient object and loaded session, whoever loaded them."""
        for first in (handles.TRANSIENT, handles.LOADED_SESSIONS):
            for handle in self.handles(first):
                self._discard(handle)

    def handles(self, first: int) -> tuple[int, ...]:
        """The handles of one kind that are in use; `first` is the kind's first handle.

        LOADED_SESSIONS lists sessions of every kind. At most 1024.
        """
        found: list[int] = []
        more = True
        while more:
            start = max(found) + 1 if found else first
            more, part = self.capability(_CAP_HANDLES, start, _HANDLES_AT_ONCE, _read_handles)
            found += part
            if len(found) > _MAX_HANDLES or len(set(found)) != len(found) or _NO_HANDLE in found:
                raise unavailable(TpmCause.MALFORMED_ANSWER, "the TPM lists handles twice, or without end")
            more = more and bool(part)  # the resource manager may have taken all of a part out
        return tuple(found)

    def properties(self, first: int, count: int = 1) -> dict[int, int]:
        """TPM properties (TPM_PT) from `first` on: at most `count` (1 to 64), and only those that exist."""
        count = min(count, _PROPERTIES_AT_ONCE)
        _, found = self.capability(_CAP_PROPERTIES, first, count, _read_properties)
        numbers = [number for number, _ in found]
        if len(found) > count or numbers != sorted(set(numbers)) or (numbers and numbers[0] < first):
            raise unavailable(
                TpmCause.MALFORMED_ANSWER, "the TPM lists other properties than it was asked for"
            )
        return dict(found)

    def capability(
        self, capability: int, first: int, count: int, read: Callable[[Cursor], T]
    ) -> tuple[bool, T]:
        """TPM2_GetCapability: whether there is more, and what `read` reads."""

        def reader(answer: Answer) -> tuple[bool, T]:
            cursor = answer.parameters
            more = cursor.integer(1, "moreData")
            if more > 1:
                raise cursor.fail(f"moreData is {more}, want 0 or 1", back=1)
            named = fields.u32(cursor, "capability")
            if named != capability:
                raise cursor.fail(f"capability {named}, asked for {capability}", back=4)
            return bool(more), read(cursor)

        parameters = b"".join(number.to_bytes(4, "big") for number in (capability, first, count))
        return self.ask(Command(CommandCode.GET_CAPABILITY, parameters=parameters), reader)

    def _ask(self, command: Command, read: Callable[[Answer], T], deadline: float) -> T:
        raw = self._exchange(command, deadline)
        answer: Answer | None = None
        try:
            answer = parse_answer(command, raw)
            value = read(answer)
            answer.parameters.end()
        except WireError as error:
            if answer is not None and answer.handle:
                self._discard(answer.handle)
            raise unavailable(TpmCause.MALFORMED_ANSWER, f"{command.code.title}: {error}") from error
        return value

    def _exchange(self, command: Command, deadline: float) -> bytes:
        """The answer to a command, whatever it says, but for those that ask for the command again."""
        sent = command.encode()
        pause_s = _FIRST_PAUSE_S
        code = codes.SUCCESS
        while (left := deadline - time.monotonic()) > 0:
            raw = self._transport.exchange(sent, timeout_s=left)
            try:
                code = return_code(raw)
            except WireError as error:
                raise unavailable(TpmCause.MALFORMED_ANSWER, f"{command.code.title}: {error}") from error
            if code not in codes.RESEND:
                return raw
            time.sleep(min(pause_s, max(0.0, deadline - time.monotonic())))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        said = f"; the TPM said 0x{code:x} {codes.name(code)} last" if code else ""
        raise unavailable(TpmCause.TIMEOUT, f"{command.code.title} was not done in time{said}")

    def _discard(self, handle: int) -> None:
        """Flush on the way out of a failure, which is what is to be reported, and not this."""
        try:
            self.flush(handle)
        except (TpmRefusedError, TpmUnavailableError) as error:
            _log.warning("tpm_flush_failed", handle=f"0x{handle:08x}", reason=str(error))


def _nothing(_answer: Answer) -> None:
    """The reader of an answer without parameters."""


def _read_handles(cursor: Cursor) -> list[int]:
    count = fields.u32(cursor, "number of handles")
    if count > _HANDLES_AT_ONCE:
        raise cursor.fail(f"{count} handles, at most {_HANDLES_AT_ONCE} were asked for", back=4)
    return [fields.u32(cursor, "handle") for _ in range(count)]


def _read_properties(cursor: Cursor) -> list[tuple[int, int]]:
    count = fields.u32(cursor, "number of properties")
    if count > _PROPERTIES_AT_ONCE:
        raise cursor.fail(f"{count} properties, at most {_PROPERTIES_AT_ONCE}", back=4)
    return [(fields.u32(cursor, "property"), fields.u32(cursor, "value")) for _ in range(count)]
