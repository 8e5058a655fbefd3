import hashlib
from typing import Any

import pytest

from app.appraisal.boot_claims import SecureBoot, boot_claims, secure_boot
from app.appraisal.event_log_checks import proven_registers
from app.wire import event_types as ev
from app.wire.event_log import Event
from app.wire.tpm import algorithms as alg
from tests.appraisal import measured
from tests.appraisal.measured import event, log, quoted, separator, variable

ON = SecureBoot(enabled=True, pk=True, kek=True, db=True, dbx=False)


def claims(*events: Event, **quote: Any) -> dict[str, Any]:
    """What is claimed of a boot that a TPM saw like this."""
    booted = log(*events)
    return boot_claims(booted, proven_registers(booted, quoted(booted, **quote)))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def state(*events: Event, **quote: Any) -> SecureBoot | None:
    booted = log(*events)
    return secure_boot(booted, proven_registers(booted, quoted(booted, **quote)))


@pytest.mark.parametrize(
    ("value", "enabled"),
    [(b"\1", True), (b"\0", False), (b"", False)],  # empty: no such variable
)
def test_the_state_of_secure_boot(value: bytes, *, enabled: bool) -> None:
    found = state(*measured.secure_boot(value))
    assert found is not None
    assert found.enabled is enabled
    assert (found.pk, found.kek, found.db, found.dbx) == (True, True, True, False)


def test_what_is_measured_behind_the_separator_says_nothing_of_secure_boot() -> None:
    boot = measured.secure_boot(b"\0")
    for later in (variable("SecureBoot", b"\1"), event(7, ev.EV_EFI_VARIABLE_AUTHORITY, b"shim", b"other")):
        found = state(*boot, later)
        assert found is not None
        assert not found.enabled


@pytest.mark.parametrize(
    "events",
    [
        measured.secure_boot()[:-1],  # no separator: the firmware has not handed over
        measured.secure_boot()[1:],  # no SecureBoot
        measured.secure_boot(b"\2"),
        measured.secure_boot(b"\1\1"),
        (variable("SecureBoot", b"\1"), *measured.secure_boot()),
        (variable("SecureBoot", b"\0"), *measured.secure_boot()),
        (event(7, ev.EV_EFI_ACTION, b"UEFI Debug Mode"), *measured.secure_boot()),
        (),
    ],
)
def test_a_state_that_is_not_clear_is_no_claim(events: tuple[Event, ...]) -> None:
    assert state(*events) is None


def test_a_register_that_the_log_does_not_account_for_proves_nothing() -> None:
    boot = (*measured.secure_boot(), separator(4))
    assert state(*boot) == ON
    assert state(*boot, later={7: (b"unlogged",)}) is None
    assert state(*boot, pcrs=(0, 4)) is None
    assert claims(*boot, later={4: (b"unlogged",)})["boot_applications"] is None


def relabelled(original: Event, **changes: Any) -> Event:
    """The same measurement, told otherwise."""
    told: dict[str, Any] = {name: getattr(original, name) for name in ("pcr", "type", "digests", "data")}
    return Event(**told | changes)


def test_secure_boot_that_was_off_cannot_be_told_to_have_been_on() -> None:
    """Digests are as the TPM has them; what an attacker can change is everything else."""
    off, *rest = measured.secure_boot(b"\0")
    told_on = relabelled(off, data=variable("SecureBoot", b"\1").data)
    hidden = relabelled(off, type=ev.EV_EFI_ACTION, data=b"nothing to see")
    disguised = relabelled(off, type=ev.EV_NO_ACTION)
    claimed_later = variable("SecureBoot", b"\1")
    for forged in ((told_on, *rest), (hidden, claimed_later, *rest), (hidden, *rest, claimed_later)):
        assert state(*forged) is None
    truth = log(off, *rest)
    for forged in ((disguised, *rest), tuple(rest), (claimed_later, *rest), (told_on, *rest)):
        changed = log(*forged)
        found = secure_boot(changed, proven_registers(changed, quoted(truth)))
        assert found is None


APPLICATIONS = (
    event(4, ev.EV_EFI_ACTION, b"Calling EFI Application from Boot Option"),
    separator(4),
    event(4, ev.EV_EFI_BOOT_SERVICES_APPLICATION, b"path of shim", b"shim"),
    event(4, ev.EV_EFI_ACTION, b"Returning from EFI Application from Boot Option"),
    event(4, ev.EV_EFI_BOOT_SERVICES_APPLICATION, b"path of GRUB", b"GRUB"),
)


def test_boot_applications_in_order() -> None:
    assert claims(*APPLICATIONS)["boot_applications"] == [sha256(b"shim"), sha256(b"GRUB")]
    assert claims(separator(4))["boot_applications"] == []


@pytest.mark.parametrize(
    "change",
    [
        {"type": ev.EV_SEPARATOR},
        {"type": ev.EV_EFI_ACTION, "data": b"Calling EFI Application from Boot Option"},
        {"type": ev.EV_EFI_ACTION, "data": b"shim"},  # the very bytes whose digest it is
        {"type": ev.EV_IPL, "data": b""},
    ],
)
def test_no_application_hides_behind_another_label(change: dict[str, Any]) -> None:
    forged = [relabelled(one, **change) if one.data == b"path of shim" else one for one in APPLICATIONS]
    assert claims(*forged)["boot_applications"] == [sha256(b"shim"), sha256(b"GRUB")]


def test_files_that_the_boot_loader_read() -> None:
    events = (event(9, ev.EV_IPL, b"/vmlinuz\0", b"kernel"), event(9, ev.EV_EVENT_TAG, b"tag", b"initrd"))
    assert claims(*events)["boot_files"] == [sha256(b"kernel"), sha256(b"initrd")]
    assert claims(*events, later={9: (b"unlogged",)})["boot_files"] is None


def told(command: str, label: str = "grub_cmd: ", *, closed: bool = False) -> Event:
    """A string that GRUB measured into PCR 8, as it logs it; old releases measured the zero byte."""
    text = command.encode()
    return event(8, ev.EV_IPL, label.encode() + text + b"\0", text + b"\0" if closed else text)


LINE = "/vmlinuz root=/dev/vda2 ro"
GRUB = (told("set default=0"), told(f"linux {LINE}"), told(LINE, "kernel_cmdline: "), told("initrd /initrd"))


@pytest.mark.parametrize(
    ("events", "line"),
    [
        (GRUB, LINE),
        (
            (
                told("insmod gzio", "grub_cmd ", closed=True),
                told(f"linuxefi {LINE}", "grub_cmd ", closed=True),
                told(LINE, "grub_kernel_cmdline "),
            ),
            LINE,
        ),
        (
            (told("linux /k dm=1 vroot a\\b"), told('/k "dm=1 vroot" a\\\\b', "kernel_cmdline: ")),
            '/k "dm=1 vroot" a\\\\b',
        ),
        ((told("linux /k é"), told("/k é", "kernel_cmdline: ")), "/k é"),
    ],
)
def test_the_command_line_of_the_kernel(events: tuple[Event, ...], line: str) -> None:
    assert claims(*events)["kernel_command_line"] == line


@pytest.mark.parametrize(
    "events",
    [
        (),
        GRUB[:2],  # nothing is told to be a command line
        (GRUB[0], *GRUB[2:]),  # no command loads a kernel
        (*GRUB, told("linux /vmlinuz init=/bin/sh")),
        (*GRUB, told(LINE, "kernel_cmdline: ")),
        (*GRUB, event(8, ev.EV_IPL, b"grub_cmd: boot\0", b"linux /vmlinuz init=/bin/sh")),
        (*GRUB, event(8, ev.EV_IPL, b"no label\0", b"no label")),
        (*GRUB, event(8, ev.EV_IPL, b"grub_cmd: \xff\0", b"\xff")),
    ],
)
def test_a_command_line_that_is_not_clear_is_no_claim(events: tuple[Event, ...]) -> None:
    assert claims(*events)["kernel_command_line"] is None


def test_a_command_line_cannot_be_told_to_be_another() -> None:
    """At the prompt of GRUB a harmless line is typed as if it were a command; labels are changed later."""
    harmful = "/vmlinuz init=/bin/sh"
    typed = told(LINE, "kernel_cmdline: ")  # GRUB measured it, and said grub_cmd
    assert claims(typed, told(f"linux {harmful}"), told(harmful))["kernel_command_line"] is None
    honest = claims(told(LINE), told(f"linux {harmful}"), told(harmful, "kernel_cmdline: "))
    assert honest["kernel_command_line"] == harmful


def section(name: str, content: bytes) -> tuple[Event, Event]:
    """What systemd-stub measures of a section: its name, closed by a zero byte, then its content."""
    text = (name + "\0").encode("utf-16-le")
    return event(11, ev.EV_IPL, text, name.encode() + b"\0"), event(11, ev.EV_IPL, text, content)


IMAGE = (*section(".linux", b"kernel"), *section(".cmdline", b"quiet"), *section(".initrd", b"initrd"))


def test_sections_of_a_unified_kernel_image() -> None:
    expected = {".linux": sha256(b"kernel"), ".cmdline": sha256(b"quiet"), ".initrd": sha256(b"initrd")}
    assert claims(*IMAGE)["uki_sections"] == expected
    assert claims(*IMAGE, later={11: (b"enter-initrd", b"leave-initrd")})["uki_sections"] == expected


@pytest.mark.parametrize(
    ("events", "later"),
    [
        ((), {}),
        (IMAGE[:-1], {}),
        (IMAGE[1:], {}),
        ((*IMAGE, *section(".linux", b"another kernel")), {}),
        ((*IMAGE, *section(".too-long", b"")), {}),
        ((relabelled(IMAGE[0], data=".osrel\0".encode("utf-16-le")), *IMAGE[1:]), {}),
        (IMAGE, {11: (b"unlogged",)}),
    ],
)
def test_sections_that_are_not_clear_are_no_claim(
    events: tuple[Event, ...], later: dict[int, tuple[bytes]]
) -> None:
    assert claims(*events, later=later)["uki_sections"] is None


def test_claims_say_on_which_registers_they_rest() -> None:
    both = claims(separator(0), banks=(alg.SHA384, alg.SHA256), pcrs=(0, 4))
    assert both["bank"] == "sha384"
    assert both["proven_pcrs"] == {"sha384": [0, 4], "sha256": [0, 4]}
    assert both["secure_boot"] is None
    images = claims(*APPLICATIONS, banks=(alg.SHA384,))["boot_applications"]
    assert images == [hashlib.sha384(name).hexdigest() for name in (b"shim", b"GRUB")]
    assert claims(*measured.secure_boot())["secure_boot"]["enabled"] is True


def test_without_a_quoted_bank_nothing_is_claimed() -> None:
    assert boot_claims(log(*measured.secure_boot(), *APPLICATIONS), {}) == {
        "bank": None,
        "proven_pcrs": {},
        "secure_boot": None,
        "boot_applications": None,
        "boot_files": None,
        "kernel_command_line": None,
        "uki_sections": None,
    }
