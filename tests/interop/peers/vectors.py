"""The shared vectors as cases: every report that comes with certificates, good and bad."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.wire.product import ProductLine
from tests.interop.peers.case import Case, Certificates

VLEK_VALID_AT = "2025-06-01T00:00:00Z"  # a VLEK lives for one year: both of the vectors' have expired


def vector_cases(folder: Path) -> Iterator[Case]:
    """Cases named `real/`, `negative/`, `synthetic/` and `table/` after the parts of vectors.json."""
    index = json.loads((folder / "vectors.json").read_text())
    amd_roots = {line: folder / files["ark"] for line, files in index["anchors"].items()}
    for source, part in (("real", "real"), ("negative", "negatives"), ("synthetic", "synthetic")):
        for entry in index[part]:
            yield from _with_certificates(folder, source, entry, amd_roots)
    for entry in index["certificate_tables"]:
        yield Case(
            name=f"table/{entry['id']}",
            line=ProductLine.GENOA,
            report=folder / "genoa-v5-a/report.bin",  # whose certificates the tables hold
            table=folder / entry["file"],
        )


def _with_certificates(
    folder: Path, source: str, entry: dict[str, Any], amd_roots: dict[str, Path]
) -> Iterator[Case]:
    files = {kind: folder / file for kind, file in entry["files"].items()}
    vlek = "vlek" in files
    leaves = [kind for kind in ("vcek", "vlek", "vcek_alt") if kind in files]
    reports = [kind for kind in ("report", "report_as_published") if kind in files]
    for leaf in leaves:
        for report in reports:
            offered = Certificates(
                leaf=files[leaf],
                intermediate=files.get("ask") or files["asvk"],
                root=files["ark"],
                vlek=vlek,
            )
            trusted = folder / "synthetic/genoa/ark.der" if source == "synthetic" else None
            root = trusted or (amd_roots[entry["product_line"]] if vlek else None)
            yield Case(
                name=f"{source}/" + "+".join([entry["id"], *{leaf, report} - {"vcek", "vlek", "report"}]),
                line=ProductLine(entry["product_line"]),
                report=files[report],
                offered=offered,
                trusted=trusted,
                ca_bundle=None if root is None else (offered.intermediate, root),
                valid_at=VLEK_VALID_AT if vlek else None,
            )
