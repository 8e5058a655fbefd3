"""Which certificate is of the key that signed this report: an offered one, or one to be found?"""

from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from app.errors import CollateralUnavailableError, WireError
from app.trust.collateral import Collateral, Provenance
from app.trust.names import VekKind, intermediate_role, root_line
from app.trust.signature import verify_report_signature
from app.trust.vek import read_vek
from app.wire.product import ProductLine
from app.wire.report import SIGNING_KEY_VCEK, SIGNING_KEY_VLEK
from app.wire.tcb import TcbVersion

if TYPE_CHECKING:
    from cryptography import x509

    from app.trust.offered import OfferedEndorsements
    from app.wire.report import AttestationReport

_KINDS = {SIGNING_KEY_VCEK: VekKind.VCEK, SIGNING_KEY_VLEK: VekKind.VLEK}
_NOT_FOUND = 404
_OFFER = "offer the certificate with the evidence (certificate table) or as a file"


class _Likeness(IntEnum):
    """How far a leaf is the one that the report speaks of."""

    NONE = 0
    KIND = 1
    CHIP = 2
    CHIP_AND_TCB = 3


@dataclass(frozen=True, slots=True)
class ChosenLeaf:
    """A leaf, where it came from, and whether its key signed the report."""

    certificate: "x509.Certificate"
    provenance: Provenance
    signed_the_report: bool


@dataclass(frozen=True, slots=True)
class LeafSearch:
    """The search for one report's leaf."""

    report: "AttestationReport"
    offered: "OfferedEndorsements"
    collateral: Collateral
    allow_network: bool

    async def run(self) -> ChosenLeaf | None:
        """The leaf, or None where none was offered and the report names no key that AMD endorses.

        Raises:
            CollateralUnavailableError: there is a leaf to be had, but not by us and now.
            WireError: REPORTED_TCB is no TCB of the report's product line.
        """
        if self.offered.leaves:
            return await self._choose()
        kind = _KINDS.get(self.report.key_info.signing_key)
        if kind is None:
            return None
        if kind is VekKind.VLEK:
            reason = f"KDS does not hand VLEK certificates out; {_OFFER}"
            raise CollateralUnavailableError("the VLEK certificate", reason)
        return self._chosen(*await self._find_vcek())

    async def _choose(self) -> ChosenLeaf:
        """The offered leaf whose key signed the report; else its successor; else the likeliest."""
        ranked = self.offered.leaves
        if len(ranked) > 1:
            ranked = tuple(sorted(ranked, key=self._likeness, reverse=True))
        for leaf in ranked:
            if verify_report_signature(self.report, leaf):
                return ChosenLeaf(leaf, Provenance.OFFERED, signed_the_report=True)
        successor = await self._successor(ranked[0])
        return successor or ChosenLeaf(ranked[0], Provenance.OFFERED, signed_the_report=False)

    def _likeness(self, leaf: "x509.Certificate") -> _Likeness:
        vek = read_vek(leaf)
        if vek.line is None or vek.kind is not _KINDS.get(self.report.key_info.signing_key):
            return _Likeness.NONE
        if vek.hwid != self.report.chip_id[: vek.line.hwid_size]:
            return _Likeness.KIND
        same_tcb = vek.tcb is not None and vek.tcb == self._reported_tcb(vek.line)
        return _Likeness.CHIP_AND_TCB if same_tcb else _Likeness.CHIP

    async def _successor(self, leaf: "x509.Certificate") -> ChosenLeaf | None:
        """The VCEK of the same chip at REPORTED_TCB: tables that hosts hand out go stale."""
        line = read_vek(leaf).line
        if line is None or self._likeness(leaf) is not _Likeness.CHIP or not self._in_order(line):
            return None
        try:
            return self._chosen(*await self._vcek(line, allow_network=self.allow_network))
        except CollateralUnavailableError as error:
            if error.upstream_status != _NOT_FOUND and self.collateral.can_ask(
                allow_network=self.allow_network
            ):
                raise
            return None

    async def _find_vcek(self) -> "tuple[x509.Certificate, Provenance]":
        report = self.report
        if not any(report.chip_id):
            reason = f"the host masks CHIP_ID, so nobody can tell which one it is; {_OFFER}"
            raise CollateralUnavailableError("the VCEK certificate", reason, chip_id_masked=True)
        if report.cpuid is not None:
            line = report.cpuid.product_line
            if line is None:
                reason = f"AMD publishes no certificates for a processor with CPUID {report.cpuid}"
                raise CollateralUnavailableError("the VCEK certificate", reason)
            return await self._vcek(line, allow_network=self.allow_network)
        lines = self._offered_lines()
        if len(lines) == 1:
            return await self._vcek(lines.pop(), allow_network=self.allow_network)
        for line in ProductLine:
            with suppress(CollateralUnavailableError, WireError):
                return await self._vcek(line, allow_network=False)
        reason = f"a version 2 report does not tell its product line; offer the line's ASK too, or {_OFFER}"
        raise CollateralUnavailableError("the VCEK certificate", reason)

    def _offered_lines(self) -> set[ProductLine]:
        roles = (intermediate_role(one.subject) for one in self.offered.intermediates)
        lines = {role[1] for role in roles if role is not None}
        return lines | {line for one in self.offered.roots if (line := root_line(one.subject)) is not None}

    async def _vcek(self, line: ProductLine, *, allow_network: bool) -> "tuple[x509.Certificate, Provenance]":
        hwid = self.report.chip_id[: line.hwid_size]
        tcb = TcbVersion.parse(self.report.reported_tcb, line.tcb_layout)
        return await self.collateral.vcek(line, hwid, tcb, allow_network=allow_network)

    def _in_order(self, line: ProductLine) -> bool:
        """Is REPORTED_TCB within CURRENT_TCB? If not, no newer certificate explains this report."""
        reported, current = self._reported_tcb(line), self._tcb(self.report.current_tcb, line)
        return reported is not None and current is not None and current.covers(reported)

    def _reported_tcb(self, line: ProductLine) -> TcbVersion | None:
        return self._tcb(self.report.reported_tcb, line)

    def _tcb(self, raw: bytes, line: ProductLine) -> TcbVersion | None:
        try:
            return TcbVersion.parse(raw, line.tcb_layout)
        except WireError:
            return None

    def _chosen(self, leaf: "x509.Certificate", provenance: Provenance) -> ChosenLeaf:
        return ChosenLeaf(leaf, provenance, verify_report_signature(self.report, leaf))
