"""Commands as bytes, and answers as what they hold. Pure: no TPM is needed.

Source: TCG TPM 2.0 Library, Part 1, 18 (command and response structure) and 19.2 (authorization
area); Part 2, TPM_CC (6.5.2) and TPM_ST (6.9).
"""

from dataclasses import dataclass
from enum import IntEnum

from app.errors import TpmRefusedError, WireError
from app.tpm import codes
from app.tpm.handles import PASSWORD, kind
from app.wire.cursor import Cursor
from app.wire.tpm import fields

MAX_SIZE = 4096  # of a command and of an answer; Linux's TPM_BUFSIZE. COCONUT-SVSM's TPM takes 3968
HEADER_SIZE = 10  # tag u16, size u32, code u32
STRUCTURE = "TPM answer"
NO_SESSIONS = 0x8001
SESSIONS = 0x8002
CONTINUE_SESSION = 0x01
MAX_DIGEST = 64  # SHA-512; no nonce is longer either


class CommandCode(IntEnum):
    """TPM_CC of the commands that are sent."""

    NV_UNDEFINE_SPACE = 0x122
    NV_DEFINE_SPACE = 0x12A
    CREATE_PRIMARY = 0x131
    NV_WRITE = 0x137
    STARTUP = 0x144
    ACTIVATE_CREDENTIAL = 0x147
    CERTIFY = 0x148
    NV_READ = 0x14E
    POLICY_SECRET = 0x151
    IMPORT = 0x156
    LOAD = 0x157
    QUOTE = 0x158
    CONTEXT_LOAD = 0x161
    CONTEXT_SAVE = 0x162
    FLUSH_CONTEXT = 0x165
    NV_READ_PUBLIC = 0x169
    READ_PUBLIC = 0x173
    START_AUTH_SESSION = 0x176
    GET_CAPABILITY = 0x17A
    PCR_READ = 0x17E
    PCR_EXTEND = 0x182

    @property
    def title(self) -> str:
        """What the TCG calls it, such as TPM2_CreatePrimary."""
        return _TITLES.get(self) or "TPM2_" + self.name.title().replace("_", "")


_TITLES = {
    CommandCode.NV_UNDEFINE_SPACE: "TPM2_NV_UndefineSpace",
    CommandCode.NV_DEFINE_SPACE: "TPM2_NV_DefineSpace",
    CommandCode.NV_WRITE: "TPM2_NV_Write",
    CommandCode.NV_READ: "TPM2_NV_Read",
    CommandCode.NV_READ_PUBLIC: "TPM2_NV_ReadPublic",
    CommandCode.PCR_READ: "TPM2_PCR_Read",
    CommandCode.PCR_EXTEND: "TPM2_PCR_Extend",
}


@dataclass(frozen=True, slots=True)
class Command:
    """A command before it is bytes.

    `authorizations` are session handles, one for each of the first handles; PASSWORD stands for the
    empty password. `returns` is the kind of the handle that the answer carries, if it carries one.
    """

    code: CommandCode
    handles: tuple[int, ...] = ()
    authorizations: tuple[int, ...] = ()
    parameters: bytes = b""
    returns: int | None = None

    @property
    def tag(self) -> int:
        """TPM_ST: with or without an authorization area."""
        return SESSIONS if self.authorizations else NO_SESSIONS

    def encode(self) -> bytes:
        """The command as it is sent: 10 to 4096 bytes.

        Raises:
            WireError: it would be longer.
        """
        body = b"".join(_u32(handle) for handle in self.handles)
        if self.authorizations:
            area = b"".join(_authorization(session) for session in self.authorizations)
            body += _u32(len(area)) + area
        body += self.parameters
        size = HEADER_SIZE + len(body)
        if size > MAX_SIZE:
            raise WireError(self.code.title, MAX_SIZE, f"a command of {size} bytes, at most {MAX_SIZE}")
        return fields.p16(self.tag) + _u32(size) + _u32(self.code) + body


@dataclass(frozen=True, slots=True)
class Answer:
    """What a TPM answered: a handle where the command returns one, and the parameters, unread."""

    handle: int
    parameters: Cursor  # counts offsets from the start of the answer


def answer_size(header: bytes) -> int:
    """The size that an answer's first 10 bytes announce.

    Raises:
        WireError: fewer than a header has, or more than 4096.
    """
    size = int.from_bytes(header[2:6], "big")
    if not HEADER_SIZE <= size <= MAX_SIZE:
        raise WireError(STRUCTURE, 2, f"{size} bytes announced, want {HEADER_SIZE} to {MAX_SIZE}")
    return size


def return_code(raw: bytes) -> int:
    """The return code of an answer that fills `raw`.

    Raises:
        WireError: shorter than a header, not as long as it says, or a code other than success
            with anything after it.
    """
    cursor = Cursor(STRUCTURE, raw)
    tag = fields.u16(cursor, "tag")
    if tag not in (NO_SESSIONS, SESSIONS):
        raise cursor.fail(f"tag 0x{tag:04x} is not that of an answer", back=2)
    size = fields.u32(cursor, "size")
    if size != len(raw):
        raise cursor.fail(f"says {size} bytes, has {len(raw)}", back=4)
    code = fields.u32(cursor, "return code")
    if code != codes.SUCCESS:
        if tag != NO_SESSIONS:
            raise WireError(STRUCTURE, 0, "a return code under the tag of an answer with sessions")
        cursor.end()
    return code


def parse_answer(command: Command, raw: bytes) -> Answer:
    """Read the answer to `command` that fills `raw`, up to its parameters.

    Raises:
        TpmRefusedError: a return code other than success.
        WireError: not an answer to this command: another tag, a handle of another kind, a parameter
            size that does not fit, an authorization area that does not answer the command's.
    """
    code = return_code(raw)
    if code != codes.SUCCESS:
        raise TpmRefusedError(command.code.title, code, codes.name(code))
    cursor = Cursor(STRUCTURE, raw)
    header = cursor.take(HEADER_SIZE, "header")
    if int.from_bytes(header[:2], "big") != command.tag:
        raise WireError(STRUCTURE, 0, f"tag 0x{header[:2].hex()}, the command had 0x{command.tag:04x}")
    handle = 0
    if command.returns is not None:
        handle = fields.u32(cursor, "handle")
        if kind(handle) != command.returns:
            raise cursor.fail(f"handle 0x{handle:08x} is not of kind 0x{command.returns:08x}", back=4)
    size = fields.u32(cursor, "parameter size") if command.authorizations else cursor.remaining
    start = cursor.offset
    parameters = Cursor(STRUCTURE, cursor.take(size, "parameters"), base=start)
    for session in command.authorizations:
        _check_authorization(cursor, session)
    cursor.end()
    return Answer(handle, parameters)


def read_ticket(cursor: Cursor, tag: int) -> None:
    """Read a ticket of the kind `tag`: tag, hierarchy and a digest, which may be empty.

    Raises:
        WireError: another tag, or a digest larger than any.
    """
    found = fields.u16(cursor, "ticket tag")
    if found != tag:
        raise cursor.fail(f"ticket tag 0x{found:04x}, want 0x{tag:04x}", back=2)
    fields.u32(cursor, "ticket hierarchy")
    bounded(cursor, "ticket digest", MAX_DIGEST)


def bounded(cursor: Cursor, what: str, most: int, least: int = 0) -> bytes:
    """A sized byte string of `least` to `most` bytes.

    Raises:
        WireError: another size.
    """
    value = fields.tpm2b(cursor, what)
    if not least <= len(value) <= most:
        raise cursor.fail(f"{what} has {len(value)} bytes, want {least} to {most}", back=len(value))
    return value


def _authorization(session: int) -> bytes:
    # TPMS_AUTH_COMMAND: no nonce, and neither HMAC nor password: policies are satisfied without them
    return _u32(session) + fields.to_tpm2b(b"") + bytes([CONTINUE_SESSION]) + fields.to_tpm2b(b"")


def _check_authorization(cursor: Cursor, session: int) -> None:
    nonce = fields.tpm2b(cursor, "nonceTPM")
    if len(nonce) > (0 if session == PASSWORD else MAX_DIGEST):
        raise cursor.fail(f"a nonce of {len(nonce)} bytes", back=len(nonce))
    attributes = cursor.integer(1, "session attributes")
    if attributes != CONTINUE_SESSION:
        raise cursor.fail(f"session attributes 0x{attributes:02x}, want 0x{CONTINUE_SESSION:02x}", back=1)
    hmac = fields.tpm2b(cursor, "acknowledgment")
    if hmac:
        raise cursor.fail(f"an HMAC of {len(hmac)} bytes, and no session key", back=len(hmac))


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "big")
