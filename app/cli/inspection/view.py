"""Sheets on the terminal."""

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from app.cli.inspection.sheet import Row, Section, Sheet
from app.cli.terminal import BAD, FAINT, STRONG, columns, joined, styled


def render(sheet: Sheet, name: str) -> Iterator[RenderableType]:
    """Everything a sheet holds, in reading order, under the name of where it stands."""
    yield joined((name, FAINT), (": ", FAINT), (sheet.title, STRONG), (f" ({sheet.size} bytes)", FAINT))
    for remark in sheet.remarks:
        yield styled(remark, BAD if remark.startswith("SIMULATED") else "")
    for section in sheet.sections:
        yield Text()
        yield styled(section.title, STRONG)
        yield _table(section)
    for place, part in sheet.parts:
        yield Text()
        yield from render(part, f"{name}, {place}")


def _table(section: Section) -> RenderableType:
    places = any(row.place for row in section.rows)
    cells = []
    for row in section.rows:
        place = [styled(row.place, FAINT)] if places else []
        cells.append([*place, styled(row.name), _value(row)])
    return columns(cells, indent=2)


def _value(row: Row) -> Text:
    value = styled(row.value, BAD if row.alarming else "")
    if not row.note:
        return value
    return joined(value, "  " if row.value else "", (row.note, BAD if row.alarming else FAINT))
