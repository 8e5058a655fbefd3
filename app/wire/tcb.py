"""TCB_VERSION: the security version numbers inside an SNP report.

Source: AMD 56860 (SEV-SNP Firmware ABI), TCB_VERSION; the layout changed with Turin.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Self

from app.errors import WireError

SIZE = 8
STRUCTURE = "TCB_VERSION"


class TcbLayout(Enum):
    """Component of each byte, in order; None is reserved and must be zero."""

    PRE_TURIN = ("bootloader", "tee", None, None, None, None, "snp", "microcode")
    TURIN = ("fmc", "bootloader", "tee", "snp", None, None, None, "microcode")


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbVersion:
    """Security version numbers, each 0..255, which compare one by one and never as a single number."""

    bootloader: int
    tee: int
    snp: int
    microcode: int
    fmc: int | None = None  # None before Turin: absent is not zero

    @classmethod
    def parse(cls, raw: bytes, layout: TcbLayout) -> Self:
        """Read the 8 bytes of a TCB_VERSION.

        Raises:
            WireError: wrong length, or a reserved byte that is not zero.
        """
        if len(raw) != SIZE:
            raise WireError(STRUCTURE, 0, f"{len(raw)} bytes, want {SIZE}")
        parts: dict[str, int] = {}
        for offset, (name, byte) in enumerate(zip(layout.value, raw, strict=True)):
            if name is not None:
                parts[name] = byte
            elif byte:
                raise WireError(STRUCTURE, offset, "reserved byte is not zero")
        return cls(**parts)

    def encode(self, layout: TcbLayout) -> bytes:
        """The inverse of `parse`; an fmc that the layout cannot hold is an error.

        Raises:
            WireError: a component is outside 0..255, or fmc does not fit the layout.
        """
        if (self.fmc is not None) != (layout is TcbLayout.TURIN):
            raise WireError(STRUCTURE, 0, "fmc is present exactly in the Turin layout")
        components = self.components()
        for name, value in components.items():
            if not 0 <= value <= 0xFF:  # noqa: PLR2004 (one byte)
                raise WireError(STRUCTURE, 0, f"{name} {value} does not fit one byte")
        return bytes(0 if name is None else components[name] for name in layout.value)

    def components(self) -> dict[str, int]:
        """Name and number of each component that this product line has, fmc first."""
        parts = {"bootloader": self.bootloader, "tee": self.tee, "snp": self.snp, "microcode": self.microcode}
        return parts if self.fmc is None else {"fmc": self.fmc, **parts}

    def covers(self, other: "TcbVersion") -> bool:
        """Is every component at least `other`'s? A missing fmc counts as zero."""
        mine = self.components()
        return all(mine.get(name, 0) >= value for name, value in other.components().items())

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.components().items())
