"""One thing to judge: a report and the certificates that are offered with it."""

from dataclasses import dataclass
from pathlib import Path

from app.wire.product import ProductLine


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """The certificate files offered for one report, in DER, whatever they really hold."""

    leaf: Path
    intermediate: Path
    root: Path
    vlek: bool  # the leaf is offered as a VLEK, the intermediate as an ASVK


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A report, what is offered with it, and what it is judged against.

    Attributes:
        name: `source/id`; the source is what differences.toml patterns begin with.
        offered: certificates as files, for those who take files.
        table: certificates as a raw table, for those who take a table.
        trusted: an ARK that is trusted besides AMD's.
        ca_bundle: intermediate and root to hand to a peer that must be given both: where its
            embedded AMD certificates do not do.
        valid_at: for certificates that have expired: an RFC 3339 time at which they were valid.
        report_data: the 64 bytes to ask for, where the case is about them.
    """

    name: str
    line: ProductLine
    report: Path
    offered: Certificates | None = None
    table: Path | None = None
    trusted: Path | None = None
    ca_bundle: tuple[Path, Path] | None = None
    valid_at: str | None = None
    report_data: bytes | None = None
