"""The comparison with the peers, without the peers: is the table of differences exact?"""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from app.wire import guid
from app.wire.certificate_table import CertificateTable
from app.wire.product import ProductLine
from tests.interop.peers import differences
from tests.interop.peers.builds import CHECK, SNPGUEST, Build, PeerAbsentError
from tests.interop.peers.case import Case, Certificates
from tests.interop.peers.differences import Difference, Result, compare, load
from tests.interop.peers.peers import Check, Snpguest
from tests.interop.peers.verdict import Answer, Exit, Verdict

REPOSITORY = Path(__file__).resolve().parents[2]
TABLE = Path(differences.__file__).with_name("differences.toml")

ACCEPTS = Verdict(Answer.ACCEPTS)
REFUSES = Verdict(Answer.REFUSES, "snp.vek.hwid")
NO_HWID = Difference(
    id="no-hwid",
    peer="snpguest",
    cases=("synthetic/hwid-*",),
    theirs=Answer.ACCEPTS,
    ours=Answer.REFUSES,
    because="snp.vek.hwid",
    why="it never compares the chip",
)
DIFFERENT = Result(case="synthetic/hwid-other", peer="snpguest", theirs=ACCEPTS, ours=REFUSES)
AGREED = Result(case="synthetic/good", peer="snpguest", theirs=ACCEPTS, ours=ACCEPTS)


def test_agreement_needs_no_table() -> None:
    both_refuse = replace(AGREED, theirs=Verdict(Answer.REFUSES, "x"), ours=Verdict(Answer.CANNOT_JUDGE, "y"))
    assert compare([AGREED, both_refuse], []).holds


def test_a_difference_outside_the_table_fails_the_run() -> None:
    comparison = compare([AGREED, DIFFERENT], [])
    assert comparison.unexplained == (DIFFERENT,)
    assert not comparison.holds


def test_an_explained_difference_passes() -> None:
    comparison = compare([AGREED, DIFFERENT], [NO_HWID])
    assert comparison.explained == ((DIFFERENT, NO_HWID),)
    assert comparison.holds


@pytest.mark.parametrize(
    "entry",
    [
        replace(NO_HWID, peer="check"),
        replace(NO_HWID, cases=("synthetic/tcb-*",)),
        replace(NO_HWID, theirs=Answer.REFUSES, ours=Answer.ACCEPTS),
        replace(NO_HWID, because="snp.chain"),
    ],
    ids=["another peer", "other cases", "the other way round", "for another reason"],
)
def test_an_entry_explains_only_what_it_states(entry: Difference) -> None:
    assert compare([DIFFERENT], [entry]).unexplained == (DIFFERENT,)


def test_two_explanations_are_none() -> None:
    comparison = compare([DIFFERENT], [NO_HWID, replace(NO_HWID, id="again")])
    assert comparison.ambiguous == (DIFFERENT,)
    assert not comparison.holds


def test_an_explained_difference_that_is_gone_fails_the_run() -> None:
    now_agreed = replace(DIFFERENT, case="synthetic/hwid-missing", theirs=REFUSES)
    comparison = compare([DIFFERENT, now_agreed], [NO_HWID])
    assert len(comparison.stale) == 1
    assert "synthetic/hwid-missing" in comparison.stale[0]
    assert not comparison.holds


def test_a_pattern_without_cases_fails_the_run() -> None:
    entry = replace(NO_HWID, cases=("synthetic/hwid-*", "synthetic/gone"))
    assert compare([DIFFERENT], [entry]).stale == ("no-hwid: no case matches synthetic/gone",)


def test_what_did_not_run_is_not_judged() -> None:
    other_source = replace(NO_HWID, id="simulated", cases=("simulated/hwid",))
    other_peer = replace(NO_HWID, id="go", peer="check")
    assert compare([DIFFERENT], [NO_HWID, other_source, other_peer]).holds


def test_a_verifier_that_fails_agrees_with_nobody() -> None:
    crash = Verdict(Answer.FAILS, "exit status 101: panicked")
    assert not crash.agrees_with(REFUSES)
    assert not ACCEPTS.agrees_with(crash)
    assert compare([replace(DIFFERENT, theirs=crash)], [NO_HWID]).unexplained


@pytest.mark.parametrize(
    ("status", "answer"),
    [(0, Answer.ACCEPTS), (1, Answer.REFUSES), (101, Answer.FAILS), (-9, Answer.FAILS), (None, Answer.FAILS)],
)
def test_an_exit_status_of_its_own_is_a_failure(status: int | None, answer: Answer) -> None:
    verdict = Exit(status, "out", "first\n  second").says({0: Answer.ACCEPTS, 1: Answer.REFUSES})
    assert verdict.answer is answer
    assert ("first second" in verdict.detail) == (answer is not Answer.ACCEPTS)


@pytest.mark.parametrize(
    "change",
    [('peer = "x"', ""), ("why", "wyh"), ('"accepts"', '"likes"'), ('["a/*"]', "[]"), ('["a/*"]', '"a/*"')],
    ids=["key missing", "key unknown", "answer unknown", "no cases", "cases not a list"],
)
def test_a_table_with_a_wrong_entry_does_not_load(tmp_path: Path, change: tuple[str, str]) -> None:
    entry = """
[[difference]]
id = "a"
peer = "x"
cases = ["a/*"]
theirs = "accepts"
ours = "refuses"
because = "b"
why = "c"
"""
    table = tmp_path / "differences.toml"
    table.write_text(entry)
    assert [difference.id for difference in load(table)] == ["a"]
    table.write_text(entry + entry)
    with pytest.raises(ValueError, match="occurs twice"):
        load(table)
    table.write_text(entry.replace(*change))
    with pytest.raises(ValueError, match="validation error"):
        load(table)


def test_the_page_explains_exactly_the_table() -> None:
    page = (REPOSITORY / "docs" / "peers.md").read_text()
    headings = re.findall(r"^#### `(.+)`$", page, flags=re.MULTILINE)
    assert sorted(headings) == sorted(difference.id for difference in load(TABLE))
    for build in (CHECK, SNPGUEST):
        assert f"{build.name} {build.version}" in page


def test_a_missing_toolchain_is_a_named_absence(tmp_path: Path) -> None:
    absent = replace(CHECK, toolchain="no-such-toolchain")
    with pytest.raises(PeerAbsentError, match=r"no no-such-toolchain to build check"):
        absent.binary(tmp_path)


def test_a_build_that_fails_is_a_named_absence(tmp_path: Path) -> None:
    broken = Build(
        name="broken",
        version="1",
        toolchain="sh",
        command=("sh", "-c", "echo compiling >&2; echo no registry >&2; exit 1"),
        folder_variable="OUT",
        program="broken",
    )
    with pytest.raises(PeerAbsentError, match="does not build here: no registry"):
        broken.binary(tmp_path)


def test_a_build_is_kept(tmp_path: Path) -> None:
    build = Build(
        name="kept",
        version="1",
        toolchain="sh",
        command=("sh", "-c", 'echo built >> "$OUT/kept"'),
        folder_variable="OUT",
        program="kept",
    )
    assert build.binary(tmp_path) == build.binary(tmp_path)
    assert build.binary(tmp_path).read_text() == "built\n"


@pytest.fixture
def case(tmp_path: Path) -> Case:
    files = {name: tmp_path / name for name in ("report", "leaf", "intermediate", "root")}
    for name, file in files.items():
        file.write_text(name)
    certificates = {name: file for name, file in files.items() if name != "report"}
    return Case(
        name="a/b",
        line=ProductLine.GENOA,
        report=files["report"],
        offered=Certificates(vlek=True, **certificates),
    )


def _program(folder: Path, *lines: str) -> Path:
    program = folder / "program"
    program.write_text("\n".join(("#!/bin/sh", *lines)))
    program.chmod(0o755)
    return program


def test_check_is_given_report_and_table_in_one_file(case: Case, tmp_path: Path) -> None:
    program = _program(tmp_path, f'for file; do :; done; cp "$file" {tmp_path}/seen; echo no >&2; exit 5')
    assert Check(program).judge(case) == Verdict(Answer.REFUSES, "no")
    seen = (tmp_path / "seen").read_bytes()
    assert seen.startswith(b"report")
    table = CertificateTable.parse(seen.removeprefix(b"report"))
    assert [table.get(name) for name in (guid.VLEK, guid.ASK, guid.ARK)] == [
        b"leaf",
        b"intermediate",
        b"root",
    ]


def test_snpguest_is_given_certificates_by_name_and_asked_twice(case: Case, tmp_path: Path) -> None:
    program = _program(tmp_path, f'echo "$2" >> {tmp_path}/steps')
    assert Snpguest(program).judge(case) == Verdict(Answer.ACCEPTS)
    assert (tmp_path / "steps").read_text() == "certs\nattestation\n"


def test_snpguest_that_refuses_the_chain_is_not_asked_about_the_report(case: Case, tmp_path: Path) -> None:
    program = _program(
        tmp_path, f'echo "$2" >> {tmp_path}/steps', 'cat "$3"/vlek.der "$3"/asvk.der "$3"/ark.der; exit 1'
    )
    assert Snpguest(program).judge(case) == Verdict(Answer.REFUSES, "leafintermediateroot")
    assert (tmp_path / "steps").read_text() == "certs\n"


def test_snpguest_does_not_take_tables(case: Case, tmp_path: Path) -> None:
    assert Snpguest(tmp_path).judge(replace(case, offered=None, table=case.report)) is None
