"""Text for people: aligned, plain where it is piped, and never steered by what came from outside."""

import re

import pytest
from rich.text import Text

from app.cli import terminal
from app.cli.verdict_view import render_verdict


def test_control_characters_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a\x1b[31mred\x07\u202eolleh\u200b\rback"
    terminal.show(hostile, terminal.columns([(hostile, Text("kept"))]), terminal.joined(hostile))
    shown = capsys.readouterr().out
    assert not any(char in shown for char in "\x1b\x07\u202e\u200b\r")
    assert shown.count("\\x1b[31mred\\x07\\u202eolleh\\u200b\\rback") == 3


def test_a_row_is_one_line_however_long_and_without_trailing_spaces(
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = "word " * 100
    terminal.show(terminal.columns([("a", long), ("bbb", "")], header=("X", "Y"), indent=2))
    lines = capsys.readouterr().out.split("\n")
    assert lines == ["  X    Y", f"  a    {long.strip()}", "  bbb", ""]


def test_facts_are_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show(terminal.columns([]), terminal.columns([("one", "1"), ("three", "3")], indent=2))
    assert capsys.readouterr().out.split("\n")[-3:] == ["  one    1", "  three  3", ""]


def test_messages_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.note("told")
    terminal.print_json({"ä": "\x1b"})
    shown = capsys.readouterr()
    assert shown.err == "told\n"
    assert shown.out == '{\n  "\\u00e4": "\\u001b"\n}\n'


def test_a_narrow_terminal_gets_findings_below_each_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = {"check": "snp.vmpl", "outcome": "failed", "actual": "2", "expected": "0", "why": "Why. " * 30}
    document = {"verdict": "contraindicated", "findings": [finding]}
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    for columns, narrow in (("60", True), ("160", False)):
        monkeypatch.setenv("COLUMNS", columns)
        assert terminal.is_narrow() is narrow
        terminal.show(*render_verdict(document))
        shown = capsys.readouterr().out
        plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
        assert plain != shown
        assert ("Outcome" in plain) is not narrow
        assert max(map(len, plain.split("\n"))) <= int(columns)
        assert "Expected: 0." in plain


def test_a_verdict_that_says_less_than_it_should(capsys: pytest.CaptureFixture[str]) -> None:
    for document in ({}, {"verdict": "none", "findings": 5, "caveats": "x", "policy": [], "endorsements": 1}):
        terminal.show(*render_verdict(document))
    shown = capsys.readouterr().out
    assert "Verdict: NONE - nothing failed, but there is no verdict without more findings." in shown
    assert shown.count("no: nothing proves") == 2
