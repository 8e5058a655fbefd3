"""Endorsements that did not come along: from memory, the roots in force, the store, and KDS.

What comes from KDS is used only if it verifies, and kept only then. What cannot be had, or does
not verify although nobody but KDS vouched for it, is CollateralUnavailableError.
"""

import asyncio
import time
from enum import StrEnum
from typing import TYPE_CHECKING

import structlog

from app.errors import CollateralUnavailableError
from app.trust.chain import authority_problems
from app.trust.crl import RevocationState, check_revocation, crl_fault
from app.trust.issuance import find_issuer, is_issued_by
from app.trust.memo import Memo
from app.trust.vek import read_vek

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from cryptography import x509

    from app.trust.kds import KdsClient
    from app.trust.names import VekKind
    from app.trust.roots import TrustRoots
    from app.trust.store import EndorsementStore
    from app.wire.product import ProductLine
    from app.wire.tcb import TcbVersion

# What KDS answered is not asked again within this time, even where it did not help.
_RECHECK_S = 600.0
_DECIDED = {RevocationState.CLEAR, RevocationState.REVOKED}

_log = structlog.get_logger()


class Provenance(StrEnum):
    """Where an endorsement came from; none of these makes it more or less trusted."""

    OFFERED = "offered"  # with the evidence, or named on the command line
    ROOTS = "trust-roots"
    STORE = "store"
    KDS = "kds"


class Collateral:
    """Looks endorsements up. Use one per event loop.

    Args:
        roots: the roots in force.
        store: the folder to read and to write, if any.
        kds: the client to ask, if any.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        roots: "TrustRoots",
        store: "EndorsementStore | None",
        kds: "KdsClient | None",
        clock: "Callable[[], float]" = time.monotonic,
    ) -> None:
        self._roots = roots
        self._store = store
        self._kds = kds
        self._clock = clock
        self._veks: Memo[tuple[ProductLine, bytes, TcbVersion], x509.Certificate] = Memo(1024)
        self._crls: Memo[tuple[VekKind, x509.Certificate], x509.CertificateRevocationList] = Memo(16)
        self._authorities = dict.fromkeys(roots.certificates, Provenance.ROOTS)
        self._answered: dict[str, float] = {}

    def can_ask(self, *, allow_network: bool) -> bool:
        """Is there a KDS, and may it be asked?"""
        return self._kds is not None and allow_network

    async def vcek(
        self, line: "ProductLine", hwid: bytes, tcb: "TcbVersion", *, allow_network: bool
    ) -> "tuple[x509.Certificate, Provenance]":
        """The VCEK certificate of a chip at a TCB; its chain is the caller's to verify.

        Raises:
            CollateralUnavailableError: neither memory nor store nor KDS has it.
        """
        known = self._veks.get((line, hwid, tcb))
        if known is None:
            known = await self._stored_vcek(line, hwid, tcb)
        if known is not None:
            return known, Provenance.STORE
        kds = self._demand_kds(f"the VCEK certificate ({line})", line, allow_network=allow_network)
        return await kds.fetch_vcek(line, hwid, tcb), Provenance.KDS

    async def _stored_vcek(
        self, line: "ProductLine", hwid: bytes, tcb: "TcbVersion"
    ) -> "x509.Certificate | None":
        if self._store is None:
            return None
        stored = await asyncio.to_thread(self._store.vcek, line, hwid, tcb)
        if stored is None:
            return None
        issuer = await self._local_issuer(stored)
        if issuer is not None and not is_issued_by(stored, issuer):
            # A damaged file must not make genuine evidence look forged.
            _log.warning("store.ignored", reason="the VCEK certificate is not signed by its issuer")
            return None
        self._veks.put((line, hwid, tcb), stored)
        return stored

    async def keep_vcek(self, leaf: "x509.Certificate") -> None:
        """Remember and store a VCEK certificate whose chain holds."""
        vek = read_vek(leaf)
        if vek.line is not None and vek.hwid is not None and vek.tcb is not None:
            self._veks.put((vek.line, vek.hwid, vek.tcb), leaf)
            if self._store is not None:
                await _write(self._store.keep_vcek, vek)

    async def issuer(
        self, certificate: "x509.Certificate", kind: "VekKind", line: "ProductLine", *, allow_network: bool
    ) -> "x509.Certificate | None":
        """The certificate of who issued a leaf or an intermediate of this kind and line.

        Where none signed it but one has the issuer's name, that one: the chain will say so. None
        where KDS has none of that name.

        Raises:
            CollateralUnavailableError: neither the roots nor the store has it, and KDS does not
                answer, or with a chain that does not hold.
        """
        found = await self._local_issuer(certificate)
        if found is None or (
            self.can_ask(allow_network=allow_network) and not is_issued_by(certificate, found)
        ):
            await self._fetch_chain(kind, line, allow_network=allow_network)
            found = find_issuer(certificate, self._authorities)
        return found

    async def _local_issuer(self, certificate: "x509.Certificate") -> "x509.Certificate | None":
        found = find_issuer(certificate, self._authorities)
        if (found is None or not is_issued_by(certificate, found)) and self._store is not None:
            self._admit(await asyncio.to_thread(self._store.authorities), Provenance.STORE)
            found = find_issuer(certificate, self._authorities)
        return found

    def provenance(self, authority: "x509.Certificate") -> Provenance:
        """Where an authority that was returned here came from."""
        return self._authorities[authority]

    async def crl(
        self,
        kind: "VekKind",
        line: "ProductLine",
        chain: "tuple[x509.Certificate, x509.Certificate]",
        at: "datetime",
        *,
        allow_network: bool,
    ) -> "tuple[x509.CertificateRevocationList, Provenance]":
        """A CRL of a trusted root.

        One from memory or store is used while it is current at `at`, or if it revokes the
        intermediate; else KDS is asked.

        Args:
            kind: the kind of leaf, which KDS wants to know.
            line: the product line of the root.
            chain: the intermediate in question, and the root.
            at: the time of the appraisal.
            allow_network: may KDS be asked?

        Raises:
            CollateralUnavailableError: there is none, or none that is current.
        """
        intermediate, root = chain
        what = f"the {kind.upper()} CRL ({line})"
        known = self._crls.get((kind, root))
        if known is None:  # not `or`: a CRL without entries is false
            known = await self._stored_crl(kind, root)
        if known is not None:
            state = check_revocation(known, intermediate, root, at).state
            if state in _DECIDED or self._answered_lately(what):
                return known, Provenance.STORE
        fetched = await self._demand_kds(what, line, allow_network=allow_network).fetch_crl(kind, line)
        fault = crl_fault(fetched, root)
        if fault:
            reason = f"KDS answered with a CRL that does not hold: {fault}"
            raise CollateralUnavailableError(what, reason, product=line)
        self._answered[what] = self._clock()
        self._crls.put((kind, root), fetched)
        if self._store is not None:
            await _write(self._store.keep_crl, fetched, kind, root)
        return fetched, Provenance.KDS

    async def _stored_crl(
        self, kind: "VekKind", root: "x509.Certificate"
    ) -> "x509.CertificateRevocationList | None":
        if self._store is None:
            return None
        stored = await asyncio.to_thread(self._store.crl, kind, root)
        if stored is None or crl_fault(stored, root):
            return None
        self._crls.put((kind, root), stored)
        return stored

    async def _fetch_chain(self, kind: "VekKind", line: "ProductLine", *, allow_network: bool) -> None:
        what = f"the {kind.upper()} certificate chain ({line})"
        kds = self._demand_kds(what, line, allow_network=allow_network)
        if self._answered_lately(what):
            return
        intermediate, root = await kds.fetch_chain(kind, line)
        problems = authority_problems(intermediate, root, self._roots)
        if problems:
            reason = f"KDS answered with a chain that does not hold: {'; '.join(map(str, problems))}"
            raise CollateralUnavailableError(what, reason, product=line)
        self._answered[what] = self._clock()
        self._admit((root, intermediate), Provenance.KDS)
        if self._store is not None:
            await _write(self._store.keep_authority, root)
            await _write(self._store.keep_authority, intermediate)

    def _admit(self, certificates: "Iterable[x509.Certificate]", provenance: Provenance) -> None:
        """Remember trusted roots, and the intermediates that one of them signed."""
        new = [one for one in certificates if one not in self._authorities]
        self._authorities |= {one: provenance for one in new if self._roots.match(one)}
        for one in new:
            root = find_issuer(one, self._authorities)
            if root is not None and not authority_problems(one, root, self._roots):
                self._authorities[one] = provenance

    def _answered_lately(self, what: str) -> bool:
        return self._clock() < self._answered.get(what, float("-inf")) + _RECHECK_S

    def _demand_kds(self, what: str, line: "ProductLine", *, allow_network: bool) -> "KdsClient":
        if self._kds is not None and allow_network:
            return self._kds
        why = "no KDS is configured" if self._kds is None else "the network may not be used"
        reason = f"it did not come with the evidence, the store does not hold it, and {why}"
        raise CollateralUnavailableError(what, reason, product=line)


async def _write(keep: "Callable[..., object]", *what: object) -> None:
    try:
        await asyncio.to_thread(keep, *what)
    except OSError as error:
        _log.warning("store.unwritable", reason=error.strerror or str(error))
