"""GUEST_POLICY and PLATFORM_INFO: the two bit fields of a report that a policy speaks about.

Source: AMD 56860 (SEV-SNP Firmware ABI), guest policy and PLATFORM_INFO. A GUEST_POLICY bit
is the guest owner's demand, so a reserved one must be zero; PLATFORM_INFO is what the
platform says of itself, and real parts set bits that no public table names: they are kept.
"""

from dataclasses import dataclass
from typing import Self

from app.errors import WireError

POLICY_STRUCTURE = "GUEST_POLICY"
PLATFORM_STRUCTURE = "PLATFORM_INFO"

_U64_END = 1 << 64
_POLICY_MBO = 17
_POLICY_BITS = {
    "smt": 16,
    "migrate_ma": 18,
    "debug": 19,
    "single_socket": 20,
    "cxl": 21,
    "mem_aes_256_xts": 22,
    "rapl_dis": 23,
    "ciphertext_hiding": 24,
    "page_swap_disable": 25,
}
_POLICY_RESERVED_FROM = 26
_PLATFORM_BITS = {
    "smt": 0,
    "tsme": 1,
    "ecc": 2,
    "rapl_disabled": 3,
    "ciphertext_hiding": 4,
    "alias_check_complete": 5,
    "tio": 7,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestPolicy:
    """What the guest owner allows the platform to do, or demands of it (64 bits)."""

    abi_major: int  # least firmware ABI
    abi_minor: int
    smt: bool  # allowed
    migrate_ma: bool  # allowed
    debug: bool  # allowed: the host may read the guest's memory
    single_socket: bool  # demanded
    cxl: bool  # allowed
    mem_aes_256_xts: bool  # demanded
    rapl_dis: bool  # demanded
    ciphertext_hiding: bool  # demanded
    page_swap_disable: bool  # demanded

    @classmethod
    def parse(cls, value: int, *, offset: int = 0) -> Self:
        """Read the integer; `offset` is where it stands, for errors.

        Raises:
            WireError: bit 17 is not one, or a reserved bit is not zero.
        """
        if not value >> _POLICY_MBO & 1:
            raise WireError(POLICY_STRUCTURE, offset, f"reserved bit {_POLICY_MBO} must be one (0x{value:x})")
        if value >> _POLICY_RESERVED_FROM:
            raise WireError(
                POLICY_STRUCTURE, offset, f"bits from {_POLICY_RESERVED_FROM} must be zero (0x{value:x})"
            )
        flags = {name: bool(value >> bit & 1) for name, bit in _POLICY_BITS.items()}
        return cls(abi_minor=value & 0xFF, abi_major=value >> 8 & 0xFF, **flags)

    def encode(self) -> int:
        """The 64-bit integer, the reserved bit 17 set.

        Raises:
            WireError: an ABI number does not fit one byte.
        """
        if not (0 <= self.abi_major <= 0xFF and 0 <= self.abi_minor <= 0xFF):  # noqa: PLR2004 (one byte)
            raise WireError(
                POLICY_STRUCTURE, 0, f"ABI {self.abi_major}.{self.abi_minor} does not fit two bytes"
            )
        value = self.abi_minor | self.abi_major << 8 | 1 << _POLICY_MBO
        return value | sum(1 << bit for name, bit in _POLICY_BITS.items() if getattr(self, name))


@dataclass(frozen=True, slots=True)
class PlatformInfo:
    """What the platform says of itself (64 bits); unnamed bits stay visible in `raw`."""

    raw: int

    @classmethod
    def parse(cls, value: int) -> Self:
        """Keep the integer as it is: no bit is refused.

        Raises:
            WireError: the value does not fit 64 bits.
        """
        if not 0 <= value < _U64_END:
            raise WireError(PLATFORM_STRUCTURE, 0, "does not fit 64 bits")
        return cls(value)

    def encode(self) -> int:
        """The integer."""
        return self.raw

    def flags(self) -> dict[str, bool]:
        """Every named bit and whether it is set."""
        return {name: bool(self.raw >> bit & 1) for name, bit in _PLATFORM_BITS.items()}

    @property
    def unknown_bits(self) -> tuple[int, ...]:
        """Numbers of the set bits that have no name here."""
        named = set(_PLATFORM_BITS.values())
        return tuple(bit for bit in range(64) if self.raw >> bit & 1 and bit not in named)
