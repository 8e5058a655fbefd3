"""The table of explained differences, and what a run must say for the table to be true.

An entry stands for one reason. It names its cases by pattern, and it is exact: every case that
ran and matches must differ in the stated way, and every difference must be explained by exactly
one entry. So a peer that changes its mind, or we, fails the run either way.
"""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import pydantic.dataclasses
from pydantic import Field, TypeAdapter

from tests.interop.peers.verdict import Answer, Verdict

Text = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One case as a peer and we judged it."""

    case: str
    peer: str
    theirs: Verdict
    ours: Verdict

    def __str__(self) -> str:
        sides = ((self.peer, self.theirs), ("svsm-attest", self.ours))
        said = (f"{who} {what.answer}" + (f" ({what.detail})" if what.detail else "") for who, what in sides)
        return f"{self.case}: {', '.join(said)}"


@pydantic.dataclasses.dataclass(frozen=True, slots=True, kw_only=True, config={"extra": "forbid"})
class Difference:
    """Why a peer and we differ on some cases.

    Attributes:
        cases: shell patterns over case names (`source/id`).
        because: a part of the refusing side's own words that shows the stated reason.
    """

    id: Text
    peer: Text
    cases: Annotated[tuple[Text, ...], Field(min_length=1)]
    theirs: Answer
    ours: Answer
    because: Text
    why: Text

    def covers(self, case: str, peer: str) -> bool:
        """Is this pair of case and peer one of those the entry is about?"""
        return peer == self.peer and any(fnmatchcase(case, pattern) for pattern in self.cases)

    def explains(self, result: Result) -> bool:
        """Did they differ in the way, and for the reason, that the entry states?"""
        if not self.covers(result.case, result.peer):
            return False
        if (result.theirs.answer, result.ours.answer) != (self.theirs, self.ours):
            return False
        return self.because in (result.theirs.detail or result.ours.detail)


def load(path: Path) -> tuple[Difference, ...]:
    """The table of a TOML file.

    Raises:
        ValueError: not TOML, an entry that is not a Difference, or an id that occurs twice.
    """
    document = tomllib.loads(path.read_text())
    differences = _TABLE.validate_python(document.pop("difference", ()))
    if document or len({difference.id for difference in differences}) != len(differences):
        raise ValueError(f"{path.name}: an id occurs twice, or there is more than differences")
    return differences


_TABLE = TypeAdapter(tuple[Difference, ...])


@dataclass(frozen=True, slots=True)
class Comparison:
    """A run held against the table."""

    results: tuple[Result, ...]
    explained: tuple[tuple[Result, Difference], ...]
    unexplained: tuple[Result, ...]
    ambiguous: tuple[Result, ...]  # more than one entry claims to explain it
    stale: tuple[str, ...]  # what the table says and the run does not show

    @property
    def holds(self) -> bool:
        """Is every difference explained, by one entry, and does every explained one occur?"""
        return not (self.unexplained or self.ambiguous or self.stale)


def compare(results: Iterable[Result], table: Iterable[Difference]) -> Comparison:
    """Hold a run against the table.

    Only what ran is judged: a pattern of a source or peer of which nothing ran is left alone.
    """
    results, table = tuple(results), tuple(table)
    explained: list[tuple[Result, Difference]] = []
    unexplained: list[Result] = []
    ambiguous: list[Result] = []
    for result in results:
        if result.theirs.agrees_with(result.ours):
            continue
        reasons = [difference for difference in table if difference.explains(result)]
        if len(reasons) == 1:
            explained.append((result, reasons[0]))
        else:
            (ambiguous if reasons else unexplained).append(result)
    return Comparison(
        results, tuple(explained), tuple(unexplained), tuple(ambiguous), tuple(_stale(results, table))
    )


def _stale(results: tuple[Result, ...], table: tuple[Difference, ...]) -> Iterable[str]:
    ran = {(result.peer, _source(result.case)) for result in results}
    for difference in table:
        for pattern in difference.cases:
            if (difference.peer, _source(pattern)) not in ran:
                continue
            matching = [r for r in results if r.peer == difference.peer and fnmatchcase(r.case, pattern)]
            if not matching:
                yield f"{difference.id}: no case matches {pattern}"
            for result in matching:
                if result.theirs.agrees_with(result.ours):
                    yield f"{difference.id}: no difference any more in {result}"


def _source(case: str) -> str:
    return case.partition("/")[0]
