"""The endorsements of one report: what came along, completed by what can be had.

What was offered is judged as it was offered; only what is missing is looked for. A verdict is
never built on something that could not be had: that is CollateralUnavailableError.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

from app.errors import CollateralUnavailableError
from app.trust.chain import UNTIMELY, verify_chain
from app.trust.collateral import Collateral, Provenance
from app.trust.crl_search import CrlSearch
from app.trust.issuance import find_issuer
from app.trust.leaf_search import ChosenLeaf, LeafSearch
from app.trust.names import intermediate_role
from app.trust.offered import OfferedEndorsements

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography import x509

    from app.trust.kds import KdsClient
    from app.trust.roots import TrustRoots
    from app.trust.store import EndorsementStore
    from app.wire.report import AttestationReport

__all__ = ["EndorsementSource", "Endorsements", "OfferedEndorsements", "Provenance"]

_Found: TypeAlias = "tuple[x509.Certificate | None, Provenance | None]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsements:
    """What vouches for the key that signed a report, and where each part came from.

    `leaf` is None only where the report names no key that AMD endorses. `intermediate` and `root`
    are None where the leaf names no issuer that could be looked for. `signature_valid`: the leaf's
    key signed the report. `crl_why` says why there is no CRL; it is empty where there is one.
    """

    leaf: "x509.Certificate | None"
    intermediate: "x509.Certificate | None"
    root: "x509.Certificate | None"
    crl: "x509.CertificateRevocationList | None"
    crl_why: str
    signature_valid: bool
    leaf_from: Provenance | None = None
    intermediate_from: Provenance | None = None
    root_from: Provenance | None = None
    crl_from: Provenance | None = None


class EndorsementSource:
    """Gathers endorsements. Use one per event loop.

    Args:
        roots: the roots in force.
        store: a folder to look in and to keep things in, if any.
        kds: a client for AMD's KDS, if any; None works offline.
        clock: the time of day, for CRLs, unless the caller gives one.
    """

    def __init__(
        self,
        roots: "TrustRoots",
        store: "EndorsementStore | None" = None,
        kds: "KdsClient | None" = None,
        *,
        clock: "Callable[[], datetime]" = lambda: datetime.now(UTC),
    ) -> None:
        self._roots = roots
        self._collateral = Collateral(roots, store, kds)
        self._clock = clock

    async def gather(
        self,
        report: "AttestationReport",
        offered: OfferedEndorsements,
        *,
        want_crl: bool,
        allow_network: bool = True,
        at: datetime | None = None,
    ) -> Endorsements:
        """The endorsements of a report. With a chain that was offered whole, nothing is looked up.

        Args:
            report: the parsed report.
            offered: what came along.
            want_crl: look for a CRL where none was offered.
            allow_network: may KDS be asked?
            at: the time of the appraisal, which decides whether a CRL is current; now by default.

        Raises:
            CollateralUnavailableError: a certificate is missing and could not be had.
            WireError: REPORTED_TCB is no TCB of the report's product line, so that no certificate
                can be looked for.
        """
        leaf = await LeafSearch(report, offered, self._collateral, allow_network).run()
        if leaf is None:
            why = "the report names no signing key"
            return Endorsements(
                leaf=None, intermediate=None, root=None, crl=None, crl_why=why, signature_valid=False
            )
        completion = _Completion(self._roots, self._collateral, offered, at or self._clock(), allow_network)
        return await completion.run(leaf, want_crl=want_crl)


@dataclass(frozen=True, slots=True)
class _Completion:
    """The rest of the chain, and the CRL, of a chosen leaf."""

    roots: "TrustRoots"
    collateral: Collateral
    offered: OfferedEndorsements
    at: datetime
    allow_network: bool

    async def run(self, leaf: ChosenLeaf, *, want_crl: bool) -> Endorsements:
        intermediate, intermediate_from = await self._intermediate(leaf.certificate)
        root, root_from = await self._root(leaf.certificate, intermediate)
        if leaf.provenance is Provenance.KDS:
            offered = Provenance.OFFERED in (intermediate_from, root_from)
            await self._keep(leaf.certificate, intermediate, root, judged_anyway=offered)
        search = CrlSearch(
            intermediate=intermediate,
            root=root,
            roots=self.roots,
            collateral=self.collateral,
            at=self.at,
            allow_network=self.allow_network,
        )
        crl = await search.run(self.offered.crls, want_crl=want_crl)
        return Endorsements(
            leaf=leaf.certificate,
            intermediate=intermediate,
            root=root,
            crl=crl.crl,
            crl_why=crl.why,
            signature_valid=leaf.signed_the_report,
            leaf_from=leaf.provenance,
            intermediate_from=intermediate_from,
            root_from=root_from,
            crl_from=crl.provenance,
        )

    async def _intermediate(self, leaf: "x509.Certificate") -> _Found:
        offered = self.offered.intermediates
        if offered:
            return find_issuer(leaf, offered) or offered[0], Provenance.OFFERED
        return await self._look_up(leaf, leaf)

    async def _root(self, leaf: "x509.Certificate", intermediate: "x509.Certificate | None") -> _Found:
        offered = self.offered.roots
        if offered:
            # The one that is trusted and has the right name; a stranger only for want of it.
            trusted = tuple(one for one in offered if self.roots.match(one)) if len(offered) > 1 else ()
            candidates = (*trusted, *offered)
            named = None if intermediate is None else find_issuer(intermediate, candidates)
            return named or candidates[0], Provenance.OFFERED
        if intermediate is None or intermediate.subject != leaf.issuer:
            return None, None  # the chain is broken already: nothing is worth looking for
        return await self._look_up(intermediate, leaf)

    async def _look_up(self, certificate: "x509.Certificate", leaf: "x509.Certificate") -> _Found:
        role = intermediate_role(leaf.issuer)
        if role is None:
            return None, None  # AMD has no such authority
        found = await self.collateral.issuer(certificate, *role, allow_network=self.allow_network)
        return (None, None) if found is None else (found, self.collateral.provenance(found))

    async def _keep(
        self,
        leaf: "x509.Certificate",
        intermediate: "x509.Certificate | None",
        root: "x509.Certificate | None",
        *,
        judged_anyway: bool,
    ) -> None:
        """Keep a VCEK from KDS if it holds; if only KDS can be to blame, there is none to be had."""
        status = verify_chain(leaf, intermediate, root, self.roots, self.at)
        problems = [problem for problem in status.problems if problem.fault not in UNTIMELY]
        if not problems:
            await self.collateral.keep_vcek(leaf)
        elif not judged_anyway:
            reason = f"KDS answered with one that does not hold: {'; '.join(map(str, problems))}"
            raise CollateralUnavailableError("the VCEK certificate", reason)
