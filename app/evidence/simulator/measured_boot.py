"""What the simulated VM measures as it boots: OVMF, shim, GRUB and a Linux kernel.

The events, their order and what each digest covers are those of real firmware and loaders; every
byte in them is ours, and the same everywhere, so that the registers can be known beforehand.
Sources: TCG PC Client Platform Firmware Profile, PCR usage and event types; EDK2
SecurityPkg/Tcg/Tcg2Dxe; shim (PCRs 7 and 14); GRUB, "Measuring boot components" (PCRs 8 and 9).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import NamedTuple
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import NameOID

from app.evidence.simulator import uefi
from app.evidence.simulator.launch import simulated_digest
from app.trust.certificates import der
from app.wire import event_types as ev
from app.wire.event_log import Event, EventLog, SpecId
from app.wire.tpm import algorithms as alg
from app.wire.uefi_variable import GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE, UefiVariable

BANKS = (alg.SHA256, alg.SHA384)

_SEPARATOR = bytes(4)  # zeros: the firmware ended well
_SEPARATED_LATE = range(7)  # PCR 7 has its separator as soon as its variables are measured
_OWNER = UUID("5a1d0a2e-51b1-4c3e-9d0a-51a0a7e50001")  # whoever enrolled the simulated keys
_DISK = UUID("5a1d0a2e-51b1-4c3e-9d0a-51a0a7e50002")
_PARTITION = UUID("5a1d0a2e-51b1-4c3e-9d0a-51a0a7e50003")
_ESP = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
_DISK_SECTORS = 1 << 20
_FIRMWARE_ADDRESS = 0xFFC84000
_IMAGE_ADDRESS = 0x7E000000
_SHIM = "\\EFI\\BOOT\\BOOTX64.EFI"
_GRUB = "\\EFI\\BOOT\\grubx64.efi"
_CERTIFICATES_FROM = datetime(2026, 1, 1, tzinfo=UTC)
_CERTIFICATES_UNTIL = datetime(2126, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """What can be chosen of a boot."""

    secure_boot: bool = True
    kernel: str = "6.17.0-simulated"

    @property
    def command_line(self) -> str:
        """Of the kernel, image first: GRUB measures it before it adds BOOT_IMAGE=."""
        return f"/boot/vmlinuz-{self.kernel} root=/dev/vda2 ro console=ttyS0"


USUAL_BOOT = Boot()


class Measurement(NamedTuple):
    """One event: what it says, and the bytes whose digest it extends (None: what it says)."""

    pcr: int
    type: int
    data: bytes
    measured: bytes | None = None


def boot_log(boot: Boot) -> EventLog:
    """The log of that boot, with digests for the banks of `BANKS`."""
    return EventLog(
        spec_id=SpecId(digest_sizes={one: alg.HASH_SIZES[one] for one in BANKS}, errata=105),
        events=tuple(
            Event.measuring(one.pcr, one.type, one.data, BANKS, one.measured) for one in _measurements(boot)
        ),
    )


def _measurements(boot: Boot) -> Iterator[Measurement]:
    yield Measurement(0, ev.EV_S_CRTM_VERSION, uefi.text("svsm-attest SIMULATED OVMF"))
    firmware = _program("firmware")
    blob = uefi.firmware_blob(_FIRMWARE_ADDRESS, len(firmware))
    yield Measurement(0, ev.EV_EFI_PLATFORM_FIRMWARE_BLOB, blob, firmware)
    yield from _secure_boot_variables(boot)
    yield Measurement(7, ev.EV_SEPARATOR, _SEPARATOR)
    option = uefi.load_option("SIMULATED disk", _SHIM)
    # Of these EDK2 hashes the value alone.
    for name, value in (("BootOrder", bytes(2)), ("Boot0000", option)):
        yield Measurement(
            1, ev.EV_EFI_VARIABLE_BOOT, UefiVariable(GLOBAL_VARIABLE, name, value).encode(), value
        )
    yield Measurement(4, ev.EV_EFI_ACTION, b"Calling EFI Application from Boot Option")
    for pcr in _SEPARATED_LATE:
        yield Measurement(pcr, ev.EV_SEPARATOR, _SEPARATOR)
    gpt = uefi.gpt_data(_DISK, _ESP, _PARTITION, _DISK_SECTORS)
    yield Measurement(5, ev.EV_EFI_GPT_EVENT, gpt)
    yield from _loaders(boot)
    yield from _kernel(boot)
    for action in (b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success"):
        yield Measurement(5, ev.EV_EFI_ACTION, action)


def _secure_boot_variables(boot: Boot) -> Iterator[Measurement]:
    """SecureBoot, PK, KEK, db and dbx; without Secure Boot no keys are enrolled, and that is measured."""
    values: dict[str, bytes] = {name: _enrolled(name) for name in ("PK", "KEK", "db")}
    values["dbx"] = uefi.signature_list(uefi.CERT_SHA256, _OWNER, simulated_digest("revoked loader")[:32])
    if not boot.secure_boot:
        values = dict.fromkeys(values, b"")
    for name, value in {"SecureBoot": bytes([boot.secure_boot]), **values}.items():
        vendor = IMAGE_SECURITY_DATABASE if name.startswith("db") else GLOBAL_VARIABLE
        variable = UefiVariable(vendor, name, value)
        yield Measurement(7, ev.EV_EFI_VARIABLE_DRIVER_CONFIG, variable.encode())


def _loaders(boot: Boot) -> Iterator[Measurement]:
    """Shim and GRUB, and, with Secure Boot, the keys that vouch for them."""
    if boot.secure_boot:
        yield _vouched(IMAGE_SECURITY_DATABASE, "db", uefi.signature_data(_OWNER, _certificate("db")))
    yield _application(_SHIM, "shim")
    yield Measurement(14, ev.EV_IPL, b"MokList\0", _enrolled("MokList"))
    yield _vouched(uefi.SHIM_LOCK, "SbatLevel", b"sbat,1,2026010100\n")
    if boot.secure_boot:
        yield _vouched(uefi.SHIM_LOCK, "Shim", _certificate("shim vendor"))
    yield _application(_GRUB, "GRUB")


def _kernel(boot: Boot) -> Iterator[Measurement]:
    """What GRUB is told, what it reads, and what it starts."""
    kernel, initrd = f"/boot/vmlinuz-{boot.kernel}", f"/boot/initrd.img-{boot.kernel}"
    yield _told(f"linux {boot.command_line}", "grub_cmd")
    yield _read(kernel, f"kernel {boot.kernel}")
    yield _told(boot.command_line, "kernel_cmdline")
    yield _told(f"initrd {initrd}", "grub_cmd")
    yield _read(initrd, f"initrd {boot.kernel}")
    yield _application(kernel, f"kernel {boot.kernel}")


def _vouched(vendor: UUID, name: str, value: bytes) -> Measurement:
    """What a loader went by when it let a program run."""
    return Measurement(7, ev.EV_EFI_VARIABLE_AUTHORITY, UefiVariable(vendor, name, value).encode())


def _application(path: str, program: str) -> Measurement:
    image = _program(program)
    data = uefi.image_load_event(path, _IMAGE_ADDRESS, len(image))
    return Measurement(4, ev.EV_EFI_BOOT_SERVICES_APPLICATION, data, image)


def _told(command: str, kind: str) -> Measurement:
    """GRUB prefixes what it logs, and not what it hashes."""
    return Measurement(8, ev.EV_IPL, f"{kind}: {command}\0".encode(), command.encode())


def _read(path: str, program: str) -> Measurement:
    return Measurement(9, ev.EV_IPL, f"(hd0,gpt2){path}\0".encode(), _program(program))


def _program(what: str) -> bytes:
    """What stands for a program's bytes."""
    return f"svsm-attest SIMULATED {what}\n".encode()


def _enrolled(name: str) -> bytes:
    """The value of a key variable: one certificate."""
    return uefi.signature_list(uefi.CERT_X509, _OWNER, _certificate(name))


@cache
def _certificate(holder: str) -> bytes:
    """A certificate (DER) that anybody can make again: its key is public and proves nothing."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(hashlib.sha256(_program(holder)).digest())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"svsm-attest SIMULATED {holder}")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(_CERTIFICATES_FROM)
        .not_valid_after(_CERTIFICATES_UNTIL)
    )
    return der(builder.sign(key, None))
