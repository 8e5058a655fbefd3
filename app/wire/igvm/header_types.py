"""The kinds of variable headers, the section that each belongs to, and the size of each.

Source: IGVM specification (igvm_defs 0.5.0), IgvmVariableHeaderType.
"""

from enum import Enum, IntEnum

OPTIONAL = 1 << 31  # of a type: a loader that does not know it may pass over it
PREFIX_SIZE = 8  # u32 type, u32 length of what follows


class HeaderType(IntEnum):
    """Every type that has a meaning."""

    SUPPORTED_PLATFORM = 0x1
    GUEST_POLICY = 0x101
    RELOCATABLE_REGION = 0x102
    PAGE_TABLE_RELOCATION = 0x103
    CORIM_DOCUMENT = 0x104
    CORIM_SIGNATURE = 0x105
    CCA_POLICY = 0x106
    VERSION_STRING = 0x107
    PARAMETER_AREA = 0x301
    PAGE_DATA = 0x302
    PARAMETER_INSERT = 0x303
    VP_CONTEXT = 0x304
    REQUIRED_MEMORY = 0x305
    VP_COUNT = 0x307
    SRAT = 0x308
    MADT = 0x309
    MMIO_RANGES = 0x30A
    SNP_ID_BLOCK = 0x30B
    MEMORY_MAP = 0x30C
    ERROR_RANGE = 0x30D
    COMMAND_LINE = 0x30E
    SLIT = 0x30F
    PPTT = 0x310
    VBS_MEASUREMENT = 0x311
    DEVICE_TREE = 0x312
    ENVIRONMENT_INFO = 0x313


class Section(Enum):
    """The three parts of the variable headers, in order, with the types that may stand there."""

    PLATFORM = range(0x1, 0x101)
    INITIALIZATION = range(0x101, 0x201)
    DIRECTIVE = range(0x301, 0x401)

    @classmethod
    def of(cls, number: int) -> "Section | None":
        """Where a type belongs, known or not; None for a number that is no type."""
        return next((section for section in cls if number & ~OPTIONAL in section.value), None)

    def follows(self, other: "Section") -> bool:
        """May a header of this section come after one of the other?"""
        return self.value.start >= other.value.start


# What the loader writes into a parameter area when it starts the VM. Nothing of it is measured.
PARAMETERS = frozenset(
    {
        HeaderType.VP_COUNT,
        HeaderType.SRAT,
        HeaderType.MADT,
        HeaderType.MMIO_RANGES,
        HeaderType.MEMORY_MAP,
        HeaderType.COMMAND_LINE,
        HeaderType.SLIT,
        HeaderType.PPTT,
        HeaderType.DEVICE_TREE,
        HeaderType.ENVIRONMENT_INFO,
    }
)

# Bytes behind the prefix. A version string is as long as it says.
SIZES: dict[HeaderType, int] = {
    HeaderType.SUPPORTED_PLATFORM: 16,
    HeaderType.GUEST_POLICY: 16,
    HeaderType.RELOCATABLE_REGION: 48,
    HeaderType.PAGE_TABLE_RELOCATION: 32,
    HeaderType.CORIM_DOCUMENT: 16,
    HeaderType.CORIM_SIGNATURE: 16,
    HeaderType.CCA_POLICY: 32,
    HeaderType.PARAMETER_AREA: 16,
    HeaderType.PAGE_DATA: 24,
    HeaderType.PARAMETER_INSERT: 16,
    HeaderType.VP_CONTEXT: 20,
    HeaderType.REQUIRED_MEMORY: 24,
    HeaderType.SNP_ID_BLOCK: 696,
    HeaderType.ERROR_RANGE: 16,
    HeaderType.VBS_MEASUREMENT: 864,
} | dict.fromkeys(PARAMETERS, 8)
