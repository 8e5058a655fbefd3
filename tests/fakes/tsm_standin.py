"""Who answers behind the emulated TSM core: a security processor and an SVSM that play along.

The twin of the kernel module in tests/kernel/provider: the same refusals, the same answers,
the same knobs under the same names. The reports are well-formed, bound to the request
(REPORT_DATA = SHA-512(nonce || manifest)), and signed by nobody.
"""

import errno
import os
import secrets
import time
from dataclasses import dataclass, field, fields
from uuid import UUID

from app.wire import guid
from app.wire.binding import expected_report_data
from app.wire.bits import GuestPolicy, PlatformInfo
from app.wire.product import Cpuid
from app.wire.report import AttestationReport, FirmwareVersion, KeyInfo, Signature
from app.wire.services_manifest import ServiceEntry, ServicesManifest
from app.wire.uefi_mm import UefiMmManifest
from tests.fakes.tsm_core import MAX_INBLOB, Answer, Request, fail

NATURAL = -1  # of a size: what the request calls for

# An EK made from template L-1: the 58 bytes that all of them share, and a number that nobody
# can factor because nobody tried.
EK = bytes.fromhex(
    "0001000b000300b20020837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa"
    "00060080004300100800000000000100"
) + bytes((0x80, *((7 * index + 1) % 256 for index in range(1, 255)), 0x01))
UEFI_MM = UefiMmManifest(flags=2).encode()
SERVICES = ServicesManifest(
    (ServiceEntry(guid.SERVICE_VTPM, EK), ServiceEntry(guid.SERVICE_UEFI_MM, UEFI_MM))
).encode()
_MANIFESTS = {guid.NULL: SERVICES, guid.SERVICE_VTPM: EK, guid.SERVICE_UEFI_MM: UEFI_MM}
_TCB = (9 | 23 << 48 | 72 << 56).to_bytes(8, "little")  # boot loader 9, SNP 23, microcode 72


@dataclass
class Knobs:
    """What a test turns, by writing to the control files of these names."""

    vmpl: int = 2
    fail_errno: int = 0
    fail_count: int = 0
    delay_ms: int = 0
    report_version: int = 3
    report_vmpl: int = 0
    wrong_report_data: bool = False
    wrong_manifest: bool = False
    outblob_size: int = NATURAL
    manifest_size: int = NATURAL
    auxblob_size: int = 0  # least bytes: the certificates, padded with zeros
    svsm_certificates: bytes = b""
    plain_certificates: bytes = b""
    plain_chip_id: int = 0xC1
    plain_fail_errno: int = 0
    plain_version: int = 3
    floor: int = NATURAL  # what privlevel_floor says; naturally the VMPL
    calls: int = field(default=0, metadata={"read_only": True})
    last: str = field(default="", metadata={"read_only": True})


class Standin:
    """A sev-guest driver at the VMPL of the knobs."""

    name = "sev_guest"

    def __init__(self) -> None:
        self.knobs = Knobs()

    @property
    def privlevel_floor(self) -> int:
        return self.knobs.vmpl if self.knobs.floor == NATURAL else self.knobs.floor

    @property
    def offers_svsm(self) -> bool:
        return self.knobs.vmpl != 0

    def reset(self) -> None:
        """Every knob back to where it was; the count goes on."""
        for knob in fields(Knobs):
            if not knob.metadata.get("read_only"):
                setattr(self.knobs, knob.name, knob.default)

    def report_new(self, request: Request) -> Answer:
        knobs = self.knobs
        knobs.calls += 1
        knobs.last = (
            f"inlen={len(request.inblob)} priv={request.privlevel} sp={request.service_provider or '(null)'} "
            f"guid={request.service_guid} ver={request.manifest_version}"
        )
        time.sleep(knobs.delay_ms / 1000)
        if knobs.fail_count:
            knobs.fail_count -= 1
            raise fail(knobs.fail_errno)
        if len(request.inblob) != MAX_INBLOB:
            raise fail(errno.EINVAL)
        if request.service_provider is None:
            return self._plain(request)
        if request.service_provider != "svsm" or request.manifest_version:
            raise fail(errno.EINVAL)
        manifest = self._manifest(request.service_guid)
        return Answer(
            outblob=self._report(
                version=knobs.report_version,
                vmpl=knobs.report_vmpl,
                report_data=expected_report_data(request.inblob, manifest),
            ),
            manifestblob=manifest,
            auxblob=knobs.svsm_certificates.ljust(knobs.auxblob_size, b"\0"),
        )

    def _plain(self, request: Request) -> Answer:
        if not self.knobs.vmpl <= request.privlevel:
            raise fail(errno.EINVAL)
        if self.knobs.plain_fail_errno:
            raise fail(self.knobs.plain_fail_errno)
        return Answer(
            outblob=self._report(
                version=self.knobs.plain_version,
                vmpl=request.privlevel,
                report_data=request.inblob,
                chip_id=self.knobs.plain_chip_id,
            ),
            auxblob=self.knobs.plain_certificates.ljust(self.knobs.auxblob_size, b"\0"),
        )

    def _manifest(self, service: UUID) -> bytes:
        manifest = SERVICES if self.knobs.wrong_manifest else _MANIFESTS.get(service)
        if manifest is None:
            raise fail(errno.EINVAL)
        return _sized(manifest, self.knobs.manifest_size)

    def _report(self, *, version: int, vmpl: int, report_data: bytes, chip_id: int = 0xC1) -> bytes:
        if self.knobs.wrong_report_data:
            report_data = bytes((report_data[0] ^ 1,)) + report_data[1:]
        firmware = FirmwareVersion(major=0, minor=0, build=0)
        report = AttestationReport(
            version=3,
            guest_svn=0,
            policy=GuestPolicy.parse(3 << 16),
            family_id=bytes(16),
            image_id=bytes(16),
            vmpl=vmpl,
            platform_info=PlatformInfo.parse(0),
            key_info=KeyInfo(author_key_en=False, mask_chip_key=False, signing_key=0),
            report_data=report_data,
            measurement=bytes((0x5A,)) * 48,
            host_data=bytes(32),
            id_key_digest=bytes(48),
            author_key_digest=bytes(48),
            report_id=bytes((0x1D,)) * 32,
            report_id_ma=bytes((0xFF,)) * 32,
            current_tcb=_TCB,
            reported_tcb=_TCB,
            committed_tcb=_TCB,
            launch_tcb=_TCB,
            cpuid=Cpuid(family=0x19, model=0x11, stepping=1),
            chip_id=bytes((chip_id,)) * 64,
            current_version=firmware,
            committed_version=firmware,
            launch_mit_vector=None,
            current_mit_vector=None,
            # Random, as ECDSA's are: two reports over one nonce differ.
            signature=Signature(r=secrets.randbits(384), s=secrets.randbits(384)),
        ).encode()
        # Also versions that nobody could encode.
        return _sized(version.to_bytes(4, "little") + report[4:], self.knobs.outblob_size)


class ForeignStandin(Standin):
    """A driver of another vendor's confidential VM, which knows no SVSM."""

    name = "tdx_guest"

    @property
    def offers_svsm(self) -> bool:
        return False


def describe(provider: Standin) -> dict[str, bytes | int | bool | str]:
    """The value of every knob; certificate tables are written and read as hexadecimal digits."""
    return {knob.name: getattr(provider.knobs, knob.name) for knob in fields(Knobs)}


def turn(provider: Standin, name: str, text: bytes) -> None:
    """Set a knob from what was written to its file; EINVAL for what it cannot mean."""
    old = getattr(provider.knobs, name)
    try:
        value: bytes | int | bool
        if isinstance(old, bytes):
            value = bytes.fromhex(text.decode("ascii"))
        elif isinstance(old, bool):
            value = {b"Y": True, b"1": True, b"N": False, b"0": False}[text.strip()]
        else:
            value = int(text)
    except (KeyError, ValueError):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL)) from None
    setattr(provider.knobs, name, value)


def _sized(blob: bytes, size: int) -> bytes:
    return blob if size == NATURAL else blob[:size].ljust(size, b"\0")
