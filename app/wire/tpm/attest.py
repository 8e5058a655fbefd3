"""TPMS_ATTEST: what a TPM signs when it quotes its PCRs or certifies a key.

The magic number tells a statement of the TPM from data that somebody had signed: a restricted key
signs nothing else that starts with it.
Source: TCG TPM 2.0 Library, Part 2, TPMS_ATTEST (10.12.12) and TPMS_CLOCK_INFO (10.11.1).
"""

from dataclasses import dataclass
from typing import Self

from app.wire.cursor import Cursor
from app.wire.tpm import fields
from app.wire.tpm.pcr import PcrSelection

STRUCTURE = "TPMS_ATTEST"
MAGIC = 0xFF544347  # TPM_GENERATED_VALUE
TYPE_OFFSET = 4  # after the magic number
ATTEST_CERTIFY = 0x8017
ATTEST_QUOTE = 0x8018
MAX_EXTRA_DATA = 66  # sizeof(TPMT_HA) with SHA-512


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockInfo:
    """The TPM's clock, and how often it was reset (boot) and restarted (resume).

    The counters are obfuscated unless the signing key is in the endorsement or platform hierarchy.
    """

    clock_ms: int  # 64 bit
    reset_count: int  # 32 bit
    restart_count: int  # 32 bit
    safe: bool  # no lower clock value was ever reported

    @classmethod
    def read(cls, cursor: Cursor) -> Self:
        """Read 17 bytes.

        Raises:
            WireError: `safe` is neither 0 nor 1.
        """
        clock_ms = fields.u64(cursor, "clock")
        reset_count = fields.u32(cursor, "resetCount")
        restart_count = fields.u32(cursor, "restartCount")
        safe = cursor.integer(1, "safe")
        if safe > 1:
            raise cursor.fail(f"safe is {safe}, want 0 or 1", back=1)
        return cls(clock_ms=clock_ms, reset_count=reset_count, restart_count=restart_count, safe=safe == 1)

    def encode(self) -> bytes:
        """The inverse of `read`."""
        return b"".join(
            (
                self.clock_ms.to_bytes(8, "big"),
                self.reset_count.to_bytes(4, "big"),
                self.restart_count.to_bytes(4, "big"),
                self.safe.to_bytes(1, "big"),
            )
        )


@dataclass(frozen=True, slots=True)
class QuoteInfo:
    """TPMS_QUOTE_INFO: which registers were quoted, and the digest of their values."""

    selection: PcrSelection
    pcr_digest: bytes  # 32, 48 or 64, by the hash of the signing scheme

    type = ATTEST_QUOTE

    @classmethod
    def read(cls, cursor: Cursor) -> Self:
        """Read selection and digest.

        Raises:
            WireError: as PcrSelection.read, or a digest that has the size of no known hash.
        """
        return cls(PcrSelection.read(cursor), fields.digest(cursor, "pcrDigest"))

    def encode(self) -> bytes:
        """The inverse of `read`."""
        return self.selection.encode() + fields.to_tpm2b(self.pcr_digest)


@dataclass(frozen=True, slots=True)
class CertifyInfo:
    """TPMS_CERTIFY_INFO: Name and qualified Name of the certified object."""

    name: bytes  # 34, 50 or 66
    qualified_name: bytes  # 34, 50 or 66: also covers the chain of parents

    type = ATTEST_CERTIFY

    @classmethod
    def read(cls, cursor: Cursor) -> Self:
        """Read both Names.

        Raises:
            WireError: one of them is not the Name of an object.
        """
        return cls(fields.name(cursor, "name"), fields.name(cursor, "qualifiedName"))

    def encode(self) -> bytes:
        """The inverse of `read`."""
        return fields.to_tpm2b(self.name) + fields.to_tpm2b(self.qualified_name)


_ATTESTED: dict[int, type[QuoteInfo] | type[CertifyInfo]] = {
    one.type: one for one in (QuoteInfo, CertifyInfo)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attest:
    """A TPM's statement: about its PCRs, or about a key."""

    qualified_signer: bytes  # qualified Name of the signing key, which is not its Name
    extra_data: bytes  # qualifyingData of the command, at most 66
    clock: ClockInfo
    firmware_version: int  # 64 bit; obfuscated like the counters
    attested: QuoteInfo | CertifyInfo

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read a TPMS_ATTEST that fills `raw` (145 bytes for a SHA-256 quote over one bank).

        Raises:
            WireError: not made by a TPM (another magic number), neither a quote nor a certification,
                a field out of its bounds, left-over bytes.
        """
        cursor = Cursor(STRUCTURE, raw)
        magic = fields.u32(cursor, "magic")
        if magic != MAGIC:
            raise cursor.fail(f"magic 0x{magic:08x} is not 0x{MAGIC:08x}: not made by a TPM", back=4)
        kind = fields.u16(cursor, "type")
        if kind not in _ATTESTED:
            raise cursor.fail(f"type 0x{kind:04x} is neither a quote nor a certification", back=2)
        qualified_signer = fields.name(cursor, "qualifiedSigner")
        extra_data = fields.tpm2b(cursor, "extraData")
        if len(extra_data) > MAX_EXTRA_DATA:
            raise cursor.fail(
                f"extraData has {len(extra_data)} bytes, at most {MAX_EXTRA_DATA}", back=len(extra_data)
            )
        attest = cls(
            qualified_signer=qualified_signer,
            extra_data=extra_data,
            clock=ClockInfo.read(cursor),
            firmware_version=fields.u64(cursor, "firmwareVersion"),
            attested=_ATTESTED[kind].read(cursor),
        )
        cursor.end()
        return attest

    def encode(self) -> bytes:
        """The inverse of `parse`."""
        return b"".join(
            (
                MAGIC.to_bytes(4, "big"),
                fields.p16(self.attested.type),
                fields.to_tpm2b(self.qualified_signer),
                fields.to_tpm2b(self.extra_data),
                self.clock.encode(),
                self.firmware_version.to_bytes(8, "big"),
                self.attested.encode(),
            )
        )
