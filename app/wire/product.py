"""Product lines: AMD's certificate families, told from the CPUID fields of a report.

Source: AMD 57230 (VCEK certificate and KDS interface); the model ranges are those of AMD's
family 19h and 1Ah parts. Bergamo and Siena are certified under Genoa.
"""

from dataclasses import dataclass
from enum import StrEnum

from app.wire.tcb import TcbLayout


class ProductLine(StrEnum):
    """A certificate family; the value is AMD's spelling in names and KDS paths."""

    MILAN = "Milan"
    GENOA = "Genoa"
    TURIN = "Turin"

    @property
    def tcb_layout(self) -> TcbLayout:
        """How the 8 bytes of a TCB_VERSION are to be read."""
        return TcbLayout.TURIN if self is ProductLine.TURIN else TcbLayout.PRE_TURIN

    @property
    def hwid_size(self) -> int:
        """Significant bytes of CHIP_ID, which is also the size of the VCEK's HWID."""
        return 8 if self is ProductLine.TURIN else 64


# (family, first model, last model) -> line; both models included
_MODELS: tuple[tuple[int, int, int, ProductLine], ...] = (
    (0x19, 0x00, 0x0F, ProductLine.MILAN),
    (0x19, 0x10, 0x1F, ProductLine.GENOA),
    (0x19, 0xA0, 0xAF, ProductLine.GENOA),
    (0x1A, 0x00, 0x11, ProductLine.TURIN),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpuid:
    """Combined family, combined model and stepping, one byte each (report version 3 and later)."""

    family: int
    model: int
    stepping: int

    @property
    def product_line(self) -> ProductLine | None:
        """The line of this part, or None for a part that no published chain certifies."""
        for family, first, last, line in _MODELS:
            if self.family == family and first <= self.model <= last:
                return line
        return None

    def __str__(self) -> str:
        return f"{self.family:02x}/{self.model:02x}/{self.stepping:02x}"
