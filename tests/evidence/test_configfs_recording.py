"""The table against the recording that it was made from, where that file is at hand."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.evidence.replay.table import SECTIONS

RECORDING = Path(__file__).resolve().parents[3] / "shared" / "reference" / "configfs-tsm-kernel-trace.txt"
TABLES = {section.name: section.table for section in SECTIONS}
LIST = r"(\[.*?\])"


@pytest.fixture(scope="module")
def recording() -> str:
    if not RECORDING.is_file():
        pytest.skip(f"no recording of the kernel at {RECORDING.name}")
    return RECORDING.read_text()


def part(recording: str, title: str) -> list[str]:
    return recording.partition(f"--- {title}\n")[2].partition("\n---")[0].splitlines()


def matches(lines: list[str], pattern: str) -> Iterator[tuple[str, ...]]:
    for line in lines:
        if match := re.match(pattern, line):
            yield match.groups()


def results(text: str) -> list[object]:
    """The writes' results: what close() said comes last, and never says anything."""
    writes: list[object]
    *writes, close = ast.literal_eval(text)
    assert close == "close:None"
    return writes


def seen(text: str) -> str:
    if not text.startswith("<"):
        return text
    kinds = {"<1184B": "report", "<314B 5353": "single", "<314B 5454": "table", "<0B": "empty"}
    return next(kind for start, kind in kinds.items() if text.startswith(start))


def size(text: str) -> object:
    return int(text[1:].partition("B")[0]) if text.startswith("<") else text


def test_modes(recording: str) -> None:
    lines = part(recording, "0 modes")
    found = [
        (name, (int(mode, 8), int(bytes_), int(uid)))
        for name, mode, bytes_, uid in matches(lines, r"   (\w+) 0o(\d+) size (\d+) uid (\d+)$")
    ]
    assert tuple(found) == TABLES["modes"][: len(found)]
    assert dict(TABLES["modes"])["(every name)"] == len(found) == 11


def test_writes_before_any_report(recording: str) -> None:
    found = [
        (ast.literal_eval(value), (results(written), int(moved)))
        for value, written, moved in matches(
            part(recording, "3 privlevel"), rf"privlevel (b'.*?') {LIST} gen\+ (\d)"
        )
    ]
    assert tuple(found) == TABLES["privlevel"]


@pytest.mark.parametrize(
    ("title", "name", "blob"),
    [
        ("4 service_provider", "service_provider", "outblob"),
        ("5 service_guid", "service_guid", "manifest"),
        ("6 manifest version", "service_manifest_version", "outblob"),
    ],
)
def test_writes_that_change_the_report(recording: str, title: str, name: str, blob: str) -> None:
    pattern = rf"(b'.*?') {LIST} gen\+ (\d) {blob} (<.*?>|\w+)"
    found = [
        (ast.literal_eval(value), (results(written), int(moved), seen(after)))
        for value, written, moved, after in matches(part(recording, title), pattern)
    ]
    assert tuple(found) == tuple(row for row in TABLES[name] if isinstance(row[0], bytes))


def test_inblob(recording: str) -> None:
    pattern = rf"{LIST} {LIST} gen\+ (\d) outblob (<.*?>|\w+)"
    found = [
        (ast.literal_eval(chunks), (results(written), int(moved), seen(after)))
        for chunks, written, moved, after in matches(part(recording, "7 inblob sizes"), pattern)
    ]
    assert found == [([len(chunk) for chunk in chunks], shown) for chunks, shown in TABLES["inblob"]]


def test_errors(recording: str) -> None:
    found = [
        (name, (first, second, int(calls), seen(after)))
        for name, first, second, calls, after in matches(
            part(recording, "9 errno propagation"), r"(\w+) -> (\w+) (\w+) calls (\d) then ok (<.*>)"
        )
    ]
    assert tuple(found) == TABLES["provider_errors"]


def test_sizes(recording: str) -> None:
    found = [
        (ast.literal_eval(asked), (size(out), size(manifest), size(certificates)))
        for asked, out, manifest, certificates in matches(
            part(recording, "10 sizes"), r"(\(.*?\)) out (<.*?>|\w+) man (<.*?>|\w+) aux (<.*?>|\w+)"
        )
    ]
    assert tuple(found) == TABLES["sizes"]


def test_directories(recording: str) -> None:
    lines = part(recording, "11 dirs")
    table = [(action, shown) for action, shown in TABLES["directories"]]
    assert lines[0] == " ".join(f"{action} {shown}" for action, shown in table[:6])
    assert [line.rpartition(" ")[2] for line in lines[1:6]] == [str(shown) for _, shown in table[6:11]]
    assert lines[6:] == [
        "rmtree EPERM True",
        "after rmdir False",
        "rmdir with open fds None unread fd ENOENT already-read fd <1174B 33884667>",
        "rmdir report EPERM mkdir tsm/x EPERM",
    ]
    assert dict(table[11:]) == {
        "rmtree": ("EPERM", True),
        "after rmdir": False,
        "rmdir with open fds": None,
        "unread fd": "ENOENT",
        "already-read fd": 1174,
        "rmdir report": "EPERM",
        "mkdir tsm/x": "EPERM",
    }


def test_single_lines(recording: str) -> None:
    """What the recording says in words, beside what the table says of it."""
    lines = recording.splitlines()
    gone, without_svsm = dict(TABLES["provider_gone"]), dict(TABLES["no_svsm"])
    assert gone["provider"] == gone["privlevel_floor"] == gone["mkdir"] == gone["outblob"] == "ENXIO"
    assert gone["privlevel"] == (["ENXIO"], 0)
    assert any(
        "provider ENXIO floor ENXIO privlevel ['ENXIO', 'close:None'] mkdir ENXIO "
        "write inblob [64, 'close:None'] outblob ENXIO" in line
        for line in lines
    )
    assert f"attrs at vmpl0 {without_svsm['attributes without an SVSM']}" in lines
    asked = dict(TABLES["inblob_only"])["asked"]
    assert f"[64, 'close:None'] gen 1 outblob EINVAL last {asked}" in lines
    plain = dict(TABLES["plain_report"])
    assert any(line.endswith(f"last {plain['asked']} manifest <0B > aux <0B >") for line in lines)
    descriptors = dict(TABLES["descriptors"])
    assert descriptors["read on after a new report"] == (1084, "the old one")
    assert "old fd after rewrite 1084 same report as fresh? False" in lines
    assert descriptors["seek in outblob"] == descriptors["seek in inblob"] == "ESPIPE"
    assert any(line.startswith("lseek outblob ESPIPE pread@0 <10B") for line in lines)
    assert any(line.startswith("lseek inblob ESPIPE pwrite@0 64 ") for line in lines)
    assert dict(TABLES["stale_certificates"])["reading auxblob"] == "killed"
    assert "reading auxblob, child status (159, 9)" in lines
