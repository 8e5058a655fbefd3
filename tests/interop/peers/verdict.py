"""What a verifier said about one report and its certificates."""

import os
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

TIMEOUT_S = 60.0
MAX_DETAIL = 400  # characters of a message that are kept


class Answer(StrEnum):
    """A verdict in the words that all verifiers share."""

    ACCEPTS = "accepts"
    REFUSES = "refuses"
    CANNOT_JUDGE = "cannot judge"  # it says that it lacks something
    FAILS = "fails"  # it crashed, hung or used an exit status of its own


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer, and the verifier's own words for it (empty when it accepts)."""

    answer: Answer
    detail: str = ""

    def agrees_with(self, other: "Verdict") -> bool:
        """Do both accept, or do both not accept? A verifier that fails agrees with nobody."""
        if Answer.FAILS in (self.answer, other.answer):
            return False
        return (self.answer is Answer.ACCEPTS) == (other.answer is Answer.ACCEPTS)


@dataclass(frozen=True, slots=True)
class Exit:
    """How a command ended. `status` is None after a timeout, negative after a signal."""

    status: int | None
    stdout: str
    stderr: str

    def says(self, answers: dict[int, Answer]) -> Verdict:
        """The verdict that this exit status stands for, with the last words as its detail."""
        answer = Answer.FAILS if self.status is None else answers.get(self.status, Answer.FAILS)
        if answer is Answer.ACCEPTS:
            return Verdict(answer)
        words = " ".join((self.stderr.strip() or self.stdout.strip()).split())
        if answer is Answer.FAILS:
            words = f"exit status {self.status}: {words}"
        return Verdict(answer, words[:MAX_DETAIL])


def execute(program: Path, *arguments: str | Path) -> Exit:
    """Run a verifier, with neither input nor colours, for a bounded time."""
    command = (str(program), *map(str, arguments))
    quiet = os.environ | {"NO_COLOR": "1", "RUST_BACKTRACE": "0", "COLUMNS": "1000"}
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=quiet,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return Exit(None, "", f"no answer within {TIMEOUT_S:.0f} s")
    return Exit(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
