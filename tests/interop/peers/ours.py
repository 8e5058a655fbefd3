"""Our own command line as a function from a case to a verdict.

Every case gets a process of its own, forked from one that has the command's modules loaded:
nothing is remembered from one case to the next, and nothing is imported three hundred times.

What is compared is `genuine`: whether the report is one that a genuine AMD security processor
signed. A case that asks for REPORT_DATA is accepted only if that check passes as well.
"""

import io
import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Self

from app.cli.application import run
from tests.interop.peers.case import Case
from tests.interop.peers.verdict import TIMEOUT_S, Answer, Exit, Verdict

GENUINE = ("snp.signature", "snp.chain", "snp.vek.kind", "snp.vek.tcb", "snp.vek.hwid", "snp.product")
REPORT_DATA = slice(0x50, 0x90)
REPORT_DATA_CHECK = "snp.report_data"

_JUDGED = (0, 1)
_NOT_JUDGED = {2: Answer.REFUSES, 3: Answer.CANNOT_JUDGE}


@dataclass(frozen=True, slots=True)
class Ours:
    """`svsm-attest verify`, offline, with an endorsement store that is empty."""

    _processes: ProcessPoolExecutor

    @classmethod
    @contextmanager
    def started(cls, parallel: int) -> Iterator[Self]:
        """Ready to judge so many cases at a time."""
        context = get_context("forkserver")
        context.set_forkserver_preload(["app.cli.verify", __name__])
        with ProcessPoolExecutor(parallel, mp_context=context, max_tasks_per_child=1) as processes:
            yield cls(processes)

    def judge(self, case: Case, *, at: str | None = None) -> Verdict:
        """Its verdict at the given RFC 3339 time, by default now."""
        done = self._processes.submit(_verify, [str(word) for word in _arguments(case, at)]).result(TIMEOUT_S)
        if done.status in _JUDGED:
            return _verdict(done, case)
        return done.says(_NOT_JUDGED)


def _verify(arguments: list[str]) -> Exit:
    """In a process of its own."""
    with (
        tempfile.TemporaryDirectory() as store,
        redirect_stdout(io.StringIO()) as stdout,
        redirect_stderr(io.StringIO()) as stderr,
    ):
        status = run(["verify", *arguments, "--store", store])
    return Exit(status, stdout.getvalue(), stderr.getvalue())


def _arguments(case: Case, at: str | None) -> Iterator[str | Path]:
    own = case.report.read_bytes()[REPORT_DATA].ljust(64, b"\0")
    yield from ("--report", case.report, "--report-data", (case.report_data or own).hex())
    for file in _certificate_files(case):
        yield from ("--certs", file)
    if case.trusted is not None:
        yield from ("--trust-root", case.trusted)
    if at is not None:
        yield from ("--at", at)
    yield from ("--offline", "--json")


def _certificate_files(case: Case) -> tuple[Path, ...]:
    if case.table is not None:
        return (case.table,)
    if case.offered is None:
        return ()
    return (case.offered.leaf, case.offered.intermediate, case.offered.root)


def _verdict(done: Exit, case: Case) -> Verdict:
    result: dict[str, Any] = json.loads(done.stdout)
    asked = GENUINE if case.report_data is None else (*GENUINE, REPORT_DATA_CHECK)
    outcome = {finding["check"]: finding["outcome"] for finding in result["findings"]}
    failed = [check for check in asked if outcome.get(check) != "passed"]
    if result["genuine"] is not (not set(failed) & set(GENUINE)):
        return Verdict(Answer.FAILS, f"genuine is {result['genuine']}, but not passed: {failed}")
    return Verdict(Answer.REFUSES, ", ".join(failed)) if failed else Verdict(Answer.ACCEPTS)
