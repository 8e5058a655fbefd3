"""Run the peers beside our command line and hold every difference against differences.toml.

Exit status 0: every difference is explained, or there was nothing to run (each part that could
not run is named in a SKIPPED line). 1: an unexplained difference, or an explained one that no
longer occurs.
"""

# ruff: noqa: T201 -- what it prints is what it is for

import argparse
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from tests.interop.peers import builds, differences
from tests.interop.peers.case import Case
from tests.interop.peers.ours import Ours
from tests.interop.peers.peers import Check, Peer, Snpguest
from tests.interop.peers.simulated import simulated_cases
from tests.interop.peers.vectors import vector_cases
from tests.interop.peers.verdict import Answer

REPOSITORY = Path(__file__).resolve().parents[3]
TABLE = Path(__file__).with_name("differences.toml")
PARALLEL = 2

_PEERS: tuple[tuple[builds.Build, Callable[[Path], Peer]], ...] = (
    (builds.CHECK, Check),
    (builds.SNPGUEST, Snpguest),
)


def main() -> int:
    """Build, run, compare, report."""
    parser = argparse.ArgumentParser(prog="peers-test", description=__doc__)
    parser.add_argument("--all", action="store_true", help="print every result, not only the differences")
    options = parser.parse_args()

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    peers = tuple(_available_peers())
    if not peers:
        return 0
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        cases = (*simulated_cases(Path(folder), builds.CACHE / "simulator"), *_vector_cases())
        with Ours.started(PARALLEL) as ours, ThreadPoolExecutor(PARALLEL) as pool:
            results = tuple(r for rs in pool.map(lambda case: _judge(case, peers, ours), cases) for r in rs)
    comparison = differences.compare(results, differences.load(TABLE))
    _print_results(comparison, everything=options.all)
    print(f"{len(cases)} cases in {time.monotonic() - started:.0f} s")
    return 0 if comparison.holds else 1


def _available_peers() -> Iterator[Peer]:
    for build, peer in _PEERS:
        try:
            program = build.binary(builds.CACHE)
        except builds.PeerAbsentError as reason:
            _skip(str(reason))
        else:
            yield peer(program)


def _vector_cases() -> Iterator[Case]:
    folder = Path(os.environ.get("SVSM_ATTEST_VECTORS", REPOSITORY.parent / "shared" / "vectors"))
    if (folder / "vectors.json").is_file():
        yield from vector_cases(folder)
    else:
        _skip("no test vectors: set SVSM_ATTEST_VECTORS")


def _skip(reason: str) -> None:
    print(f"SKIPPED: peers-test: {reason}", flush=True)


def _judge(case: Case, peers: Sequence[Peer], ours: Ours) -> list[differences.Result]:
    """Every peer's verdict beside ours; a peer without a clock beside ours while the case was valid."""
    verdicts = {peer: verdict for peer in peers if (verdict := peer.judge(case)) is not None}
    times = {peer: None if peer.has_clock else case.valid_at for peer in verdicts}
    at_time = {at: ours.judge(case, at=at) for at in set(times.values())}
    return [
        differences.Result(case=case.name, peer=peer.name, theirs=verdict, ours=at_time[times[peer]])
        for peer, verdict in verdicts.items()
    ]


def _print_results(comparison: differences.Comparison, *, everything: bool) -> None:
    if everything:
        for result in comparison.results:
            print(result)
    for build, _ in _PEERS:
        results = [result for result in comparison.results if result.peer == build.name]
        agreed = Counter(r.theirs.answer is Answer.ACCEPTS for r in results if r.theirs.agrees_with(r.ours))
        reasons = Counter(reason.id for result, reason in comparison.explained if result.peer == build.name)
        if results:
            print(
                f"{build.name} {build.version}: {len(results)} cases: {agreed[True]} accepted by both, "
                f"{agreed[False]} by neither, {reasons.total()} differ as explained"
            )
        for reason, count in reasons.items():
            print(f"{count:5} {reason}")
    for result in comparison.unexplained:
        print(f"UNEXPLAINED {result}")
    for result in comparison.ambiguous:
        print(f"EXPLAINED TWICE {result}")
    for line in comparison.stale:
        print(f"STALE {line}")


if __name__ == "__main__":
    sys.exit(main())
