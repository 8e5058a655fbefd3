"""What each attribute takes and refuses, and what a report is made of afterwards."""

import os
import stat
from collections.abc import Iterator
from typing import Any

from tests.evidence.replay.bench import VTPM, Bench, attempt, read, see, select_svsm, write
from tests.evidence.replay.section import NONCE, section, written


@section(
    ("auxblob", (0o444, 0, 0)),
    ("generation", (0o444, 4096, 0)),
    ("inblob", (0o200, 0, 0)),
    ("manifestblob", (0o444, 0, 0)),
    ("outblob", (0o444, 0, 0)),
    ("privlevel", (0o200, 4096, 0)),
    ("privlevel_floor", (0o444, 4096, 0)),
    ("provider", (0o444, 4096, 0)),
    ("service_guid", (0o200, 4096, 0)),
    ("service_manifest_version", (0o200, 4096, 0)),
    ("service_provider", (0o200, 4096, 0)),
    ("(every name)", 11),
    (".", (0o755, None, 0)),
    ("..", (0o755, None, 0)),
)
def modes(bench: Bench, names: list[str]) -> Iterator[object]:
    with bench.entry() as entry:
        for name in names:
            if name == "(every name)":
                yield len(list(entry.iterdir()))
                continue
            status = (entry / name).stat()
            yield stat.S_IMODE(status.st_mode), None if name[0] == "." else status.st_size, status.st_uid


@section(
    ("generation", b"0\n"),
    ("provider", b"sev_guest\n"),
    ("privlevel_floor", b"2\n"),
    ("outblob", "EINVAL"),
    ("auxblob", "EINVAL"),
    ("manifestblob", "EINVAL"),
    ("inblob for reading", "EACCES"),
    ("outblob for writing", "EACCES"),
)
def new_entry(bench: Bench, actions: list[str]) -> Iterator[object]:
    with bench.entry() as entry:
        for action in actions:
            attribute, _, purpose = action.partition(" for ")
            if purpose:
                yield attempt(
                    os.open, entry / attribute, os.O_RDONLY if purpose == "reading" else os.O_WRONLY
                )
            else:
                yield see(entry / attribute) if attribute.endswith("blob") else read(entry / attribute)


@section(
    ("write 64", ([64], 1)),
    ("outblob", "EINVAL"),
    ("asked", "inlen=64 priv=0 sp=(null) guid=00000000-0000-0000-0000-000000000000 ver=0"),
)
def inblob_only(bench: Bench, _: list[str]) -> Iterator[object]:
    with bench.entry() as entry:
        yield written(entry, "inblob", NONCE)
        yield see(entry / "outblob")
        yield bench.knobs.get("last")


@section(
    (b"1", (["EINVAL"], 0)),
    (b"4", (["EINVAL"], 0)),
    (b"abc", (["EINVAL"], 0)),
    (b"-1", (["EINVAL"], 0)),
    (b"99999999999", (["ERANGE"], 0)),
    (b" 2", (["EINVAL"], 0)),
    (b"2 ", (["EINVAL"], 0)),
    (b"", (["EFAULT"], 0)),
    (b"0x3", ([3], 1)),
    (b"3\n", ([2], 1)),
    (b"2\n\n", (["EINVAL"], 0)),
    (b"2", ([1], 1)),
)
def privlevel(bench: Bench, values: list[bytes]) -> Iterator[object]:
    with bench.entry() as entry:
        for value in values:
            yield written(entry, "privlevel", value)


@section(
    ("outblob", "report"),
    ("asked", "inlen=64 priv=2 sp=(null) guid=00000000-0000-0000-0000-000000000000 ver=0"),
    ("manifestblob", "empty"),
    ("auxblob", "empty"),
)
def plain_report(bench: Bench, actions: list[str]) -> Iterator[object]:
    with bench.entry() as entry:
        write(entry / "privlevel", b"2")
        write(entry / "inblob", NONCE)
        for action in actions:
            yield bench.knobs.get("last") if action == "asked" else see(entry / action)


@section(
    (b"SVSM", ([4], 1, "EINVAL")),
    (b"svsm ", ([5], 1, "EINVAL")),
    (b"svsm\n\n", ([6], 1, "EINVAL")),
    (b"\n", ([1], 1, "EINVAL")),
    (b"svsm\n", ([5], 1, "report")),
    (b"", (["EFAULT"], 0, "report")),
    (b"svsm", ([4], 1, "report")),
    ("all three blobs, one call", ("report", "table", "empty", 0)),
)
def service_provider(bench: Bench, values: list[Any]) -> Iterator[object]:
    with bench.entry() as entry:
        write(entry / "inblob", NONCE)
        for value in values:
            if isinstance(value, bytes):
                yield *written(entry, "service_provider", value), see(entry / "outblob")
            else:
                before = int(bench.knobs.get("calls"))
                kinds = [see(entry / blob) for blob in ("outblob", "manifestblob", "auxblob")]
                yield *kinds, int(bench.knobs.get("calls")) - before


@section(
    (VTPM, ([36], 1, "single")),
    (VTPM + b"\n", ([37], 1, "single")),
    (VTPM.upper(), ([36], 1, "single")),
    (VTPM + b"TRAILING", ([44], 1, "single")),
    (b"{" + VTPM + b"}", (["EINVAL"], 1, "table")),
    (VTPM.replace(b"-", b""), (["EINVAL"], 1, "table")),
    (b"00000000-0000-0000-0000-000000", (["EINVAL"], 1, "table")),
    (b"garbage", (["EINVAL"], 1, "table")),
    (VTPM.replace(b"C", b"c"), ([36], 1, "single")),
    (b"00000000-0000-0000-0000-000000000000", ([36], 1, "table")),
    (b"", (["EFAULT"], 0, "table")),
)
def service_guid(bench: Bench, values: list[bytes]) -> Iterator[object]:
    with bench.entry() as entry:
        select_svsm(entry)
        write(entry / "inblob", NONCE)
        for value in values:
            yield *written(entry, "service_guid", value), see(entry / "manifestblob")


@section(
    (b"1", ([1], 1, "EINVAL")),
    (b"-1", (["EINVAL"], 0, "EINVAL")),
    (b"x", (["EINVAL"], 0, "EINVAL")),
    (b"", (["EFAULT"], 0, "EINVAL")),
    (b"0", ([1], 1, "report")),
)
def service_manifest_version(bench: Bench, values: list[bytes]) -> Iterator[object]:
    with bench.entry() as entry:
        select_svsm(entry)
        write(entry / "inblob", NONCE)
        for value in values:
            yield *written(entry, "service_manifest_version", value), see(entry / "outblob")


@section(
    ((bytes(65),), (["EFBIG"], 1, "EINVAL")),
    ((b"",), (["EFAULT"], 1, "EINVAL")),
    ((bytes(63),), ([63], 1, "EINVAL")),
    ((bytes(32), bytes(32)), ([32, 32], 1, "report")),
    ((bytes(64), bytes(1)), ([64, "EFBIG"], 1, "report")),
    ((bytes(32),), ([32], 1, "EINVAL")),
    ((bytes(64),), ([64], 1, "report")),
    ((), ([], 0, "report")),
)
def inblob(bench: Bench, writes: list[tuple[bytes, ...]]) -> Iterator[object]:
    with bench.entry() as entry:
        select_svsm(entry)
        write(entry / "inblob", NONCE)
        for chunks in writes:
            yield *written(entry, "inblob", *chunks), see(entry / "outblob")
