"""Filling the endorsement store from a KDS."""

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import typer

from app.assembly import make_kds
from app.cli.roles import utc_now
from app.config import Settings
from app.errors import CertificateError, CollateralUnavailableError, ConfigError, WireError
from app.trust.crl import crl_fault
from app.trust.intake import import_endorsements
from app.trust.kds import KdsClient
from app.trust.names import VekKind
from app.trust.offered import OfferedEndorsements
from app.trust.roots import TrustRoots
from app.trust.store import EndorsementStore
from app.wire.product import ProductLine
from app.wire.tcb import SIZE as TCB_SIZE
from app.wire.tcb import TcbVersion

if TYPE_CHECKING:
    from cryptography import x509

_HEX = re.compile(rf"[0-9a-fA-F]{{{2 * TCB_SIZE}}}")
_PAIR = re.compile(r"([a-z]+)=([0-9]{1,3})")


@dataclass(frozen=True, slots=True)
class Chip:
    """What a VCEK is of; `hwid` has 64 bytes, 8 on Turin."""

    line: ProductLine
    hwid: bytes
    tcb: TcbVersion


@dataclass(frozen=True, slots=True)
class FetchedItem:
    """One thing that was asked for: where it is now, or why not."""

    what: str
    paths: tuple[str, ...] = ()
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {"what": self.what, "paths": list(self.paths), "problem": self.problem}


def parse_tcb(text: str, line: ProductLine) -> TcbVersion:
    """REPORTED_TCB as its 8 bytes in hexadecimal, or as names and numbers.

    Raises:
        typer.BadParameter: neither, or not a TCB of this product line.
    """
    layout = line.tcb_layout
    if _HEX.fullmatch(text):
        try:
            return TcbVersion.parse(bytes.fromhex(text), layout)
        except WireError as error:
            raise typer.BadParameter(f"--tcb is no TCB of {line}: {error}") from error
    wanted = [name for name in layout.value if name is not None]
    pairs = [_PAIR.fullmatch(part.strip()) for part in text.split(",")]
    parts = {pair[1]: int(pair[2]) for pair in pairs if pair is not None}
    if None in pairs or len(parts) != len(pairs) or parts.keys() != set(wanted):
        example = ",".join(f"{name}=N" for name in wanted)
        raise typer.BadParameter(f"--tcb of {line} is to be 16 hexadecimal digits or {example}")
    tcb = TcbVersion(**parts)
    try:
        tcb.encode(layout)
    except WireError as error:
        raise typer.BadParameter(f"--tcb: {error.reason}") from error
    return tcb


async def fetch_all(
    settings: Settings,
    store: EndorsementStore,
    roots: TrustRoots,
    lines: Iterable[ProductLine],
    chip: Chip | None,
) -> list[FetchedItem]:
    """Fetch the chains and CRLs of lines, and a chip's VCEK; what fails does not stop the rest.

    Raises:
        ConfigError: the store cannot be written, or the KDS's URL cannot be used.
    """
    items = []
    async with httpx.AsyncClient() as client:
        fetcher = _Fetcher(make_kds(settings, client), store, roots)
        for line in lines:
            for kind in VekKind:
                name = f"of {kind.upper()}s, {line}"
                items.append(await _attempt(f"chain {name}", partial(fetcher.chain, kind, line)))
                items.append(await _attempt(f"CRL {name}", partial(fetcher.crl, kind, line)))
        if chip is not None:
            items.append(await _attempt(f"VCEK {chip.line}, {chip.tcb}", partial(fetcher.vcek, chip)))
    return items


async def _attempt(what: str, fetch: Callable[[], Awaitable[tuple[str, ...]]]) -> FetchedItem:
    try:
        return FetchedItem(what, await fetch())
    except CollateralUnavailableError as error:
        return FetchedItem(what, problem=error.reason)
    except CertificateError as error:
        return FetchedItem(what, problem=f"what KDS answered is not stored: {error}")


class _Fetcher:
    def __init__(self, kds: KdsClient, store: EndorsementStore, roots: TrustRoots) -> None:
        self._kds = kds
        self._store = store
        self._roots = roots
        self._ark: dict[ProductLine, x509.Certificate] = {}

    async def chain(self, kind: VekKind, line: ProductLine) -> tuple[str, ...]:
        intermediate, root = await self._kds.fetch_chain(kind, line)
        paths = self._keep(OfferedEndorsements(intermediates=(intermediate,), roots=(root,)))
        self._ark[line] = root
        return paths

    async def crl(self, kind: VekKind, line: ProductLine) -> tuple[str, ...]:
        crl = await self._kds.fetch_crl(kind, line)
        root = self._ark.get(line)
        if root is None:
            raise CollateralUnavailableError("the CRL", "there is no root to check it with")
        fault = crl_fault(crl, root)
        if fault:
            raise CertificateError(f"CRL of {line}", fault)
        try:
            path = self._store.keep_crl(crl, kind, root)
        except OSError as error:
            raise ConfigError(
                f"endorsement store {self._store.path} cannot be written: {error.strerror}"
            ) from error
        return (str(path.relative_to(self._store.path)),)

    async def vcek(self, chip: Chip) -> tuple[str, ...]:
        leaf = await self._kds.fetch_vcek(chip.line, chip.hwid, chip.tcb)
        return self._keep(OfferedEndorsements(leaves=(leaf,)))

    def _keep(self, offered: OfferedEndorsements) -> tuple[str, ...]:
        return tuple(
            entry.path for entry in import_endorsements(self._store, offered, self._roots, utc_now())
        )
