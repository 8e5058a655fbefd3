import pytest

from app.errors import WireError
from app.wire.tpm.attest import Attest, CertifyInfo, ClockInfo, QuoteInfo
from app.wire.tpm.pcr import PcrBank, PcrSelection, PcrValues
from app.wire.tpm.public import TpmtPublic
from tests.wire.samples import SWTPM_EK, patched, sized
from tests.wire.tpm.statements import (
    CERTIFY,
    LARGEST_QUOTE,
    LONG_NAME,
    NAME,
    QUOTE,
    QUOTE_AK,
    QUOTE_NONCE,
    QUOTE_PCRS,
    statement,
)

STATEMENTS = {"quote": QUOTE, "certify": CERTIFY, "largest": LARGEST_QUOTE}


def refusal(raw: bytes) -> tuple[int, str]:
    with pytest.raises(WireError) as caught:
        Attest.parse(raw)
    assert caught.value.structure == "TPMS_ATTEST"
    return caught.value.offset, caught.value.reason


def test_a_quote_of_a_software_tpm() -> None:
    attest = Attest.parse(QUOTE)
    assert attest.qualified_signer.hex() == (
        "000b6852c7a060dd572ab0ebfc9bda17630493796aa01465e085225f8ff5678551f6"
    )
    assert attest.extra_data == QUOTE_NONCE
    assert attest.clock == ClockInfo(clock_ms=0x1CBA3C, reset_count=1, restart_count=0, safe=True)
    assert attest.firmware_version == 0x2019102300163636
    assert isinstance(attest.attested, QuoteInfo)
    assert attest.attested.selection == PcrSelection((PcrBank(0x000B, (0, 1, 2, 7, 16)),))
    assert attest.encode() == QUOTE


def test_the_signer_is_a_child_of_the_ek_which_is_a_primary_key() -> None:
    ek = TpmtPublic.parse(SWTPM_EK).qualified_name(bytes.fromhex("4000000b"))
    ak = TpmtPublic.parse(QUOTE_AK)
    assert ak.qualified_name(ek) == Attest.parse(QUOTE).qualified_signer
    assert ak.qualified_name(bytes.fromhex("4000000b")) != Attest.parse(QUOTE).qualified_signer


def test_the_quoted_digest_is_that_of_the_registers() -> None:
    quoted = Attest.parse(QUOTE).attested
    assert isinstance(quoted, QuoteInfo)
    values = PcrValues.of({"sha256": QUOTE_PCRS})
    assert values.selection == quoted.selection
    assert values.digest(0x000B) == quoted.pcr_digest


def test_a_certification() -> None:
    attest = Attest.parse(CERTIFY)
    assert attest.attested == CertifyInfo(NAME, LONG_NAME)
    assert attest.extra_data == bytes(66)
    assert attest.clock == ClockInfo(clock_ms=258, reset_count=3, restart_count=4, safe=True)
    assert attest.encode() == CERTIFY


def test_the_largest_quote() -> None:
    attest = Attest.parse(LARGEST_QUOTE)
    assert isinstance(attest.attested, QuoteInfo)
    assert attest.attested.selection.names() == {"sha256": [*range(24)], "sha512": [7], "sha384": [16]}
    assert attest.encode() == LARGEST_QUOTE


# magic 0, type 4, qualifiedSigner size 6, name 8, extraData size 42, extraData 44, clock 60,
# resetCount 68, restartCount 72, safe 76, firmwareVersion 77, banks 85, bank 89, bitmap size 91,
# bitmap 92, pcrDigest size 95, pcrDigest 97.
QUOTE_FAULTS = [
    ((0, "ff544346"), 0, "magic 0xff544346 is not 0xff544347: not made by a TPM"),
    ((0, "474354ff"), 0, "magic 0x474354ff is not 0xff544347: not made by a TPM"),
    ((4, "801a"), 4, "type 0x801a is neither a quote nor a certification"),  # creation
    ((4, "8014"), 4, "type 0x8014 is neither a quote nor a certification"),  # NV
    ((4, "8017"), 87, "name is not the Name of an object"),
    ((8, "0004"), 8, "qualifiedSigner is not the Name of an object"),  # SHA-1
    ((8, "000c"), 8, "qualifiedSigner is not the Name of an object"),  # SHA-384, but 32 bytes
    ((6, "0000"), 8, "qualifiedSigner is not the Name of an object"),
    ((6, "0004"), 8, "qualifiedSigner is not the Name of an object"),  # a handle
    ((6, "ffff"), 8, "qualifiedSigner needs 65535 bytes, 121 left"),
    ((42, "0043"), 44, "extraData has 67 bytes, at most 66"),
    ((42, "ffff"), 44, "extraData needs 65535 bytes, 85 left"),
    ((76, "02"), 76, "safe is 2, want 0 or 1"),
    ((85, "00000000"), 85, "0 banks, want 1 to 3"),
    ((85, "00000004"), 85, "4 banks, want 1 to 3"),
    ((85, "ffffffff"), 85, "4294967295 banks, want 1 to 3"),
    ((89, "0004"), 89, "the SHA-1 bank is not accepted"),
    ((89, "0012"), 89, "bank 0x0012 is not SHA-256, SHA-384 or SHA-512"),  # SM3
    ((91, "04"), 91, "bitmap of 4 bytes, want 3"),
    ((92, "000000"), 92, "bank sha256 selects nothing"),
    ((95, "0014"), 97, "pcrDigest has 20 bytes, want 32, 48 or 64"),
    ((95, "0000"), 97, "pcrDigest has 0 bytes, want 32, 48 or 64"),
    ((95, "0030"), 97, "pcrDigest needs 48 bytes, 32 left"),
]


@pytest.mark.parametrize(("change", "offset", "reason"), QUOTE_FAULTS, ids=lambda value: str(value)[:24])
def test_quote_rules(change: tuple[int, str], offset: int, reason: str) -> None:
    assert refusal(patched(QUOTE, change)) == (offset, reason)


@pytest.mark.parametrize(
    ("name", "qualified_name", "offset", "reason"),
    [
        (b"", NAME, 71, "name is not the Name of an object"),
        (NAME[:-1], NAME, 71, "name is not the Name of an object"),
        (NAME, bytes(34), 107, "qualifiedName is not the Name of an object"),
        (NAME, LONG_NAME + b"\0", 107, "qualifiedName is not the Name of an object"),
    ],
)
def test_certification_rules(name: bytes, qualified_name: bytes, offset: int, reason: str) -> None:
    assert refusal(statement("8017", sized(name) + sized(qualified_name))) == (offset, reason)


@pytest.mark.parametrize("safe", [False, True])
def test_a_clock_that_may_have_gone_back(safe: bool) -> None:  # noqa: FBT001 (a case, not a switch)
    raw = patched(QUOTE, (76, bytes([safe])))
    assert Attest.parse(raw).clock.safe is safe
    assert Attest.parse(raw).encode() == raw


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_truncation_and_any_extension_is_refused(name: str) -> None:
    raw = STATEMENTS[name]
    for size in range(len(raw)):
        offset, _ = refusal(raw[:size])
        assert offset <= size
    assert refusal(raw + b"\0") == (len(raw), "1 bytes follow the end of the structure")
