"""Registers: of a software TPM, beside tpm2-tools, and of TPMs that answer oddly."""

import contextlib
import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from app.errors import TpmUnavailableError
from app.tpm import handles
from app.tpm.causes import TpmCause
from app.tpm.client import Tpm
from app.tpm.transport import SocketTransport
from app.wire.tpm import algorithms as alg
from app.wire.tpm.pcr import PcrSelection
from tests.interop.software_tpm import software_tpm
from tests.tpm.live import PCR_ALLOCATE, LiveTpm, refuses, tell
from tests.tpm.peer import Canned, answer, playing, scripted

ALL = PcrSelection.of({"sha256": range(24)})
ONES = {17, 18, 19, 20, 21, 22}  # start at all ones: TCG PC Client Platform TPM Profile, 4.6


@pytest.mark.parametrize("banks", [["sha256"], ["sha256", "sha384"], ["sha512", "sha256", "sha384"]])
def test_all_registers(tpm: LiveTpm, banks: list[str]) -> None:
    values = tpm.pcr_read(PcrSelection.of({bank: range(24) for bank in banks}))
    assert list(values.names()) == banks
    for bank, registers in values.names().items():
        size = hashlib.new(bank).digest_size
        assert registers == {pcr: (b"\xff" if pcr in ONES else b"\0") * size for pcr in range(24)}


def test_extending(tpm: LiveTpm) -> None:
    tpm.pcr_extend(16, {alg.SHA256: b"a" * 32, alg.SHA384: b"b" * 48})
    values = tpm.pcr_read(PcrSelection.of({"sha256": [16], "sha384": [15, 16]}))
    assert values.get(alg.SHA256, 16) == hashlib.sha256(bytes(32) + b"a" * 32).digest()
    assert values.get(alg.SHA384, 16) == hashlib.sha384(bytes(48) + b"b" * 48).digest()
    assert values.get(alg.SHA384, 15) == bytes(48)


def test_banks(tpm: LiveTpm) -> None:
    every = tuple(range(24))
    assert tpm.pcr_banks() == {alg.SHA1: every, alg.SHA256: every, alg.SHA384: every, alg.SHA512: every}


def test_a_register_that_is_none(tpm: LiveTpm) -> None:
    with refuses(0x184, "TPM2_PCR_Extend answered 0x184 TPM_RC_VALUE (handle 1)"):
        tpm.pcr_extend(24, {alg.SHA256: bytes(32)})


def test_beside_tpm2_pcrread(tmp_path: Path) -> None:
    with software_tpm(tmp_path) as tools:
        tools.run("tpm2_pcrextend", f"7:sha256={'07' * 32},sha384={'38' * 48}")
        printed = yaml.safe_load(tools.run("tpm2_pcrread", "sha256:all+sha384:all"))
        both = PcrSelection.of({"sha256": range(24), "sha384": range(24)})
        with contextlib.closing(SocketTransport.tcp("127.0.0.1", tools.port)) as channel:
            values = Tpm(channel, timeout_s=30).pcr_read(both)
    for bank, registers in values.names().items():
        size = hashlib.new(bank).digest_size
        assert registers == {pcr: int(value).to_bytes(size, "big") for pcr, value in printed[bank].items()}


# Answers that a TPM may give, and others


def selection(*banks: tuple[int, int]) -> bytes:
    listed = b"".join(struct.pack(">HB", bank, 3) + bits.to_bytes(3, "little") for bank, bits in banks)
    return struct.pack(">I", len(banks)) + listed


def read_answer(moment: int, chosen: bytes, *digests: bytes) -> bytes:
    sized = b"".join(struct.pack(">H", len(digest)) + digest for digest in digests)
    return answer(struct.pack(">I", moment) + chosen + struct.pack(">I", len(digests)) + sized)


def one(pcr: int, moment: int = 5) -> bytes:
    return read_answer(moment, selection((alg.SHA256, 1 << pcr)), bytes([pcr]) * 32)


TWO = PcrSelection.of({"sha256": [1, 2]})


def test_a_tpm_that_gives_one_register_at_a_time() -> None:
    with scripted(one(1), one(2)) as (channel, peer):
        values = Tpm(channel, timeout_s=10).pcr_read(TWO)
        assert values.names() == {"sha256": {1: b"\x01" * 32, 2: b"\x02" * 32}}
        assert [command[-3:].hex() for command in peer.commands] == ["060000", "040000"]


def test_registers_that_change_between_two_answers_are_read_again() -> None:
    replies = [one(1), one(2, moment=6), one(1, moment=6), one(2, moment=6)]
    with scripted(*replies) as (channel, peer):
        values = Tpm(channel, timeout_s=10).pcr_read(TWO)
        assert values.names() == {"sha256": {1: b"\x01" * 32, 2: b"\x02" * 32}}
        assert len(peer.commands) == 4


def test_registers_that_change_all_the_time() -> None:
    def replies() -> Iterator[bytes]:
        moment = 0
        while True:
            yield one(1, moment)
            yield one(2, moment + 1)
            moment += 2

    with playing(replies()) as (channel, peer), pytest.raises(TpmUnavailableError) as caught:
        Tpm(channel, timeout_s=10).pcr_read(TWO)
    assert caught.value.cause == TpmCause.UNSETTLED
    assert len(peer.commands) == 16


@pytest.mark.parametrize("chosen", [b"\0\0\0\0", bytes.fromhex("00000001 000b 03 000000")])
def test_registers_that_are_left_out(chosen: bytes) -> None:
    with pytest.raises(TpmUnavailableError) as caught:
        Tpm(Canned(read_answer(5, chosen)), timeout_s=10).pcr_read(TWO)
    assert caught.value.cause == TpmCause.BANK_MISSING
    assert caught.value.reason == "the TPM has no sha256 register 1, 2"


def test_a_bank_that_is_not_allocated(tpm: LiveTpm) -> None:
    banks = ((alg.SHA1, 0), (alg.SHA256, 0xFFFFFF), (alg.SHA384, 0), (alg.SHA512, 0))
    tell(tpm.channel, PCR_ALLOCATE, handles.PLATFORM, selection(*banks))
    tpm.peer.reboot()
    tpm.startup()
    assert tpm.pcr_banks() == {alg.SHA256: tuple(range(24))}
    assert tpm.pcr_read(ALL).selection == ALL
    with pytest.raises(TpmUnavailableError) as caught:
        tpm.pcr_read(PcrSelection.of({"sha256": [0], "sha384": [0, 7]}))
    assert caught.value.cause == TpmCause.BANK_MISSING
    assert caught.value.reason == "the TPM has no sha384 register 0, 7"


D = bytes(32)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (read_answer(5, selection((alg.SHA256, 0b1000)), D), "registers that were not asked for"),
        (read_answer(5, selection((alg.SHA256, 0b1110)), D, D, D), "registers that were not asked for"),
        (read_answer(5, selection((alg.SHA384, 0b10)), bytes(48)), "registers that were not asked for"),
        (
            read_answer(5, selection((alg.SHA256, 0b10), (alg.SHA384, 0)), D),
            "registers that were not asked for",
        ),
        (read_answer(5, selection((alg.SHA256, 0b110)), D), "1 digests for 2 registers"),
        (read_answer(5, selection((alg.SHA256, 0b10)), D, D), "2 digests for 1 registers"),
        (read_answer(5, selection((alg.SHA256, 0b10)), bytes(20)), "a digest of 20 bytes, want 32"),
        (read_answer(5, selection((alg.SHA256, 0b10)), bytes(33)), "a digest of 33 bytes, want 32"),
        (read_answer(5, selection((alg.SHA256, 0b10), (alg.SHA256, 0)), D), "bank 0x000b is named twice"),
        (read_answer(5, struct.pack(">I", 17)), "17 banks, at most 16"),
        (
            read_answer(5, struct.pack(">IHB", 1, alg.SHA256, 4) + bytes(4)),
            "bitmap of 4 bytes, at most 3",
        ),
        (answer(bytes(3)), "pcrUpdateCounter needs 4 bytes, 3 left"),
        (one(1)[:10], "says 62 bytes, has 10"),
        (answer(one(1)[10:] + b"\0"), "1 bytes follow the end of the structure"),
    ],
)
def test_answers_that_are_none(raw: bytes, reason: str) -> None:
    tpm = Tpm(Canned(raw), timeout_s=10)
    with pytest.raises(TpmUnavailableError) as caught:
        tpm.pcr_read(TWO)
    assert caught.value.cause == TpmCause.MALFORMED_ANSWER
    assert caught.value.reason.startswith("TPM2_PCR_Read: TPM answer at 0x")
    assert caught.value.reason.endswith(reason)


def test_banks_that_a_tpm_may_list() -> None:
    listed = answer(
        b"\0" + struct.pack(">I", 5) + selection((alg.SHA1, 0), (alg.SHA256, 0xFFFFFF), (0x12, 1))
    )
    assert Tpm(Canned(listed), timeout_s=10).pcr_banks() == {alg.SHA256: tuple(range(24)), 0x12: (0,)}
