"""Whoever edits a log can change every word in it, but not the digests: no claim may follow the words."""

from hypothesis import given, settings
from hypothesis import strategies as st

from app.appraisal.boot_claims import boot_claims
from app.appraisal.event_log_checks import proven_registers
from app.wire import event_types as ev
from app.wire.event_log import Event, EventLog
from tests.appraisal.measured import event, log, quoted, secure_boot, separator, variable

HARMFUL, HARMLESS = "/vmlinuz init=/bin/sh", "/vmlinuz ro"


def told(text: str, label: str) -> Event:
    return event(8, ev.EV_IPL, f"{label}{text}\0".encode(), text.encode())


def section(name: str, content: bytes) -> tuple[Event, Event]:
    text = f"{name}\0".encode("utf-16-le")
    return event(11, ev.EV_IPL, text, f"{name}\0".encode()), event(11, ev.EV_IPL, text, content)


# A boot without Secure Boot, in which somebody measured harmless things as well.
TRUTH = log(
    *secure_boot(b"\0"),
    variable("SecureBoot", b"\1"),
    event(4, ev.EV_EFI_ACTION, b"Calling EFI Application from Boot Option"),
    separator(4),
    event(4, ev.EV_EFI_BOOT_SERVICES_APPLICATION, b"path", b"bad loader"),
    event(4, ev.EV_EFI_BOOT_SERVICES_APPLICATION, b"path", b"good loader"),
    told(HARMLESS, "grub_cmd: "),
    told(f"linux {HARMFUL}", "grub_cmd: "),
    told(HARMFUL, "kernel_cmdline: "),
    *section(".linux", b"bad kernel"),
    *section(".cmdline", b".linux\0"),
    *section(".initrd", b"good kernel"),
)
VALUES = quoted(TRUTH)
CLAIMS = boot_claims(TRUTH, proven_registers(TRUTH, VALUES))
WORDS = (
    *(one.data for one in TRUTH.events),
    *(one.data for one in secure_boot(b"\1")),
    *(
        f"{label}{line}\0".encode()
        for label in ("kernel_cmdline: ", "grub_cmd: ")
        for line in (HARMLESS, HARMFUL)
    ),
    f"kernel_cmdline: linux {HARMFUL}\0".encode(),
    f"grub_kernel_cmdline {HARMLESS}\0".encode(),
    b"bad loader",
    b"",
)
TYPES = (
    ev.EV_IPL,
    ev.EV_SEPARATOR,
    ev.EV_EFI_ACTION,
    ev.EV_EFI_VARIABLE_DRIVER_CONFIG,
    ev.EV_EFI_BOOT_SERVICES_APPLICATION,
)
ADDED = tuple(
    Event(pcr=0xFFFFFFFF, type=ev.EV_NO_ACTION, digests=one.digests, data=one.data) for one in TRUTH.events
)


@st.composite
def retold(draw: st.DrawFn) -> EventLog:
    """The same digests in the same order for each register, under other words."""
    events: list[Event] = []
    for one in TRUTH.events:
        change = draw(st.integers(0, 3))
        data = draw(st.sampled_from(WORDS)) if change & 1 else one.data
        kind = draw(st.sampled_from(TYPES)) if change & 2 else one.type
        events.append(Event(pcr=one.pcr, type=kind, digests=one.digests, data=data))
        events += draw(st.lists(st.sampled_from(ADDED), max_size=1))
    # Registers do not know of each other: their events may be shuffled against one another.
    order = draw(st.permutations(sorted({one.pcr for one in events})))
    if draw(st.booleans()):
        events.sort(key=lambda one: order.index(one.pcr))
    return EventLog(spec_id=TRUTH.spec_id, events=tuple(events))


def test_the_truth_is_told() -> None:
    assert CLAIMS["secure_boot"]["enabled"] is False
    assert CLAIMS["kernel_command_line"] == HARMFUL
    assert len(CLAIMS["boot_applications"]) == 2
    assert list(CLAIMS["uki_sections"]) == [".linux", ".cmdline", ".initrd"]


@given(retold())
@settings(max_examples=500, deadline=None)
def test_a_log_in_other_words_claims_the_same_or_less(forged: EventLog) -> None:
    proven = proven_registers(forged, VALUES)
    assert proven == proven_registers(TRUTH, VALUES)
    claims = boot_claims(forged, proven)
    for name in ("secure_boot", "kernel_command_line", "uki_sections"):
        assert claims[name] in (None, CLAIMS[name])
    for name in ("boot_applications", "boot_files", "bank", "proven_pcrs"):
        assert claims[name] == CLAIMS[name]
