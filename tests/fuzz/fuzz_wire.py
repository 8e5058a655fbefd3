"""Feeds every reader of outside bytes with what libFuzzer makes up.

    python tests/fuzz/fuzz_wire.py [--targets=NAME,NAME] CORPUS [-max_total_time=300] [libFuzzer options]

Needs atheris and the packages of requirements-dev.lock. The first byte of an input chooses the
target, the rest is what the target reads. CORPUS is made and seeded if need be; published vectors
join the seeds where SVSM_ATTEST_VECTORS names their folder.
"""

import hashlib
import logging
import os
import sys
from pathlib import Path

import atheris  # type: ignore[import-untyped]  # lives in an environment of its own
import structlog

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

with atheris.instrument_imports(include=["app"]):
    from tests.fuzz.seeds import own, published
    from tests.fuzz.targets import TARGETS

_CHOICE = "--targets="


def _seed(corpus: Path, names: list[str]) -> None:
    corpus.mkdir(parents=True, exist_ok=True)
    vectors = os.environ.get("SVSM_ATTEST_VECTORS")
    inputs = [*own(), *(published(Path(vectors)) if vectors else ())]
    for name, raw in inputs:
        if name in names:
            data = bytes([names.index(name)]) + raw
            (corpus / f"{name}-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)


def main(arguments: list[str]) -> None:
    """Fuzz until libFuzzer is told to stop or a target lets something escape."""
    chosen = [argument for argument in arguments if argument.startswith(_CHOICE)]
    names = chosen[0].removeprefix(_CHOICE).split(",") if chosen else list(TARGETS)
    targets = [TARGETS[name] for name in names]

    def one_input(data: bytes) -> None:
        if data:
            targets[data[0] % len(targets)].feed(data[1:])

    rest = [argument for argument in arguments if argument not in chosen]
    for folder in [argument for argument in rest[1:] if not argument.startswith("-")][:1]:
        _seed(Path(folder), names)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    atheris.Setup(rest, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
