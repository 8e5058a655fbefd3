"""Which CRL decides: an offered one, one we know, or one to be fetched?"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.errors import CollateralUnavailableError
from app.trust.collateral import Collateral, Provenance
from app.trust.crl import RevocationState, check_revocation
from app.trust.names import intermediate_role

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography import x509

    from app.trust.roots import TrustRoots

# Of several offered lists of one root, the one that says the worst decides, or else the most.
_ORDER = (
    RevocationState.REVOKED,
    RevocationState.INVALID,
    RevocationState.CLEAR,
    RevocationState.STALE,
    RevocationState.NOT_YET_VALID,
)
_UNDECIDED = {RevocationState.STALE, RevocationState.NOT_YET_VALID, RevocationState.ABSENT}


@dataclass(frozen=True, slots=True)
class ChosenCrl:
    """A CRL and where it came from, or why there is none."""

    crl: "x509.CertificateRevocationList | None"
    provenance: Provenance | None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrlSearch:
    """The search for the CRL of one chain."""

    intermediate: "x509.Certificate | None"
    root: "x509.Certificate | None"
    roots: "TrustRoots"
    collateral: Collateral
    at: "datetime"
    allow_network: bool

    async def run(
        self, offered: "tuple[x509.CertificateRevocationList, ...]", *, want_crl: bool
    ) -> ChosenCrl:
        """The list to judge by. `want_crl`: look for one where none that is current was offered.

        An offered list that is not what it should be is chosen, so that it is refused.
        """
        best = self._best(offered)
        chosen = ChosenCrl(best, Provenance.OFFERED)
        if best is None:
            chosen = ChosenCrl(None, None, "it was not asked for")
        state = self._state(best)
        if state is RevocationState.CLEAR:
            # Whoever offers a list may choose an older one: a revocation that we know of counts too.
            known = await self._look_up(allow_network=False)
            return known if self._state(known.crl) is RevocationState.REVOKED else chosen
        if state in _UNDECIDED and want_crl:
            found = await self._look_up(allow_network=self.allow_network)
            return chosen if found.crl is None and best is not None else found
        return chosen

    async def _look_up(self, *, allow_network: bool) -> ChosenCrl:
        role = None if self.intermediate is None else intermediate_role(self.intermediate.subject)
        if self.intermediate is None or self.root is None or role is None or not self.roots.match(self.root):
            return ChosenCrl(None, None, "there is no chain to a trusted root that it could be about")
        try:
            crl, provenance = await self.collateral.crl(
                *role, (self.intermediate, self.root), self.at, allow_network=allow_network
            )
        except CollateralUnavailableError as error:
            return ChosenCrl(None, None, error.reason)
        return ChosenCrl(crl, provenance)

    def _best(
        self, offered: "tuple[x509.CertificateRevocationList, ...]"
    ) -> "x509.CertificateRevocationList | None":
        """Of the lists that are the root's by name (else of all), the one that decides."""
        named = [crl for crl in offered if self.root is not None and crl.issuer == self.root.subject]
        return min(named or offered, key=lambda crl: _ORDER.index(self._state(crl)), default=None)

    def _state(self, crl: "x509.CertificateRevocationList | None") -> RevocationState:
        return check_revocation(crl, self.intermediate, self.root, self.at).state
