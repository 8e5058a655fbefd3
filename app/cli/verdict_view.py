"""A verdict on the terminal. Takes the JSON document, so that one from elsewhere looks the same."""

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from app.appraisal.findings import mandatory
from app.cli.terminal import BAD, CAUTION, FAINT, GOOD, STRONG, columns, is_narrow, joined, styled

_OUTCOMES = {
    "passed": ("passed", GOOD),
    "failed": ("failed", BAD),
    "warned": ("warned", CAUTION),
    "not_requested": ("not asked", FAINT),
}
_VERDICTS = {"affirming": GOOD, "warning": CAUTION, "contraindicated": BAD, "none": CAUTION}
_MEANINGS = {
    "affirming": "everything asked for holds",
    "warning": "nothing failed, but not everything is as wished for",
    "contraindicated": "do not trust this evidence",
    "none": "nothing failed, but there is no verdict without",
}
_NOT_GOOD = ("failed", "warned")
_SHOWN = 36
_DIGITS = frozenset("0123456789abcdefABCDEF")
_DIGITS_SHOWN = 16


def render_verdict(document: dict[str, Any]) -> Iterator[RenderableType]:
    """The findings, what endorses the key, caveats, remedies, and last the verdict."""
    findings = [finding for finding in _list(document, "findings") if isinstance(finding, dict)]
    yield _findings_table(findings)
    yield Text()
    yield _context(document)
    caveats = [str(caveat) for caveat in _list(document, "caveats")]
    remedies = [finding for finding in findings if _outcome(finding) in _NOT_GOOD and finding.get("remedy")]
    if caveats:
        yield Text()
        yield styled("Caveats", STRONG)
        yield columns([("-", styled(caveat, _caveat_style(caveat))) for caveat in caveats], indent=2)
    if remedies:
        yield Text()
        yield styled("What to do", STRONG)
        yield columns([(str(one.get("check")), str(one["remedy"])) for one in remedies], indent=2)
    yield Text()
    yield verdict_line(document)


def verdict_line(document: dict[str, Any]) -> Text:
    """The verdict in one line."""
    verdict = str(document.get("verdict"))
    meaning = _MEANINGS.get(verdict, "an unknown verdict")
    if verdict == "none":
        meaning += f" {', '.join(_unanswered(document)) or 'more findings'}"
    parts: list[str | Text | tuple[object, str]] = [
        ("Verdict: ", STRONG),
        (verdict.upper(), f"bold {_VERDICTS.get(verdict, BAD)}"),
        f" - {meaning}.",
    ]
    if _is_simulated(document):
        parts.append((" SIMULATED: this proves nothing about hardware.", BAD))
    return joined(*parts)


def _unanswered(document: dict[str, Any]) -> list[str]:
    """The mandatory checks that were not asked for."""
    findings = (finding for finding in _list(document, "findings") if isinstance(finding, dict))
    outcomes = {str(finding.get("check")): _outcome(finding) for finding in findings}
    due = mandatory(outcomes)
    return [check for check, outcome in outcomes.items() if outcome == "not_requested" and check in due]


def _findings_table(findings: list[dict[str, Any]]) -> RenderableType:
    if is_narrow():
        rows = [[_outcome_text(f), _stacked(f)] for f in findings]
        return columns(rows)
    rows = [[_outcome_text(f), styled(f.get("check")), _found(f), _why(f)] for f in findings]
    return columns(rows, header=("Outcome", "Check", "Found", "Why"))


def _outcome(finding: dict[str, Any]) -> str:
    return str(finding.get("outcome"))


def _outcome_text(finding: dict[str, Any]) -> Text:
    return styled(*_OUTCOMES.get(_outcome(finding), (_outcome(finding), BAD)))


def _found(finding: dict[str, Any]) -> Text:
    return styled(_shortened(finding.get("actual")), FAINT if _outcome(finding) == "not_requested" else "")


def _why(finding: dict[str, Any]) -> Text:
    why = joined((finding.get("why") or "", FAINT if _outcome(finding) == "not_requested" else ""))
    if _outcome(finding) in _NOT_GOOD and finding.get("expected") is not None:
        why.append_text(joined((f" Expected: {_shortened(finding['expected'], limit=120)}.", STRONG)))
    return why


def _stacked(finding: dict[str, Any]) -> Text:
    found = _found(finding)
    return joined((finding.get("check"), STRONG), "  ", found, "\n", _why(finding))


def _context(document: dict[str, Any]) -> RenderableType:
    endorsements = _dict(document, "endorsements")
    policy = _dict(document, "policy")
    root = endorsements.get("root") or "none"
    origin = endorsements.get("root_origin")
    leaf = endorsements.get("leaf") or "none"
    until = endorsements.get("leaf_not_after")
    genuine = document.get("genuine") is True
    rows = [
        (
            "Genuine",
            styled(
                "yes: a security processor under the root below signed this report"
                if genuine
                else "no: nothing proves that a security processor signed this report",
                GOOD if genuine else BAD,
            ),
        ),
        ("Root", joined(str(root), f" ({_ORIGINS.get(str(origin), origin)})" if origin else "")),
        ("Signing key", joined(str(leaf), f", valid until {until}" if until else "")),
        ("CRL", joined(str(endorsements.get("crl") or "absent"))),
        ("Policy", joined(str(policy.get("id")), (f"  {policy.get('digest')}", FAINT))),
        ("Appraised at", joined(str(document.get("appraised_at")))),
    ]
    return columns([(styled(name, FAINT), value) for name, value in rows])


_ORIGINS = {
    "amd": "AMD's, pinned",
    "extra": "trusted for this run, not AMD's",
    "simulator": "SIMULATED",
}


def _caveat_style(caveat: str) -> str:
    return BAD if caveat.startswith("SIMULATED") else CAUTION


def _is_simulated(document: dict[str, Any]) -> bool:
    return bool(_dict(document, "endorsements").get("simulated"))


def _shortened(value: object, limit: int = _SHOWN) -> str:
    """A value for one table cell: digests lose their tail, sentences their end."""
    if value is None:
        return ""
    text = " ".join(str(value).split())
    if len(text) > _DIGITS_SHOWN * 2 and _DIGITS.issuperset(text):
        return f"{text[:_DIGITS_SHOWN]}…"
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _list(document: dict[str, Any], name: str) -> list[Any]:
    value = document.get(name)
    return value if isinstance(value, list) else []


def _dict(document: dict[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}
