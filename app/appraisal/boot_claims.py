"""What a VM booted, as far as digests in its TPM prove it.

Neither the type nor the text of an event is measured, only the digest. So a claim is made from a
register whose quoted value the log accounts for, and from a text only where its hash is the digest
that went into that register; what the log merely says is not repeated.
docs/reference/event-log.md argues each rule.
"""

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

from app.appraisal.event_log_checks import ProvenRegisters
from app.errors import WireError
from app.wire.event_log import EventLog
from app.wire.tpm import algorithms as alg
from app.wire.uefi_variable import GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE, UefiVariable

_BOOT_APPLICATIONS = 4
_SECURE_BOOT = 7
_GRUB_STRINGS = 8
_BOOT_FILES = 9
_UKI_SECTIONS = 11

_SEPARATORS = (b"\0\0\0\0", b"\xff\xff\xff\xff")  # EV_SEPARATOR of a boot without error
# What firmware measures into PCR 4 besides images (Firmware Profile, EV_EFI_ACTION and
# EV_OMIT_BOOT_DEVICE_EVENTS).
_BOOT_TEXTS = (
    *_SEPARATORS,
    b"Calling EFI Application from Boot Option",
    b"Returning from EFI Application from Boot Option",
    b"BOOT ATTEMPTS OMITTED",
)
_VARIABLES = {
    "enabled": (GLOBAL_VARIABLE, "SecureBoot"),
    "pk": (GLOBAL_VARIABLE, "PK"),
    "kek": (GLOBAL_VARIABLE, "KEK"),
    "db": (IMAGE_SECURITY_DATABASE, "db"),
    "dbx": (IMAGE_SECURITY_DATABASE, "dbx"),
}
# GRUB puts a word before the string that it measures; older releases of Fedora's GRUB another one.
_COMMAND_LINE_LABELS = (b"kernel_cmdline: ", b"grub_kernel_cmdline ")
_GRUB_LABELS = (*_COMMAND_LINE_LABELS, b"grub_cmd: ", b"grub_cmd ", b"module_cmdline: ")
_KERNEL_COMMANDS = ("linux ", "linux16 ", "linuxefi ")
_QUOTING = str.maketrans("", "", "\"'\\")
_MAX_SECTION_NAME = 8  # of a PE section


@dataclass(frozen=True, slots=True)
class SecureBoot:
    """UEFI Secure Boot when the firmware handed over: is it on, and is there something in the variables?"""

    enabled: bool
    pk: bool
    kek: bool
    db: bool
    dbx: bool


def boot_claims(log: EventLog, proven: ProvenRegisters) -> dict[str, Any]:
    """Every claim that the proven registers allow; None where they do not.

    Digests are of the first quoted bank that the log knows, in hexadecimal and in the order of
    measurement.
    """
    bank = next(iter(proven), None)
    state = secure_boot(log, proven)
    return {
        "bank": None if bank is None else alg.HASH_NAMES[bank],
        "proven_pcrs": {alg.HASH_NAMES[one]: sorted(pcrs) for one, pcrs in proven.items()},
        "secure_boot": asdict(state) if state else None,
        "boot_applications": _boot_applications(log, proven),
        "boot_files": _boot_files(log, proven),
        "kernel_command_line": _kernel_command_line(log, proven),
        "uki_sections": _uki_sections(log, proven),
    }


def secure_boot(log: EventLog, proven: ProvenRegisters) -> SecureBoot | None:
    """What PCR 7 says of Secure Boot.

    Counted is what the firmware measured before its separator: all of it must be variables that are
    what was measured, each but once. Behind the separator anybody can measure a variable.
    """
    found = {}
    for measured in _measurements(log, proven, _SECURE_BOOT) or ():
        if measured.is_of(*_SEPARATORS):
            break
        variable = measured.variable()
        if variable is None or variable.key in found:
            return None
        found[variable.key] = variable.data
    else:
        return None
    values = {field: found.get(key) for field, key in _VARIABLES.items()}
    if values["enabled"] not in {b"", b"\0", b"\1"}:  # empty: there is no such variable
        return None
    present = {field: bool(value) for field, value in values.items()}
    return SecureBoot(**present | {"enabled": values["enabled"] == b"\1"})


@dataclass(frozen=True, slots=True)
class _Measurement:
    """A digest that went into a proven register, and what the log says it is of."""

    hash_alg: int
    digest: bytes
    data: bytes

    def is_of(self, *texts: bytes) -> bool:
        """Is it the digest of one of these?"""
        return any(hashlib.new(alg.HASH_NAMES[self.hash_alg], text).digest() == self.digest for text in texts)

    def variable(self) -> UefiVariable | None:
        """The UEFI variable that was measured."""
        if not self.is_of(self.data):
            return None
        try:
            return UefiVariable.parse(self.data)
        except WireError:
            return None

    def grub_string(self) -> tuple[bytes, str] | None:
        """The string that GRUB measured, behind the label in the log, which it did not.

        The log closes it with a zero byte, which only older releases measured.
        """
        text = self.data.removesuffix(b"\0")
        label = next((label for label in _GRUB_LABELS if text.startswith(label)), None)
        if label is None or not self.is_of(text.removeprefix(label), self.data.removeprefix(label)):
            return None
        try:
            return label, text.removeprefix(label).decode()
        except UnicodeDecodeError:
            return None

    def section_name(self) -> str | None:
        """The name of a PE section: UTF-16 in the log, measured in ASCII, closed by a zero byte."""
        name = self.data.decode("utf-16-le", "replace").removesuffix("\0")
        measured = name.encode("ascii", "replace") + b"\0"
        return name if len(name) <= _MAX_SECTION_NAME and self.is_of(measured) else None


def _measurements(log: EventLog, proven: ProvenRegisters, pcr: int) -> list[_Measurement] | None:
    """What went into a register of the first bank, in order; None where the register is not proven."""
    hash_alg = next(iter(proven), None)
    if hash_alg is None or pcr not in proven[hash_alg]:
        return None
    return [
        _Measurement(hash_alg, event.digests[hash_alg], event.data)
        for event in log.events
        if event.pcr == pcr and event.extends and hash_alg in event.digests
    ]


def _boot_applications(log: EventLog, proven: ProvenRegisters) -> list[str] | None:
    """Authenticode digests of the images started: boot loader first, kernel where it was an image.

    All of PCR 4 but the firmware's known texts, so that no image can hide behind another type.
    """
    measurements = _measurements(log, proven, _BOOT_APPLICATIONS)
    if measurements is None:
        return None
    return [one.digest.hex() for one in measurements if not one.is_of(*_BOOT_TEXTS)]


def _boot_files(log: EventLog, proven: ProvenRegisters) -> list[str] | None:
    """Digests of the files that GRUB read, and of what Linux's stub was given."""
    measurements = _measurements(log, proven, _BOOT_FILES)
    return None if measurements is None else [one.digest.hex() for one in measurements]


def _kernel_command_line(log: EventLog, proven: ProvenRegisters) -> str | None:
    """The command line that GRUB gave the one kernel it loaded, image name first.

    Labels are not measured, so the string labelled a command line must also be the argument of the
    only command that loads a Linux kernel, among strings that are all proven.
    """
    strings = [one.grub_string() for one in _measurements(log, proven, _GRUB_STRINGS) or ()]
    labelled: list[str] = []
    loaded: list[str] = []
    for string in strings:
        if string is None:
            return None
        label, text = string
        if label in _COMMAND_LINE_LABELS:
            labelled.append(text)
        loaded += [text.removeprefix(command) for command in _KERNEL_COMMANDS if text.startswith(command)]
    if len(labelled) != 1 or len(loaded) != 1:
        return None
    # The command is measured as its words, the command line with quotes around what needs them.
    return labelled[0] if labelled[0].translate(_QUOTING) == loaded[0].translate(_QUOTING) else None


def _uki_sections(log: EventLog, proven: ProvenRegisters) -> dict[str, str] | None:
    """Digests of the sections of a unified kernel image: measured are name and content in turn."""
    measurements = _measurements(log, proven, _UKI_SECTIONS)
    if not measurements or len(measurements) % 2:
        return None
    sections: dict[str, str] = {}
    for named, content in zip(measurements[::2], measurements[1::2], strict=True):
        name = named.section_name()
        if name is None or name in sections:
            return None
        sections[name] = content.digest.hex()
    return sections
