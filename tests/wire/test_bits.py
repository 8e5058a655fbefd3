import dataclasses

import pytest

from app.errors import WireError
from app.wire.bits import GuestPolicy, PlatformInfo

# AMD 56860, guest policy
POLICY_BITS = {
    16: "smt",
    18: "migrate_ma",
    19: "debug",
    20: "single_socket",
    21: "cxl",
    22: "mem_aes_256_xts",
    23: "rapl_dis",
    24: "ciphertext_hiding",
    25: "page_swap_disable",
}


def flags(policy: GuestPolicy) -> set[str]:
    return {name for name, value in dataclasses.asdict(policy).items() if value is True}


@pytest.mark.parametrize(
    ("value", "abi", "names"),
    [
        (0x20000, (0, 0), set()),
        (0x30000, (0, 0), {"smt"}),  # QEMU's default
        (0x3001F, (0, 31), {"smt"}),  # Azure
        (0xB0000, (0, 0), {"smt", "debug"}),
        (0x0133_0137, (1, 0x37), {"smt", "single_socket", "cxl", "ciphertext_hiding"}),
        (0x2FFFF, (255, 255), set()),
    ],
)
def test_policies_in_use(value: int, abi: tuple[int, int], names: set[str]) -> None:
    policy = GuestPolicy.parse(value)
    assert (policy.abi_major, policy.abi_minor) == abi
    assert flags(policy) == names
    assert policy.encode() == value


@pytest.mark.parametrize(("bit", "name"), POLICY_BITS.items())
def test_each_policy_bit_is_one_flag(bit: int, name: str) -> None:
    policy = GuestPolicy.parse(1 << 17 | 1 << bit)
    assert flags(policy) == {name}
    assert policy.encode() == 1 << 17 | 1 << bit


def test_policy_bit_17_must_be_one() -> None:
    with pytest.raises(
        WireError, match=r"^GUEST_POLICY at 0x8: reserved bit 17 must be one \(0x10000\)$"
    ) as caught:
        GuestPolicy.parse(0x10000, offset=8)
    assert caught.value.structure == "GUEST_POLICY"
    with pytest.raises(WireError, match=r"^GUEST_POLICY at 0x0: "):
        GuestPolicy.parse(0)


@pytest.mark.parametrize("value", [1 << 17 | 1 << bit for bit in range(26, 65)] + [-1])
def test_policy_bits_from_26_must_be_zero(value: int) -> None:
    with pytest.raises(WireError, match=r"^GUEST_POLICY at 0x8: bits from 26 must be zero"):
        GuestPolicy.parse(value, offset=8)


@pytest.mark.parametrize(("major", "minor"), [(256, 0), (-1, 0), (0, 256), (0, -1)])
def test_an_abi_number_may_not_spill_into_its_neighbours(major: int, minor: int) -> None:
    policy = dataclasses.replace(GuestPolicy.parse(0x30000), abi_major=major, abi_minor=minor)
    with pytest.raises(WireError, match=r"^GUEST_POLICY at 0x0: ABI .* does not fit two bytes$"):
        policy.encode()


@pytest.mark.parametrize(
    ("value", "names", "unknown"),
    [
        (0x0, set(), ()),
        (0x1, {"smt"}, ()),
        (0x25, {"smt", "ecc", "alias_check_complete"}, ()),
        (0x67, {"smt", "tsme", "ecc", "alias_check_complete"}, (6,)),  # a real Turin part
        (0x98, {"rapl_disabled", "ciphertext_hiding", "tio"}, ()),
        (1 << 63 | 1 << 8, set(), (8, 63)),
    ],
)
def test_platform_info_keeps_every_bit(value: int, names: set[str], unknown: tuple[int, ...]) -> None:
    info = PlatformInfo.parse(value)
    assert {name for name, is_set in info.flags().items() if is_set} == names
    assert info.unknown_bits == unknown
    assert info.encode() == info.raw == value


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_platform_info_has_64_bits(value: int) -> None:
    with pytest.raises(WireError, match=r"^PLATFORM_INFO at 0x0: does not fit 64 bits$"):
        PlatformInfo.parse(value)
