"""A client for AMD's Key Distribution Service (KDS): VCEKs, certificate chains and CRLs.

Whatever goes wrong here is CollateralUnavailableError, which says nothing about trust. KDS
throttles its callers, so equal questions are asked once at a time and failures are remembered
for a while. Source: AMD 57230 (KDS interface).
"""

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar, cast

import httpx
import structlog

from app.errors import CertificateError, CollateralUnavailableError
from app.trust.certificates import (
    MAX_BUNDLE_SIZE,
    MAX_CERTIFICATE_SIZE,
    MAX_CRL_SIZE,
    load_certificate,
    load_certificates,
    load_crl,
)
from app.trust.kds_paths import cert_chain_path, crl_path, vcek_path
from app.trust.kds_transport import KdsLimits, KdsTransport, KdsTroubleError, Question
from app.trust.memo import Memo
from app.trust.names import VekKind, intermediate_role, root_line
from app.trust.vek import read_vek

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography import x509

    from app.wire.product import ProductLine
    from app.wire.tcb import TcbVersion

__all__ = ["AMD_KDS", "KdsClient", "KdsLimits"]

AMD_KDS = "https://kdsintf.amd.com"

_T = TypeVar("_T")
_log = structlog.get_logger()


class KdsClient:
    """Asks a KDS. Use one per event loop; whoever made the HTTP client closes it.

    Raises:
        ConfigError: on construction, for a base URL that is not https (http is for loopback only).
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        base_url: str = AMD_KDS,
        *,
        limits: KdsLimits | None = None,
        clock: "Callable[[], float]" = time.monotonic,
    ) -> None:
        self._limits = limits or KdsLimits()
        self._transport = KdsTransport(client, base_url, self._limits)
        self._clock = clock
        self._flights: dict[str, asyncio.Task[object]] = {}
        self._failures: Memo[str, tuple[float, CollateralUnavailableError]] = Memo(1024)
        self._blocked_until = clock()
        self._blocked_why = ""

    @property
    def trouble(self) -> str | None:
        """Why the service is not asked for the moment; None while it may be."""
        return self._blocked_why if self._clock() < self._blocked_until else None

    async def fetch_vcek(self, line: "ProductLine", hwid: bytes, tcb: "TcbVersion") -> "x509.Certificate":
        """The VCEK certificate of a chip (64 bytes, 8 on Turin) at a TCB.

        There is no such call for VLEKs: a VLEK certificate must come with the evidence.

        Raises:
            CollateralUnavailableError: no answer, no such chip or TCB (upstream_status 404), or an
                answer that is not this certificate.
            ValueError: a hardware id or TCB of another product line.
        """

        def parse(raw: bytes, source: str) -> "x509.Certificate":
            vek = read_vek(load_certificate(raw, source))
            if (vek.kind, vek.line, vek.hwid, vek.tcb) != (VekKind.VCEK, line, hwid, tcb):
                raise CertificateError(source, "the certificate of another chip or TCB")
            return vek.certificate

        return await self._ask(
            f"the VCEK certificate ({line})", line, vcek_path(line, hwid, tcb), MAX_CERTIFICATE_SIZE, parse
        )

    async def fetch_chain(
        self, kind: VekKind, line: "ProductLine"
    ) -> "tuple[x509.Certificate, x509.Certificate]":
        """The intermediate and the root of a product line. By name only: verify before use.

        Raises:
            CollateralUnavailableError: no answer, or one that is not this chain.
        """

        def parse(raw: bytes, source: str) -> "tuple[x509.Certificate, x509.Certificate]":
            match load_certificates(raw, source):
                case (intermediate, root) if (
                    intermediate_role(intermediate.subject) == (kind, line)
                    and root_line(root.subject) is line
                ):
                    return intermediate, root
            raise CertificateError(source, "not one intermediate and its root")

        return await self._ask(
            f"the {kind.upper()} certificate chain ({line})",
            line,
            cert_chain_path(kind, line),
            MAX_BUNDLE_SIZE,
            parse,
        )

    async def fetch_crl(self, kind: VekKind, line: "ProductLine") -> "x509.CertificateRevocationList":
        """The CRL of a product line. Verify before use.

        Raises:
            CollateralUnavailableError: no answer, or one that is not a CRL.
        """
        return await self._ask(f"the CRL ({line})", line, crl_path(kind, line), MAX_CRL_SIZE, load_crl)

    async def _ask(
        self,
        what: str,
        line: "ProductLine",
        path: str,
        limit: int,
        parse: "Callable[[bytes, str], _T]",
    ) -> _T:
        question = Question(what, line, self._transport.base_url + path, limit)
        flight = self._flights.get(path)
        if flight is None:
            self._raise_remembered(question, path)
            flight = asyncio.create_task(self._answer(question, path, parse))
            self._flights[path] = flight
            flight.add_done_callback(lambda done: self._land(path, done))
        # The flight belongs to all who wait for it: one that gives up must not take it down.
        return cast("_T", await asyncio.shield(flight))

    def _land(self, path: str, flight: "asyncio.Task[object]") -> None:
        del self._flights[path]
        if not flight.cancelled():
            flight.exception()  # seen, even where nobody waited to the end

    def _raise_remembered(self, question: Question, path: str) -> None:
        now = self._clock()
        if now < self._blocked_until:
            reason = f"KDS is not asked again yet, because {self._blocked_why}"
            raise question.unavailable(reason, retry_after_s=self._blocked_until - now)
        until, error = self._failures.get(path) or (now, None)
        if error is not None and now < until:
            raise question.unavailable(error.reason, status=error.upstream_status, retry_after_s=until - now)

    async def _answer(self, question: Question, path: str, parse: "Callable[[bytes, str], _T]") -> _T:
        try:
            raw = await self._transport.get(question)
            return parse(raw, question.what)
        except KdsTroubleError as trouble:
            delay_s = trouble.retry_after_s
            delay_s = self._limits.remember_failure_s if delay_s is None else delay_s
            delay_s = min(delay_s, self._limits.longest_block_s)
            self._blocked_until = self._clock() + delay_s
            self._blocked_why = trouble.reason
            error = question.unavailable(trouble.reason, status=trouble.status, retry_after_s=delay_s)
        except CertificateError as unreadable:
            error = question.unavailable(f"KDS answered with {unreadable.reason}", status=httpx.codes.OK)
            self._remember(path, error)
        except CollateralUnavailableError as refusal:
            error = refusal
            self._remember(path, error)
        _log.warning("kds.unavailable", what=question.what, reason=error.reason, status=error.upstream_status)
        raise error

    def _remember(self, path: str, error: CollateralUnavailableError) -> None:
        self._failures.put(path, (self._clock() + self._limits.remember_failure_s, error))
