"""What commands print: one JSON document, or text that suits where it goes.

On a terminal, text is wrapped and may have colour (NO_COLOR is respected). Anywhere else it is
plain and every row is one line, however long, so that it can be searched and compared.
"""

import json
import sys
from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

_UNWRAPPED = 100_000  # columns: more than any row has
_NARROW = 100

GOOD = "green"
BAD = "bold red"
CAUTION = "yellow"
FAINT = "dim"
STRONG = "bold"


def print_json(document: object) -> None:
    """The one JSON document of a command, on standard output."""
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def show(*items: RenderableType) -> None:
    """Print on standard output."""
    _print(_console(), items)


def note(*items: RenderableType) -> None:
    """Print on standard error, where messages go that are no result."""
    _print(_console(stderr=True), items)


def styled(value: object, style: str = "") -> Text:
    """Text in one style. What came from outside can neither steer the terminal nor hide."""
    return Text(visible(str(value)), style=style)


def joined(*parts: str | Text | tuple[object, str]) -> Text:
    """Several pieces of text, each a string, styled, or a pair of value and style."""
    whole = Text()
    for part in parts:
        piece = part if isinstance(part, Text) else styled(*(part if isinstance(part, tuple) else (part,)))
        whole.append_text(piece)
    return whole


def visible(text: str) -> str:
    """The text with every character escaped that a terminal would act upon or not show."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
        for char in text
    )


def is_narrow() -> bool:
    """Is standard output a terminal with less room than a table with sentences wants?"""
    console = _console()
    return console.is_terminal and console.width < _NARROW


def columns(rows: Sequence[Sequence[Text | str]], *, header: Sequence[str] = (), indent: int = 0) -> Table:
    """Rows in aligned columns without rules; the last column takes what room is left."""
    table = Table(
        box=None,
        show_header=bool(header),
        header_style=STRONG,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    count = max((len(row) for row in rows), default=len(header))
    names = [*header, *([""] * (count - len(header)))]
    for index, name in enumerate(names):
        title = " " * indent + name if index == 0 else name
        table.add_column(title, overflow="fold", no_wrap=index < count - 1 and _is_short(rows, index))
    for row in rows:
        cells = [cell if isinstance(cell, Text) else styled(cell) for cell in row]
        if indent and cells:
            cells[0] = Text(" " * indent).append_text(cells[0])
        table.add_row(*cells)
    return table


def _is_short(rows: Sequence[Sequence[Text | str]], index: int) -> bool:
    limit = 32
    return all(len(row[index]) <= limit for row in rows if index < len(row))


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=_UNWRAPPED)
    return console


def _print(console: Console, items: Sequence[RenderableType]) -> None:
    for item in items:
        piece = styled(item) if isinstance(item, str) else item
        if console.is_terminal:
            console.print(piece)
            continue
        with console.capture() as capture:
            console.print(piece)
        text = "\n".join(line.rstrip() for line in capture.get().split("\n"))
        console.file.write(text)
