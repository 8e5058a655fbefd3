"""ATTESTATION_REPORT, versions 2 to 5.

Always 1184 bytes, little-endian, of which the first 672 are signed.
Source: AMD 56860 (SEV-SNP Firmware ABI), ATTESTATION_REPORT.
"""

from dataclasses import dataclass, field
from typing import Self

from app.errors import UnsupportedVersionError, WireError
from app.wire.bits import GuestPolicy, PlatformInfo
from app.wire.cursor import Cursor
from app.wire.product import Cpuid
from app.wire.tcb import SIZE as TCB_SIZE

STRUCTURE = "ATTESTATION_REPORT"
REPORT_SIZE = 0x4A0
SIGNED_SIZE = 0x2A0
SUPPORTED_VERSIONS = (2, 3, 4, 5)  # 4 has no public field list and is read like 3
CPUID_SINCE = 3
MITIGATION_SINCE = 5
ECDSA_P384_SHA384 = 1
VMPL_HOST = 0xFFFFFFFF  # the host, not the guest, asked for the report
SIGNING_KEY_VCEK = 0
SIGNING_KEY_VLEK = 1
SIGNING_KEY_NONE = 7

REPORT_DATA_SIZE = 64
CHIP_ID_SIZE = 64
_INTEGER_SIZE = 72  # each of R and S
_SIGNATURE_RESERVED = REPORT_SIZE - SIGNED_SIZE - 2 * _INTEGER_SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInfo:
    """KEY_INFO (offset 0x48): who signed, and whose digests the report carries."""

    author_key_en: bool
    mask_chip_key: bool
    signing_key: int  # 0 VCEK, 1 VLEK, 2..6 reserved, 7 none; judged by the appraisal, not here

    @classmethod
    def parse(cls, value: int, *, offset: int = 0) -> Self:
        """Read the 32-bit integer.

        Raises:
            WireError: one of bits 5..31 is not zero.
        """
        if value >> 5:
            raise WireError(STRUCTURE, offset, f"KEY_INFO bits 5..31 must be zero (0x{value:x})")
        return cls(
            author_key_en=bool(value & 1), mask_chip_key=bool(value >> 1 & 1), signing_key=value >> 2 & 7
        )

    def encode(self) -> int:
        """The 32-bit integer.

        Raises:
            WireError: SIGNING_KEY does not fit three bits.
        """
        if self.signing_key >> 3:
            raise WireError(STRUCTURE, 0x48, f"SIGNING_KEY {self.signing_key} does not fit 3 bits")
        return self.author_key_en | self.mask_chip_key << 1 | self.signing_key << 2


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class FirmwareVersion:
    """Version of the security processor's firmware, one byte each; ordered major, minor, build."""

    major: int
    minor: int
    build: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.build}"

    @classmethod
    def read(cls, cursor: Cursor, what: str) -> Self:
        """Read build, minor, major and the reserved byte after them (4 bytes)."""
        build, minor, major = cursor.take(3, what)
        cursor.zeros(1, f"byte after {what}")
        return cls(major=major, minor=minor, build=build)

    def encode(self) -> bytes:
        """The 4 bytes: build, minor, major, reserved.

        Raises:
            WireError: a number does not fit one byte.
        """
        parts = (self.build, self.minor, self.major, 0)
        return b"".join(_integer(part, 1, "firmware version") for part in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """ECDSA R and S as the report stores them: 72-byte little-endian integers.

    A value beyond the P-384 range is kept: the signature check judges it.
    """

    r: int
    s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationReport:
    """Every field of a report. TCBs stay raw: only the product line tells their layout."""

    version: int
    guest_svn: int
    policy: GuestPolicy
    family_id: bytes
    image_id: bytes
    vmpl: int  # 32 bits; 0xFFFFFFFF when the host asked
    platform_info: PlatformInfo
    key_info: KeyInfo
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    current_tcb: bytes
    reported_tcb: bytes
    committed_tcb: bytes
    launch_tcb: bytes
    cpuid: Cpuid | None  # None before version 3
    chip_id: bytes
    current_version: FirmwareVersion
    committed_version: FirmwareVersion
    launch_mit_vector: int | None  # None before version 5
    current_mit_vector: int | None
    signature: Signature
    signature_algo: int = ECDSA_P384_SHA384
    # What was parsed; not an init field, so that dataclasses.replace() cannot carry it over.
    _raw: bytes | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read a bare report of exactly 1184 bytes.

        Raises:
            UnsupportedVersionError: a version outside 2..5.
            WireError: wrong length, or a reserved bit or byte with the wrong value.
        """
        if len(raw) != REPORT_SIZE:
            raise WireError(STRUCTURE, min(len(raw), REPORT_SIZE), f"{len(raw)} bytes, want {REPORT_SIZE}")
        cursor = Cursor(STRUCTURE, raw)
        version = cursor.integer(4, "VERSION")
        if version not in SUPPORTED_VERSIONS:
            raise UnsupportedVersionError(STRUCTURE, 0, version, SUPPORTED_VERSIONS)
        fields: dict[str, object] = {"version": version}
        fields["guest_svn"] = cursor.integer(4, "GUEST_SVN")
        fields["policy"] = GuestPolicy.parse(cursor.integer(8, "POLICY"), offset=0x08)
        fields["family_id"] = cursor.take(16, "FAMILY_ID")
        fields["image_id"] = cursor.take(16, "IMAGE_ID")
        fields["vmpl"] = cursor.integer(4, "VMPL")
        algorithm = cursor.integer(4, "SIGNATURE_ALGO")
        if algorithm != ECDSA_P384_SHA384:
            raise cursor.fail(f"SIGNATURE_ALGO is {algorithm}, want {ECDSA_P384_SHA384}", back=4)
        fields["current_tcb"] = cursor.take(TCB_SIZE, "CURRENT_TCB")
        fields["platform_info"] = PlatformInfo.parse(cursor.integer(8, "PLATFORM_INFO"))
        fields["key_info"] = KeyInfo.parse(cursor.integer(4, "KEY_INFO"), offset=0x48)
        cursor.zeros(4, "reserved byte")
        for name, size in _OPAQUE:
            fields[name] = cursor.take(size, name.upper())
        fields["reported_tcb"] = cursor.take(TCB_SIZE, "REPORTED_TCB")
        fields["cpuid"] = _read_cpuid(cursor, version)
        fields["chip_id"] = cursor.take(CHIP_ID_SIZE, "CHIP_ID")
        fields["committed_tcb"] = cursor.take(TCB_SIZE, "COMMITTED_TCB")
        fields["current_version"] = FirmwareVersion.read(cursor, "CURRENT_VERSION")
        fields["committed_version"] = FirmwareVersion.read(cursor, "COMMITTED_VERSION")
        fields["launch_tcb"] = cursor.take(TCB_SIZE, "LAUNCH_TCB")
        fields["launch_mit_vector"] = _read_mitigation(cursor, version, "LAUNCH_MIT_VECTOR")
        fields["current_mit_vector"] = _read_mitigation(cursor, version, "CURRENT_MIT_VECTOR")
        cursor.zeros(SIGNED_SIZE - cursor.offset, "reserved byte")
        r, s = (cursor.integer(_INTEGER_SIZE, name) for name in ("R", "S"))
        fields["signature"] = Signature(r=r, s=s)
        cursor.zeros(_SIGNATURE_RESERVED, "reserved byte after the signature")
        report = cls(**fields)  # type: ignore[arg-type]  # one dict keeps the layout readable
        object.__setattr__(report, "_raw", bytes(raw))
        return report

    def encode(self) -> bytes:
        """The 1184 bytes; the inverse of `parse`.

        Raises:
            WireError: a field of the wrong size or range for this version.
        """
        body = b"".join(
            (
                _integer(self.version, 4, "VERSION"),
                _integer(self.guest_svn, 4, "GUEST_SVN"),
                _integer(self.policy.encode(), 8, "POLICY"),
                _exactly(self.family_id, 16, "FAMILY_ID"),
                _exactly(self.image_id, 16, "IMAGE_ID"),
                _integer(self.vmpl, 4, "VMPL"),
                _integer(self.signature_algo, 4, "SIGNATURE_ALGO"),
                _exactly(self.current_tcb, TCB_SIZE, "CURRENT_TCB"),
                _integer(self.platform_info.encode(), 8, "PLATFORM_INFO"),
                _integer(self.key_info.encode(), 8, "KEY_INFO"),
                *(_exactly(getattr(self, name), size, name.upper()) for name, size in _OPAQUE),
                _exactly(self.reported_tcb, TCB_SIZE, "REPORTED_TCB"),
                self._encode_cpuid(),
                _exactly(self.chip_id, CHIP_ID_SIZE, "CHIP_ID"),
                _exactly(self.committed_tcb, TCB_SIZE, "COMMITTED_TCB"),
                self.current_version.encode(),
                self.committed_version.encode(),
                _exactly(self.launch_tcb, TCB_SIZE, "LAUNCH_TCB"),
                self._encode_mitigation(self.launch_mit_vector, "LAUNCH_MIT_VECTOR", 0x1F8),
                self._encode_mitigation(self.current_mit_vector, "CURRENT_MIT_VECTOR", 0x200),
            )
        ).ljust(SIGNED_SIZE, b"\0")
        r, s = (
            _integer(number, _INTEGER_SIZE, "signature") for number in (self.signature.r, self.signature.s)
        )
        return body + r + s + bytes(_SIGNATURE_RESERVED)

    @property
    def signed_bytes(self) -> bytes:
        """The 672 bytes that the signature covers."""
        return (self.encode() if self._raw is None else self._raw)[:SIGNED_SIZE]

    def _encode_cpuid(self) -> bytes:
        if (self.cpuid is not None) != (self.version >= CPUID_SINCE):
            raise WireError(STRUCTURE, 0x188, f"CPUID fields exist exactly from version {CPUID_SINCE}")
        if self.cpuid is None:
            return bytes(24)
        parts = (self.cpuid.family, self.cpuid.model, self.cpuid.stepping)
        return b"".join(_integer(part, 1, "CPUID") for part in parts) + bytes(21)

    def _encode_mitigation(self, vector: int | None, what: str, offset: int) -> bytes:
        if (vector is not None) != (self.version >= MITIGATION_SINCE):
            raise WireError(STRUCTURE, offset, f"{what} exists exactly from version {MITIGATION_SINCE}")
        return _integer(vector or 0, 8, what)


# Byte strings between KEY_INFO and REPORTED_TCB, in order.
_OPAQUE = (
    ("report_data", REPORT_DATA_SIZE),
    ("measurement", 48),
    ("host_data", 32),
    ("id_key_digest", 48),
    ("author_key_digest", 48),
    ("report_id", 32),
    ("report_id_ma", 32),
)


def _read_cpuid(cursor: Cursor, version: int) -> Cpuid | None:
    if version < CPUID_SINCE:
        cursor.zeros(24, "reserved byte")
        return None
    family, model, stepping = cursor.take(3, "CPUID")
    cursor.zeros(21, "reserved byte")
    return Cpuid(family=family, model=model, stepping=stepping)


def _read_mitigation(cursor: Cursor, version: int, what: str) -> int | None:
    if version < MITIGATION_SINCE:
        cursor.zeros(8, f"{what} (reserved before version {MITIGATION_SINCE})")
        return None
    return cursor.integer(8, what)


def _integer(value: int, size: int, what: str) -> bytes:
    try:
        return value.to_bytes(size, "little")
    except OverflowError as error:
        raise WireError(STRUCTURE, 0, f"{what} {value} does not fit {size} bytes") from error


def _exactly(value: bytes, size: int, what: str) -> bytes:
    if len(value) != size:
        raise WireError(STRUCTURE, 0, f"{what} has {len(value)} bytes, want {size}")
    return value
