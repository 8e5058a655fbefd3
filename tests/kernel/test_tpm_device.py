"""The kernel's two TPM devices: /dev/tpm0, which is one user's, and /dev/tpmrm0, which keeps users apart."""

import contextlib
import errno
import multiprocessing
import os
import select
import signal
import struct
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from app.errors import TpmRefusedError, TpmUnavailableError
from app.evidence.vtpm.ak_kind import AkKind
from app.evidence.vtpm_state import read_vtpm_state
from app.tpm import codes, handles
from app.tpm.causes import TpmCause
from app.tpm.client import Tpm
from app.tpm.transport import DeviceTransport
from tests.evidence.replay.bench import NOBODY
from tests.kernel.tpm_devices import BARE, CREATE_EK, MANAGED, TIMEOUT_S, Host, loaded, tpm

BOTH = pytest.mark.parametrize("device", [BARE, MANAGED], ids=str)
SLOTS = 3  # for loaded objects

# TPM2_GetCapability: one property, the manufacturer.
COMMAND = struct.pack(">HIIIII", 0x8001, 22, 0x17A, 6, 0x105, 1)


@contextlib.contextmanager
def opened(device: Path, flags: int = os.O_NONBLOCK) -> Iterator[int]:
    descriptor = os.open(device, os.O_RDWR | flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def wait(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    assert poll.poll(TIMEOUT_S * 1000)


def leak(device: Path) -> int:
    """A key that is loaded when its user goes away."""
    with tpm(device) as client:
        return client.create_primary(handles.ENDORSEMENT, AkKind.P256.template).handle


@pytest.fixture(autouse=True)
def _nothing_is_left(tpm_hardware: None) -> Iterator[None]:
    del tpm_hardware
    yield
    with tpm(BARE) as client:
        client.flush_all()
    assert loaded() == ()


@BOTH
def test_it_answers(device: Path) -> None:
    with tpm(device) as client:
        assert client.properties(0x105)
    state = read_vtpm_state(device)
    assert state is not None
    assert state.started


def test_one_user_keeps_all_others_from_the_bare_device() -> None:
    with tpm(BARE), pytest.raises(TpmUnavailableError) as caught:
        DeviceTransport(BARE)
    assert (caught.value.cause, caught.value.errno) == (TpmCause.IN_USE, errno.EBUSY)
    assert "/dev/tpmrm0" in caught.value.remedy
    DeviceTransport(BARE).close()  # it is free again


def test_the_managed_device_takes_many_users() -> None:
    with tpm(MANAGED) as one, tpm(MANAGED) as other:
        keys = [user.create_primary(handles.ENDORSEMENT, AkKind.P256.template) for user in (one, other)]
        assert keys[0].name == keys[1].name
        for user, key in zip((one, other), keys, strict=True):
            assert user.read_public(key.handle).name == keys[0].name
            user.flush(key.handle)


def test_handles_are_the_tpms_own_or_virtual() -> None:
    assert leak(BARE) == 0x80000000
    assert leak(MANAGED) >= 0x80FFFF00


def test_what_was_loaded_through_the_managed_device_goes_with_its_user() -> None:
    for _ in range(2 * SLOTS):
        leak(MANAGED)
    assert loaded() == ()


def test_what_was_loaded_through_the_bare_device_stays_until_it_is_full() -> None:
    for number in range(SLOTS):
        leak(BARE)
        assert len(loaded()) == number + 1
    with pytest.raises(TpmRefusedError) as caught:
        leak(BARE)
    assert caught.value.code == codes.OBJECT_MEMORY == 0x902


@BOTH
def test_an_answer_must_be_read_before_the_next_command(device: Path) -> None:
    with opened(device) as descriptor:
        os.write(descriptor, COMMAND)
        wait(descriptor)
        with pytest.raises(OSError) as caught:  # noqa: PT011 (its errno is looked at)
            os.write(descriptor, COMMAND)
        assert caught.value.errno == errno.EBUSY
        assert os.read(descriptor, 4096)[6:10] == bytes(4)
        os.write(descriptor, COMMAND)
        wait(descriptor)
        assert os.read(descriptor, 4096)[6:10] == bytes(4)


@BOTH
@pytest.mark.parametrize("command", [COMMAND[:-1], COMMAND[:6], COMMAND[:2] + b"\0\0\0\x17" + COMMAND[6:]])
def test_a_write_is_one_whole_command(device: Path, command: bytes) -> None:
    with opened(device) as descriptor:
        with pytest.raises(OSError) as caught:  # noqa: PT011 (its errno is looked at)
            os.write(descriptor, command)
        assert caught.value.errno == errno.EINVAL


@BOTH
def test_a_short_read_leaves_the_rest_for_the_next(device: Path) -> None:
    with opened(device) as descriptor:
        os.write(descriptor, COMMAND)
        wait(descriptor)
        whole = os.read(descriptor, 4096)
        os.write(descriptor, COMMAND)
        wait(descriptor)
        parts = os.read(descriptor, 10), os.read(descriptor, 4096)
    assert len(parts[0]) == 10
    assert b"".join(parts) == whole


def test_a_command_that_the_tpm_does_not_know_spoils_nothing() -> None:
    unknown = struct.pack(">HII", 0x8001, 10, 0x1FF)
    with contextlib.closing(DeviceTransport(MANAGED)) as channel:
        assert channel.exchange(unknown, timeout_s=TIMEOUT_S)[6:10] != bytes(4)
        assert Tpm(channel, timeout_s=TIMEOUT_S).properties(0x105)


@BOTH
def test_only_root_may_use_them(device: Path) -> None:
    os.seteuid(NOBODY)
    try:
        with pytest.raises(TpmUnavailableError) as caught:
            DeviceTransport(device)
    finally:
        os.seteuid(0)
    assert (caught.value.cause, caught.value.errno) == (TpmCause.PERMISSION_DENIED, errno.EACCES)


def hold(device: Path, sent: Connection) -> None:
    """Have the TPM make a key, and wait for it."""
    with opened(device) as descriptor:
        os.write(descriptor, CREATE_EK)
        sent.send(None)
        wait(descriptor)


@pytest.mark.parametrize(("device", "left"), [(MANAGED, 0), (BARE, 1)], ids=str)
def test_a_user_that_is_killed_in_mid_command(device: Path, left: int) -> None:
    sent, its_sent = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=hold, args=(device, its_sent))
    with Host().frozen():
        process.start()
        assert sent.poll(TIMEOUT_S)
        process.kill()
        process.join(0.5)
        assert process.exitcode is None  # the kernel lets it go only when the TPM is done
    process.join(TIMEOUT_S)
    assert process.exitcode == -signal.SIGKILL
    assert len(loaded()) == left
    with tpm(device) as client:
        client.flush(client.create_primary(handles.ENDORSEMENT, AkKind.RSA2048.template).handle)


def test_what_is_no_device() -> None:
    for path, cause in ((Path("/dev/tpm7"), TpmCause.MISSING), (Path("/etc/passwd"), TpmCause.MISSING)):
        with pytest.raises(TpmUnavailableError) as caught:
            DeviceTransport(path)
        # /etc is read-only here, which opening for writing meets first
        assert caught.value.cause == cause or caught.value.errno == errno.EROFS
