"""Commands against bytes that were observed on a TPM, and answers that are none."""

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import TpmRefusedError, WireError
from app.tpm import handles
from app.tpm.client import Tpm
from app.tpm.command import Command, CommandCode, answer_size, parse_answer, return_code
from app.wire.tpm.credential import CredentialBlob, IdObject
from app.wire.tpm.duplicate import ImportBlob, encode_public
from app.wire.tpm.pcr import PcrSelection
from app.wire.tpm.template import creation_template
from tests.tpm.peer import ACKNOWLEDGED, SESSIONS, answer, authorized, scripted

REFUSAL = answer(code=0x101)
EK, AK, SESSION = 0x80000001, 0x80000000, 0x03000000

# What COCONUT-SVSM makes its EK with: header, hierarchy, password session, empty sensitive area;
# the TCG's template L-1, whose `unique` is 256 zero bytes; no outsideInfo, no PCRs.
CREATE_RSA_EK = (
    bytes.fromhex("8002 00000163 00000131 4000000b 00000009 40000009 0000 01 0000 0004 0000 0000 013a")
    + bytes.fromhex(
        "0001 000b 000300b2 0020 837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa"
    )
    + bytes.fromhex("0006 0080 0043 0010 0800 00000000 0100")
    + bytes(256)
    + bytes.fromhex("0000 00000000")
)
# L-2: 163 bytes.
CREATE_P256_EK = (
    bytes.fromhex("8002 000000a3 00000131 4000000b 00000009 40000009 0000 01 0000 0004 0000 0000 007a")
    + bytes.fromhex(
        "0023 000b 000300b2 0020 837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa"
    )
    + bytes.fromhex("0006 0080 0043 0010 0003 0010")
    + 2 * (bytes.fromhex("0020") + bytes(32))
    + bytes.fromhex("0000 00000000")
)
CHALLENGE = CredentialBlob(IdObject(bytes(32), bytes(34)), b"\x01" * 256)
IMPORT = ImportBlob(encode_public(bytes(32)), bytes.fromhex("0020") + bytes(106), b"\x02" * 256)


def sent(ask: Callable[[Tpm], object]) -> str:
    """The command that is sent, in hexadecimal."""
    with scripted(REFUSAL) as (channel, peer):
        with pytest.raises(TpmRefusedError, match="answered 0x101 TPM_RC_FAILURE"):
            ask(Tpm(channel, timeout_s=10))
        (command,) = peer.commands
    assert len(command) == int.from_bytes(command[2:6], "big")
    return command.hex()


def test_the_command_that_coconut_makes_its_ek_with() -> None:
    command = sent(lambda tpm: tpm.create_primary(handles.ENDORSEMENT, creation_template("L-1")))
    assert len(CREATE_RSA_EK) == 355
    assert command == CREATE_RSA_EK.hex()


def test_the_same_for_p256() -> None:
    command = sent(lambda tpm: tpm.create_primary(handles.ENDORSEMENT, creation_template("L-2")))
    assert len(CREATE_P256_EK) == 163
    assert command == CREATE_P256_EK.hex()


@pytest.mark.parametrize(
    ("ask", "command"),
    [
        (lambda tpm: tpm.startup(), "8001 0000000c 00000144 0000"),
        (lambda tpm: tpm.flush(AK), "8001 0000000e 00000165 80000000"),
        (lambda tpm: tpm.read_public(AK), "8001 0000000e 00000173 80000000"),
        (lambda tpm: tpm.context_save(AK), "8001 0000000e 00000162 80000000"),
        (
            lambda tpm: tpm.context_load(bytes(16) + bytes.fromhex("0001 aa")),
            f"8001 0000001d 00000161 {bytes(16).hex()} 0001 aa",
        ),
        (
            lambda tpm: tpm.policy_secret(SESSION, handles.ENDORSEMENT),
            "8002 00000029 00000151 4000000b 03000000 00000009 40000009 0000 01 0000 0000 0000 0000 00000000",
        ),
        (
            lambda tpm: tpm.activate_credential(AK, EK, SESSION, CHALLENGE),
            (
                "8002 00000170 00000147 80000000 80000001 00000012 40000009 0000 01 0000"
                " 03000000 0000 01 0000"
                f" 0044 0020 {bytes(66).hex()} 0100 {'01' * 256}"
            ),
        ),
        (
            lambda tpm: tpm.activate_credential(AK, EK, None, CHALLENGE),
            (
                "8002 00000170 00000147 80000000 80000001 00000012 40000009 0000 01 0000"
                " 40000009 0000 01 0000"
                f" 0044 0020 {bytes(66).hex()} 0100 {'01' * 256}"
            ),
        ),
        (
            lambda tpm: tpm.import_object(EK, SESSION, IMPORT),
            (
                "8002 000001c1 00000156 80000001 00000009 03000000 0000 01 0000 0000"
                f" 0030 0008 000b 00050440 0000 0005 000b 0020 {bytes(32).hex()}"
                f" 006c 0020 {bytes(106).hex()} 0100 {'02' * 256} 0010"
            ),
        ),
        (
            lambda tpm: tpm.load(EK, SESSION, b"private", b"public", b"name"),
            (
                f"8002 0000002c 00000157 80000001 00000009 03000000 0000 01 0000"
                f" 0007 {b'private'.hex()} 0006 {b'public'.hex()}"
            ),
        ),
        (
            lambda tpm: tpm.certify(AK, EK),
            (
                "8002 0000002c 00000148 80000000 80000001 00000012 40000009 0000 01 0000"
                " 40000009 0000 01 0000"
                " 0000 0010"
            ),
        ),
        (
            lambda tpm: tpm.quote(AK, b"\xab" * 32, PcrSelection.of({"sha256": range(24)})),
            (
                f"8002 00000049 00000158 80000000 00000009 40000009 0000 01 0000 0020 {'ab' * 32} 0010"
                " 00000001 000b 03 ffffff"
            ),
        ),
        (
            lambda tpm: tpm.pcr_read(PcrSelection.of({"sha256": [0, 7], "sha384": [23]})),
            "8001 00000014 0000017e 00000001 000b 03 810000",
        ),
        (
            lambda tpm: tpm.pcr_extend(16, {0x0B: bytes(32), 0x0C: b"\xff" * 48}),
            (
                f"8002 00000073 00000182 00000010 00000009 40000009 0000 01 0000"
                f" 00000002 000b {bytes(32).hex()} 000c {'ff' * 48}"
            ),
        ),
        (
            lambda tpm: tpm.nv_define(0x01C00002, 700),
            (
                "8002 0000002d 0000012a 40000001 00000009 40000009 0000 01 0000"
                " 0000 000e 01c00002 000b 02060002 0000 02bc"
            ),
        ),
        (
            lambda tpm: tpm.nv_undefine(0x01C00002),
            "8002 0000001f 00000122 40000001 01c00002 00000009 40000009 0000 01 0000",
        ),
        (lambda tpm: tpm.nv_read_public(0x01C00002), "8001 0000000e 00000169 01c00002"),
        (
            lambda tpm: tpm.nv_write(0x01C00002, b"abc"),
            "8002 00000026 00000137 40000001 01c00002 00000009 40000009 0000 01 0000 0003 616263 0000",
        ),
        (lambda tpm: tpm.handles(handles.TRANSIENT), "8001 00000016 0000017a 00000001 80000000 00000040"),
        (lambda tpm: tpm.properties(0x105), "8001 00000016 0000017a 00000006 00000105 00000001"),
        (lambda tpm: tpm.pcr_banks(), "8001 00000016 0000017a 00000005 00000000 00000001"),
    ],
)
def test_commands(ask: Callable[[Tpm], object], command: str) -> None:
    assert sent(ask) == command.replace(" ", "")


def test_a_session_is_started_with_a_fresh_nonce_each_time() -> None:
    def start(tpm: Tpm) -> None:
        with tpm.policy_session(0x0C):
            pass

    first, second = sent(start), sent(start)
    head, tail = "80010000002b00000176" + "40000007" * 2 + "0010", "0000" + "01" + "0010" + "000c"
    for command in (first, second):
        assert command.startswith(head)
        assert command.endswith(tail)
    assert first != second


@pytest.mark.parametrize(
    ("code", "title"),
    [
        (CommandCode.CREATE_PRIMARY, "TPM2_CreatePrimary"),
        (CommandCode.START_AUTH_SESSION, "TPM2_StartAuthSession"),
        (CommandCode.NV_UNDEFINE_SPACE, "TPM2_NV_UndefineSpace"),
        (CommandCode.PCR_READ, "TPM2_PCR_Read"),
    ],
)
def test_what_commands_are_called(code: CommandCode, title: str) -> None:
    assert code.title == title


def test_codes_and_titles_of_the_tss() -> None:
    tss = pytest.importorskip("tpm2_pytss", reason="tpm2-pytss is not installed")
    for code in CommandCode:
        assert getattr(tss.TPM2_CC, code.title.removeprefix("TPM2_")) == code


def test_a_command_that_no_tpm_takes() -> None:
    most = Command(CommandCode.NV_WRITE, parameters=bytes(4096 - 10)).encode()
    assert len(most) == 4096
    with pytest.raises(WireError, match="TPM2_NV_Write at 0x1000: a command of 4097 bytes, at most 4096"):
        Command(CommandCode.NV_WRITE, parameters=bytes(4096 - 9)).encode()


BARE = Command(CommandCode.PCR_READ)
AUTHORIZED = Command(CommandCode.QUOTE, (AK,), (handles.PASSWORD,))
LOAD = Command(CommandCode.LOAD, (EK,), (SESSION,), returns=handles.TRANSIENT)
NONCE = bytes.fromhex("0010") + bytes(16)


def test_an_answer_without_sessions() -> None:
    parsed = parse_answer(BARE, answer(b"parameters"))
    assert parsed.handle == 0
    assert parsed.parameters.offset == 10
    assert parsed.parameters.take(10, "all") == b"parameters"
    parsed.parameters.end()


def test_an_answer_with_a_handle_and_a_session() -> None:
    area = NONCE + b"\x01" + bytes(2)
    raw = answer(bytes.fromhex("80ffffff 00000002 abcd") + area, tag=SESSIONS)
    parsed = parse_answer(LOAD, raw)
    assert parsed.handle == 0x80FFFFFF
    assert parsed.parameters.offset == 18
    assert parsed.parameters.take(2, "all") == b"\xab\xcd"
    parsed.parameters.end()


@pytest.mark.parametrize(
    ("command", "raw", "offset", "reason"),
    [
        (BARE, b"", 0, "tag needs 2 bytes, 0 left"),
        (BARE, answer()[:9], 2, "says 10 bytes, has 9"),
        (BARE, answer() + b"\0", 2, "says 10 bytes, has 11"),
        (BARE, answer(tag=0xC4), 0, "tag 0x00c4 is not that of an answer"),
        (BARE, answer(tag=SESSIONS), 0, "tag 0x8002, the command had 0x8001"),
        (AUTHORIZED, answer(), 0, "tag 0x8001, the command had 0x8002"),
        (BARE, answer(code=0x101, tag=SESSIONS), 0, "a return code under the tag of an answer with sessions"),
        (BARE, answer(b"more", code=0x101), 10, "4 bytes follow the end of the structure"),
        (AUTHORIZED, answer(tag=SESSIONS), 10, "parameter size needs 4 bytes, 0 left"),
        (
            AUTHORIZED,
            answer(b"\0\0\0\x06" + ACKNOWLEDGED, tag=SESSIONS),
            14,
            "parameters needs 6 bytes, 5 left",
        ),
        (AUTHORIZED, authorized(sessions=2), 19, "5 bytes follow the end of the structure"),
        (AUTHORIZED, authorized(sessions=0), 14, "nonceTPM size needs 2 bytes, 0 left"),
        (AUTHORIZED, answer(bytes(4) + NONCE + b"\x01" + bytes(2), tag=SESSIONS), 16, "a nonce of 16 bytes"),
        (AUTHORIZED, answer(bytes(4) + bytes(5), tag=SESSIONS), 16, "session attributes 0x00, want 0x01"),
        (
            AUTHORIZED,
            answer(bytes(4) + bytes.fromhex("0000 81 0000"), tag=SESSIONS),
            16,
            "session attributes 0x81, want 0x01",
        ),
        (
            AUTHORIZED,
            answer(bytes(4) + bytes.fromhex("0000 01 0001 aa"), tag=SESSIONS),
            19,
            "an HMAC of 1 bytes, and no session key",
        ),
        (LOAD, answer(tag=SESSIONS), 10, "handle needs 4 bytes, 0 left"),
        (LOAD, authorized(handle=0x81000000), 10, "handle 0x81000000 is not of kind 0x80000000"),
        (
            LOAD,
            answer(
                bytes.fromhex("80000000 00000000 0041") + bytes(65) + bytes.fromhex("01 0000"), tag=SESSIONS
            ),
            20,
            "a nonce of 65 bytes",
        ),
    ],
)
def test_what_is_no_answer(command: Command, raw: bytes, offset: int, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        parse_answer(command, raw)
    assert (caught.value.structure, caught.value.offset, caught.value.reason) == (
        "TPM answer",
        offset,
        reason,
    )


def test_a_refusal_is_named() -> None:
    with pytest.raises(TpmRefusedError) as caught:
        parse_answer(AUTHORIZED, answer(code=0x9A2))
    assert str(caught.value) == "TPM2_Quote answered 0x9a2 TPM_RC_BAD_AUTH (session 1)"
    assert caught.value.code == 0x9A2


@pytest.mark.parametrize("size", [0, 9, 4097, 0xFFFFFFFF])
def test_sizes_that_no_answer_has(size: int) -> None:
    with pytest.raises(WireError, match=f"TPM answer at 0x2: {size} bytes announced, want 10 to 4096"):
        answer_size(b"\x80\x01" + size.to_bytes(4, "big") + bytes(4))


@given(raw=st.binary(max_size=80), command=st.sampled_from([BARE, AUTHORIZED, LOAD]))
def test_arbitrary_bytes_raise_only_wire_error(raw: bytes, command: Command) -> None:
    with contextlib.suppress(WireError):
        return_code(raw)
    with contextlib.suppress(WireError, TpmRefusedError):
        parse_answer(command, raw)


@given(body=st.binary(max_size=80), command=st.sampled_from([AUTHORIZED, LOAD]))
def test_arbitrary_bodies_raise_only_wire_error(body: bytes, command: Command) -> None:
    with contextlib.suppress(WireError):
        parse_answer(command, answer(body, tag=SESSIONS))
