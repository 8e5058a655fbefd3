"""What vouches for the simulated chip: leaf, chain, CRL, and the certificate table of its host."""

from datetime import datetime, timedelta

from cryptography import x509

from app.evidence.simulator.authority import BACKDATING, CRL_LIFETIME, CertificateAuthority, CrlRequest
from app.evidence.simulator.effect import NO_EFFECT, Effect
from app.evidence.simulator.processor import CSP_ID, SecurityProcessor
from app.evidence.simulator.vek_profile import LIFETIMES, VekRequest
from app.trust.certificates import der
from app.trust.names import VekKind
from app.wire import guid
from app.wire.certificate_table import CertificateEntry, CertificateTable
from app.wire.tcb import TcbVersion

_REFRESH_AFTER = timedelta(days=1)
_LEAF_GUIDS = {VekKind.VCEK: guid.VCEK, VekKind.VLEK: guid.VLEK}
_OTHER_KIND = {VekKind.VCEK: VekKind.VLEK, VekKind.VLEK: VekKind.VCEK}


class SimulatedEndorsements:
    """Endorsements of one chip by one authority, with whatever a fault does to them.

    Everything may block for milliseconds, and for seconds when keys are made. Raises BackendError
    where they cannot be.
    """

    def __init__(
        self, authority: CertificateAuthority, processor: SecurityProcessor, effect: Effect = NO_EFFECT
    ) -> None:
        self.authority = authority
        self.processor = processor
        self._effect = effect
        self._crl: tuple[datetime, bytes] | None = None
        self._table: tuple[datetime, bytes] | None = None

    def leaf(self, tcb: TcbVersion | None = None) -> bytes:
        """A new certificate (DER) for the chip's key at that TCB, by default the reported one."""
        tcb = tcb or self.processor.reported_tcb
        kind = self.processor.signing_key
        start = self.authority.clock() - BACKDATING
        request = VekRequest(
            kind=kind,
            public_key=self.processor.vek(tcb).public_key(),
            tcb=tcb,
            hwid=self.processor.hwid if kind is VekKind.VCEK else None,
            csp_id=CSP_ID if kind is VekKind.VLEK else None,
            not_before=start,
            not_after=start + LIFETIMES[kind],
        )
        return self._effect.leaf_der(der(self.authority.issue_vek(self._effect.leaf(request))))

    def chain(self, kind: VekKind) -> tuple[x509.Certificate, x509.Certificate]:
        """The intermediate for leaves of that kind, and the root."""
        return self.authority.intermediate(kind), self.authority.ark

    def crl(self) -> bytes | None:
        """The CRL of the day (DER); None where a fault withholds it."""
        if self._effect.crl_withheld:
            return None
        if self._crl is None or self._is_old(self._crl[0]):
            start = self.authority.clock() - BACKDATING
            revoked = self.authority.intermediate_serials if self._effect.revoked else ()
            request = CrlRequest(this_update=start, next_update=start + CRL_LIFETIME, revoked=revoked)
            crl = der(self.authority.issue_crl(self._effect.crl(request)))
            self._crl = self.authority.clock(), self._effect.crl_der(crl)
        return self._crl[1]

    def table(self) -> bytes:
        """The host's certificate table of the day: leaf, intermediate, root and CRL."""
        if self._table is None or self._is_old(self._table[0]):
            kind = self.processor.signing_key
            leaf = _LEAF_GUIDS[_OTHER_KIND[kind] if self._effect.leaf_mislabelled else kind]
            intermediate, root = self.chain(kind)
            entries = {
                leaf: self.leaf(),
                guid.ASK: der(intermediate),
                guid.ARK: der(root),
                guid.CRL: self.crl(),
            }
            table = CertificateTable(
                tuple(CertificateEntry(name, data) for name, data in entries.items() if data is not None)
            )
            self._table = self.authority.clock(), table.encode()
        return self._table[1]

    def _is_old(self, made_at: datetime) -> bool:
        return self.authority.clock() - made_at > _REFRESH_AFTER
