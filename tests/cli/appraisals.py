"""Command lines of appraisals whose evidence the vectors hold."""

from pathlib import Path

from tests.cli.command_line import Ended

AT = "2026-11-23T12:00:00Z"


def outcomes(ended: Ended) -> dict[str, str]:
    return {finding["check"]: finding["outcome"] for finding in ended.json["findings"]}


def options(vectors: Path, name: str) -> list[str]:
    """A real report with its certificates, offline."""
    line = name.split("-", maxsplit=1)[0]
    folder = vectors / name
    certs = [folder / "vcek.der", vectors / "ca" / f"{line}-ask.der", vectors / "ca" / f"{line}-ark.der"]
    parts = ["verify", "--report", str(folder / "report.bin"), "--offline", "--at", AT]
    return parts + [part for path in certs for part in ("--certs", str(path))]


def svsm(vectors: Path, name: str = "svsm-vtpm-good") -> list[str]:
    """Synthetic SVSM evidence, under a root that takes --trust-root."""
    synthetic = vectors / "synthetic" / "genoa"
    folder = synthetic / name
    parts = ["verify", "--report", str(folder / "report.bin"), "--offline", "--at", AT]
    parts += ["--manifest", str(next(folder.glob("manifest-*.bin")))]
    for file in ("vcek.der", "ask.der", "ark.der"):
        parts += ["--certs", str(synthetic / file)]
    return parts
