"""A firmware event log: every event, and the registers it replays to."""

import hashlib
from collections.abc import Mapping
from typing import Any

from app.cli.inspection.sheet import Row, Section, Sheet
from app.errors import WireError
from app.wire import event_types as ev
from app.wire.event_log import Event, EventLog
from app.wire.tpm import algorithms as alg
from app.wire.uefi_image_load import ImageLoad
from app.wire.uefi_variable import UefiVariable

_MAX_SHOWN = 1000  # events; a program gets them all
_MAX_TEXT = 400  # characters
_MAX_BYTES = 32
_MIN_NAME = 8  # such as StartupLocality, before a zero byte and binary data
_VARIABLES = {
    ev.EV_EFI_VARIABLE_DRIVER_CONFIG,
    ev.EV_EFI_VARIABLE_BOOT,
    ev.EV_EFI_VARIABLE_BOOT2,
    ev.EV_EFI_VARIABLE_AUTHORITY,
}
_IMAGES = {
    ev.EV_EFI_BOOT_SERVICES_APPLICATION,
    ev.EV_EFI_BOOT_SERVICES_DRIVER,
    ev.EV_EFI_RUNTIME_SERVICES_DRIVER,
}
_SIGNATURE = b"Spec ID Event0"
_SIGNATURE_OFFSET = 32


def is_event_log(raw: bytes) -> bool:
    """Does it begin like a log, of whichever edition of the profile?"""
    return raw[_SIGNATURE_OFFSET:].startswith(_SIGNATURE)


def event_log_sheet(log: EventLog, size: int) -> Sheet:
    """Lay a log open; `size` is how many bytes it has."""
    names = [alg.HASH_NAMES[one] for one in log.hash_algs]
    remarks = ["Nothing binds a log to a TPM until a quote shows the values that it replays to."]
    if len(log.events) > _MAX_SHOWN:
        remarks.append(f"Shown are the first {_MAX_SHOWN} events; --json has them all.")
    replays = {alg.HASH_NAMES[one]: _replay(log, one) for one in log.hash_algs}
    return Sheet(
        kind="event-log",
        title=f"Firmware event log: {len(log.events)} events, {', '.join(names) or 'no bank accepted here'}",
        size=size,
        remarks=tuple(remarks),
        sections=(
            Section("Log", _log_rows(log)),
            Section("Events", tuple(_event_row(event) for event in log.events[:_MAX_SHOWN])),
            *(Section(f"Replay, {name}", _replay_rows(values)) for name, values in replays.items()),
        ),
        document={
            "banks": names,
            "startup_locality": log.startup_locality,
            "events": [_event_document(event) for event in log.events],
            "replay": {
                name: {str(pcr): value.hex() for pcr, value in values.items()}
                for name, values in replays.items()
            },
        },
    )


def _replay(log: EventLog, hash_alg: int) -> dict[int, bytes]:
    """The registers that the log extends, or starts from elsewhere than zeros."""
    extended = log.extended(hash_alg) | ({0} if log.startup_locality else set())
    return {pcr: value for pcr, value in enumerate(log.replay(hash_alg)) if pcr in extended}


def _log_rows(log: EventLog) -> tuple[Row, ...]:
    spec = log.spec_id
    sizes = ", ".join(f"0x{one:04x} ({size} bytes)" for one, size in spec.digest_sizes.items())
    padding = f"{len(log.padding)} bytes {log.padding[:1].hex()}" if log.padding else "none"
    rows = [
        Row(
            name="specification",
            value=f"{spec.version_major}.{spec.version_minor}",
            note=f"errata {spec.errata}",
        ),
        Row(name="algorithms", value=sizes),
        Row(name="start-up locality", value=str(log.startup_locality)),
        Row(name="padding", value=padding),
    ]
    return tuple(rows)


def _event_row(event: Event) -> Row:
    text = _text(event)
    shown = text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"
    if not event.extends:
        note = "measured into no register"
    elif _is_measured(event):
        note = "as measured"
    else:
        note = f"measured is {_digest(event).hex()}"
    name = f"PCR {event.pcr}" if event.extends else ""
    return Row(place=f"0x{event.offset:05x}", name=f"{name:<6} {_type_name(event)}", value=shown, note=note)


def _replay_rows(values: Mapping[int, bytes]) -> tuple[Row, ...]:
    return tuple(Row(name=f"PCR {pcr}", value=value.hex()) for pcr, value in values.items())


def _event_document(event: Event) -> dict[str, Any]:
    return {
        "offset": event.offset,
        "pcr": event.pcr,
        "type": f"0x{event.type:08x}",
        "type_name": _type_name(event),
        "digests": {f"0x{one:04x}": digest.hex() for one, digest in event.digests.items()},
        "text": _text(event),
        "text_is_measured": _is_measured(event),
        "data": event.data.hex(),
    }


def _type_name(event: Event) -> str:
    return ev.NAMES.get(event.type, f"0x{event.type:08x}")


def _digest(event: Event) -> bytes:
    """The digest of the first bank that is accepted here, else the first of all."""
    named = (event.digests[one] for one in event.digests if one in alg.HASH_NAMES)
    return next(named, next(iter(event.digests.values())))


def _is_measured(event: Event) -> bool:
    """Is the data of the event what its digests are of?"""
    return event.extends and any(
        hashlib.new(alg.HASH_NAMES[one], event.data).digest() == digest
        for one, digest in event.digests.items()
        if one in alg.HASH_NAMES
    )


def _text(event: Event) -> str:
    """What the event says, whether or not anything of it was measured."""
    try:
        if event.type in _VARIABLES:
            variable = UefiVariable.parse(event.data)
            return f"{variable.name} = {_bytes(variable.data)}"
        if event.type in _IMAGES:
            return ImageLoad.parse(event.data).path() or "an image without a path"
    except WireError:
        return _bytes(event.data)
    # Other bytes often are UTF-16 of some script: only plain letters are taken for text.
    for text in (_decoded(event.data, "utf-8"), _decoded(event.data, "utf-16-le", ascii_only=True)):
        if text and "\ufffd" not in text and all(char.isprintable() or char in "\t\n" for char in text):
            return text
    name, end, rest = event.data.partition(b"\0")
    if end and len(name) >= _MIN_NAME and name.isascii() and name.decode("ascii").isprintable():
        return f"{name.decode('ascii')}: {_bytes(rest)}"
    return _bytes(event.data)


def _decoded(raw: bytes, encoding: str, *, ascii_only: bool = False) -> str:
    text = raw.decode(encoding, "replace").rstrip("\0")
    return text if not ascii_only or text.isascii() else ""


def _bytes(raw: bytes) -> str:
    if len(raw) <= _MAX_BYTES:
        return raw.hex() or "nothing"
    return f"{raw[:_MAX_BYTES].hex()}… ({len(raw)} bytes)"
