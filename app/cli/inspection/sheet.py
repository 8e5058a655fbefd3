"""A decoded structure, laid out for reading."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A field: where it stands (offset or bit), its name, its value, and what the value means."""

    name: str
    value: str = ""
    note: str = ""
    place: str = ""
    alarming: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """Rows that belong together."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """What a byte string is, and everything in it.

    `kind` and `document` are for programs, the rest for people; `parts` are the structures inside,
    each with the name of its place.
    """

    kind: str
    title: str
    size: int
    remarks: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    parts: "tuple[tuple[str, Sheet], ...]" = ()
    document: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        document = {
            "kind": self.kind,
            "title": self.title,
            "size": self.size,
            "remarks": list(self.remarks),
            **self.document,
        }
        if self.parts:
            document["parts"] = [{"place": place, **part.to_json()} for place, part in self.parts]
        return document


def hexadecimal(raw: bytes) -> str:
    """Bytes as digits; those that are all alike in words."""
    if len(raw) > 1 and not raw.strip(b"\0"):
        return f"{len(raw)} zero bytes"
    if len(raw) > 1 and not raw.strip(b"\xff"):
        return f"{len(raw)} bytes ff"
    return raw.hex()


def yes_no(value: object) -> str:
    """A bit in words."""
    return "yes" if value else "no"
