"""The VMSA: the state that a processor of a confidential VM starts in, one page.

Only what says how the VM starts is named here; the digest is over the page as it is.
Source: AMD 24593 (APM volume 2), appendix B, table B-4 (save area of SEV-ES and SEV-SNP guests).
"""

from dataclasses import dataclass
from typing import Self

from app.errors import WireError

STRUCTURE = "VMSA"
SIZE = 4096

_NUMBERS = {
    "vmpl": (0xCA, 1),
    "efer": (0xD0, 8),
    "cr4": (0x148, 8),
    "cr3": (0x150, 8),
    "cr0": (0x158, 8),
    "rflags": (0x170, 8),
    "rip": (0x178, 8),
    "rsp": (0x1D8, 8),
    "sev_features": (0x3B0, 8),
    "virtual_tom": (0x3C8, 8),
    "xcr0": (0x3E8, 8),
}
_FEATURES = {
    0: "SNPActive",
    1: "vTOM",
    2: "ReflectVC",
    3: "RestrictedInjection",
    4: "AlternateInjection",
    5: "DebugSwap",
    6: "PreventHostIBS",
    7: "BTBIsolation",
    8: "VmplSSS",
    9: "SecureTSC",
    14: "VmsaRegProt",
    15: "SmtProtection",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Vmsa:
    """The named fields of a VMSA."""

    vmpl: int
    efer: int
    cr4: int
    cr3: int
    cr0: int
    rflags: int
    rip: int
    rsp: int
    sev_features: int
    virtual_tom: int
    xcr0: int

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read a page.

        Raises:
            WireError: not 4096 bytes.
        """
        if len(raw) != SIZE:
            raise WireError(STRUCTURE, 0, f"{len(raw)} bytes, want {SIZE}")
        return cls(
            **{
                name: int.from_bytes(raw[start : start + size], "little")
                for name, (start, size) in _NUMBERS.items()
            }
        )

    @property
    def features(self) -> tuple[str, ...]:
        """The set bits of SEV_FEATURES, by name where they have one."""
        set_bits = (bit for bit in range(64) if self.sev_features >> bit & 1)
        return tuple(_FEATURES.get(bit, f"bit {bit}") for bit in set_bits)
