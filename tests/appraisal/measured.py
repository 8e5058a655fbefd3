"""Logs of boots for tests, and what a TPM would quote after them."""

from collections.abc import Iterable, Mapping

from app.wire import event_types as ev
from app.wire.event_log import Event, EventLog, SpecId, extend
from app.wire.tpm import algorithms as alg
from app.wire.tpm.pcr import PcrValues
from app.wire.uefi_variable import GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE, UefiVariable

BANKS = (alg.SHA256, alg.SHA384)
SEPARATOR = bytes(4)


def event(pcr: int, kind: int, data: bytes, measured: bytes | None = None) -> Event:
    """An event with the digests of `measured`, or of its data."""
    return Event.measuring(pcr, kind, data, BANKS, measured)


def variable(name: str, data: bytes, *, kind: int = ev.EV_EFI_VARIABLE_DRIVER_CONFIG) -> Event:
    """A UEFI variable, measured into PCR 7."""
    vendor = IMAGE_SECURITY_DATABASE if name.startswith("db") else GLOBAL_VARIABLE
    return event(7, kind, UefiVariable(vendor, name, data).encode())


def separator(pcr: int) -> Event:
    """What ends the firmware's own measurements."""
    return event(pcr, ev.EV_SEPARATOR, SEPARATOR)


def secure_boot(value: bytes = b"\1") -> tuple[Event, ...]:
    """What firmware measures into PCR 7 before it hands over."""
    keys = (("PK", b"pk"), ("KEK", b"kek"), ("db", b"db"), ("dbx", b""))
    return (variable("SecureBoot", value), *(variable(*key) for key in keys), separator(7))


def log(*events: Event, banks: Iterable[int] = BANKS) -> EventLog:
    """A log of these events, with digests for these banks."""
    spec_id = SpecId(digest_sizes={one: alg.HASH_SIZES[one] for one in banks})
    kept = tuple(
        Event(
            pcr=one.pcr,
            type=one.type,
            digests={bank: one.digests[bank] for bank in spec_id.digest_sizes},
            data=one.data,
        )
        for one in events
    )
    return EventLog(spec_id=spec_id, events=kept)


def quoted(
    booted: EventLog,
    *,
    pcrs: Iterable[int] = range(24),
    banks: Iterable[int] = (alg.SHA256,),
    later: Mapping[int, tuple[bytes, ...]] | None = None,
) -> PcrValues:
    """What a TPM quotes after this boot; `later` is what was measured behind the log's back."""
    values: dict[str, dict[int, bytes]] = {}
    for bank in banks:
        registers = dict(enumerate(booted.replay(bank)))
        for pcr, texts in (later or {}).items():
            for text in texts:
                digest = Event.measuring(pcr, ev.EV_IPL, text, [bank]).digests[bank]
                registers[pcr] = extend(bank, registers[pcr], digest)
        values[alg.HASH_NAMES[bank]] = {pcr: registers[pcr] for pcr in pcrs}
    return PcrValues.of(values)
