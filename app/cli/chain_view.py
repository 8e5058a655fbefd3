"""The chain of a verdict on the terminal: from AMD's root down to the PCRs, each link by what proves it.

Takes the JSON document of a verdict, as verdict_view does.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType

from app.cli.terminal import BAD, CAUTION, FAINT, GOOD, STRONG, columns, styled

_OUTCOMES = {
    "failed": ("broken", BAD),
    "warned": ("holds, with a warning", CAUTION),
    "passed": ("holds", GOOD),
    "not_requested": ("not asked", FAINT),
}
_WORST_FIRST = tuple(_OUTCOMES)
_DIGITS_SHOWN = 16
_TELLING_PCRS = ("0", "4", "7")  # firmware, boot loaders, Secure Boot: PC Client Platform Firmware Profile

_Claims = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Link:
    name: str
    what: Callable[[dict[str, Any]], str]
    proof: str
    checks: tuple[str, ...]


def _endorsed(document: dict[str, Any], name: str) -> str:
    return str(_section(document, "endorsements").get(name) or "none")


def _snp(document: dict[str, Any], name: str) -> Any:
    return _section(_section(document, "claims"), "snp").get(name)


def _vtpm(document: dict[str, Any], name: str) -> Any:
    return _section(_section(document, "claims"), "vtpm").get(name)


def _key(document: dict[str, Any], prefix: str) -> str:
    name, algorithm = _vtpm(document, f"{prefix}_name"), _vtpm(document, f"{prefix}_alg")
    return f"{algorithm} {_short(name)}" if name else "none"


def _counters(document: dict[str, Any]) -> str:
    reset, restart = _vtpm(document, "reset_count"), _vtpm(document, "restart_count")
    return "none proven" if reset is None else f"reset {reset}, restart {restart}"


def _pcrs(document: dict[str, Any]) -> str:
    banks = _vtpm(document, "pcrs")
    if not isinstance(banks, dict):
        return "none proven"
    shown = []
    for bank, registers in banks.items():
        values = " ".join(f"{pcr}={str(registers[pcr])[:8]}…" for pcr in _TELLING_PCRS if pcr in registers)
        shown.append(f"{len(registers)} of {bank}: {values}".rstrip(": "))
    return ", ".join(shown)


def _boot(document: dict[str, Any]) -> str:
    secure_boot = _vtpm(document, "secure_boot")
    if secure_boot is None:
        return "nothing proven"
    return f"Secure Boot {'on' if secure_boot else 'off'}"


_LINKS = (
    _Link(
        name="root",
        what=lambda document: _endorsed(document, "root"),
        proof="certificate and key are pinned",
        checks=("snp.chain", "snp.simulated"),
    ),
    _Link(
        name="signing key",
        what=lambda document: (
            f"{_endorsed(document, 'leaf').upper()} of chip {_short(_snp(document, 'chip_id'))}"
        ),
        proof="the root's chain, for this chip and TCB",
        checks=("snp.chain", "snp.vek.kind", "snp.vek.tcb", "snp.vek.hwid", "snp.product", "snp.revocation"),
    ),
    _Link(
        name="report",
        what=lambda document: f"VMPL {_snp(document, 'vmpl')}, {_short(_snp(document, 'report_id'))}",
        proof="the signing key's signature",
        checks=("snp.signature", "snp.vmpl"),
    ),
    _Link(
        name="SVSM",
        what=lambda document: f"image {_short(_snp(document, 'measurement'))}",
        proof="the policy's reference values",
        checks=("snp.measurement",),
    ),
    _Link(
        name="EK",
        what=lambda document: _key(document, "ek"),
        proof="the report's REPORT_DATA, over this nonce",
        checks=("snp.report_data", "vtpm.binding", "vtpm.ek_template"),
    ),
    _Link(
        name="AK",
        what=lambda document: _key(document, "ak"),
        proof="the TPM that has the EK answered a challenge to both",
        checks=("vtpm.ak", "vtpm.ak_binding"),
    ),
    _Link(
        name="quote",
        what=_counters,
        proof="the AK's signature, over this nonce and this report",
        checks=("vtpm.quote.signature", "vtpm.quote.nonce", "vtpm.quote.selection"),
    ),
    _Link(
        name="PCRs",
        what=_pcrs,
        proof="the quote's digest of them",
        checks=("vtpm.quote.digest", "vtpm.pcrs"),
    ),
    _Link(
        name="boot",
        what=_boot,
        proof="the event log replays to the PCRs",
        checks=("vtpm.event_log", "vtpm.secure_boot"),
    ),
)


def render_chain(document: dict[str, Any]) -> Iterator[RenderableType]:
    """One row for each link; a link holds as well as the weakest of its checks."""
    outcomes = _outcomes(document)
    rows = [
        (
            styled(*_OUTCOMES[_weakest(outcomes, link.checks)]),
            styled(link.name, STRONG),
            styled(link.what(document)),
            styled(link.proof),
            styled(" ".join(link.checks), FAINT),
        )
        for link in _LINKS
    ]
    yield columns(rows, header=("Outcome", "Link", "What", "Proved by", "Checks"))


def _outcomes(document: dict[str, Any]) -> dict[str, str]:
    findings = document.get("findings")
    return {
        str(finding.get("check")): str(finding.get("outcome"))
        for finding in (findings if isinstance(findings, list) else [])
        if isinstance(finding, dict)
    }


def _weakest(outcomes: dict[str, str], checks: tuple[str, ...]) -> str:
    """Failed before warned before passed; not asked only where none of the checks was asked for."""
    found = {outcomes.get(check, "failed") for check in checks}
    return next((outcome for outcome in _WORST_FIRST if outcome in found), "failed")


def _section(document: dict[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _short(digits: object) -> str:
    text = str(digits) if digits else "none"
    return f"{text[:_DIGITS_SHOWN]}…" if len(text) > 2 * _DIGITS_SHOWN else text
