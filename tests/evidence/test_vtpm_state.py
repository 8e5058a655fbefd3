"""What a TPM says about its endorsement hierarchy: by the book, and by a software TPM."""

import contextlib
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.evidence.vtpm_state import VtpmState, ask_vtpm_state, read_vtpm_state

# TPM2_GetCapability(TPM_CAP_TPM_PROPERTIES, TPM_PT_PERMANENT, 2), as Part 3 lays it out.
COMMAND = bytes.fromhex("8001000000160000017a000000060000020000000002")
HIERARCHY_CHANGE_AUTH = 0x129
HIERARCHY_CONTROL = 0x121
RH_ENDORSEMENT = 0x4000000B
RH_PLATFORM = 0x4000000C


def answer(permanent: int, startup_clear: int, count: int = 2, first: int = 0x200) -> bytes:
    body = struct.pack(">BIIIIII", 0, 6, count, first, permanent, 0x201, startup_clear)
    return struct.pack(">HII", 0x8001, 10 + len(body), 0) + body


def ask(response: bytes) -> VtpmState | None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.send(response)
        state = ask_vtpm_state(ours.fileno())
        assert theirs.recv(100) == COMMAND
    return state


@pytest.mark.parametrize(
    ("response", "state"),
    [
        (answer(0, 0xF), VtpmState(started=True)),
        (answer(1 << 1, 0xF), VtpmState(started=True, endorsement_authorized=True)),
        (answer(0b101, 0xF), VtpmState(started=True)),  # owner and lockout have passwords: not our concern
        (answer(0, 0b1011), VtpmState(started=True, endorsement_enabled=False)),
        (bytes.fromhex("80010000000a00000100"), VtpmState(started=False)),
        (bytes.fromhex("80010000000a00000101"), None),  # failure mode
        (bytes.fromhex("80020000000a00000100"), None),
        (bytes.fromhex("80010000000b00000100"), None),
        (answer(0, 0xF)[:-1], None),
        (answer(0, 0xF) + b"\0", None),
        (answer(0, 0xF, count=1), None),
        (bytes.fromhex("80010000001b00000000 00 00000006 00000001 00000200 00000000"), None),
        (answer(0, 0xF, first=0x201), None),
        (b"\x80\x01", None),
    ],
)
def test_responses(response: bytes, state: VtpmState | None) -> None:
    assert ask(response) == state


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    assert read_vtpm_state(tmp_path / "tpmrm0") is None


def test_a_device_that_answers_nothing() -> None:
    assert read_vtpm_state(Path("/dev/null")) is None


def test_a_device_that_refuses_the_command() -> None:
    assert read_vtpm_state(Path("/dev/full")) is None


@contextlib.contextmanager
def swtpm(folder: Path, flags: str) -> Iterator[socket.socket]:
    if shutil.which("swtpm") is None:
        pytest.skip("no swtpm")
    ours, theirs = socket.socketpair()
    control, control_theirs = socket.socketpair()
    with ours, theirs, control, control_theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 10, 0))
        tpm = subprocess.Popen(
            [
                *("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder}", "--fd", str(theirs.fileno())),
                *("--ctrl", f"type=unixio,clientfd={control_theirs.fileno()}", "--flags", flags),
            ],
            pass_fds=(theirs.fileno(), control_theirs.fileno()),
        )
        try:
            yield ours
        finally:
            tpm.kill()
            tpm.wait()


def command(tpm: socket.socket, code: int, handle: int, parameters: bytes) -> None:
    """A command of one handle that is authorized with the empty password."""
    session = struct.pack(">IHBH", 0x40000009, 0, 0, 0)
    body = struct.pack(">II", handle, len(session)) + session + parameters
    tpm.send(struct.pack(">HII", 0x8002, 10 + len(body), code) + body)
    assert tpm.recv(4096)[6:10] == bytes(4)


def test_a_software_tpm(tmp_path: Path) -> None:
    with swtpm(tmp_path, "not-need-init,startup-clear") as tpm:
        assert ask_vtpm_state(tpm.fileno()) == VtpmState(started=True)
        command(tpm, HIERARCHY_CHANGE_AUTH, RH_ENDORSEMENT, struct.pack(">H4s", 4, b"word"))
        assert ask_vtpm_state(tpm.fileno()) == VtpmState(started=True, endorsement_authorized=True)
        command(tpm, HIERARCHY_CONTROL, RH_PLATFORM, struct.pack(">IB", RH_ENDORSEMENT, 0))
        assert ask_vtpm_state(tpm.fileno()) == VtpmState(
            started=True, endorsement_enabled=False, endorsement_authorized=True
        )


def test_a_software_tpm_that_nobody_started(tmp_path: Path) -> None:
    with swtpm(tmp_path, "not-need-init") as tpm:
        assert ask_vtpm_state(tpm.fileno()) == VtpmState(started=False)
