"""A Key Distribution Service for simulated chips, with AMD's URLs and manners.

Source: AMD 57230 (VCEK certificate and KDS interface).
"""

from functools import partial
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qsl

import httpx
from cryptography.hazmat.primitives.serialization import Encoding

from app.errors import BackendError
from app.evidence.simulator.effect import NO_EFFECT, Effect
from app.evidence.simulator.endorsements import SimulatedEndorsements
from app.evidence.worker_thread import run_in_daemon_thread
from app.trust.names import VekKind
from app.wire.product import ProductLine
from app.wire.tcb import TcbVersion

RETRY_AFTER_S = 10
_SPLS = {"fmcSPL": "fmc", "blSPL": "bootloader", "teeSPL": "tee", "snpSPL": "snp", "ucodeSPL": "microcode"}
_MAX_SPL = 0xFF
_VCEK_HEADERS = {
    "Content-Type": "application/octet-stream",
    "Content-Disposition": "attachment; filename=vcek.crt",
    "Cache-Control": "no-cache",
    "Pragma": "no-cache",
}


class KdsAnswer(NamedTuple):
    """An HTTP response without HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes


class SimulatedKds:
    """Answers for some simulated chips, at most one of each product line.

    Like AMD's, it makes a new VCEK certificate for every request: the same key, other bytes.
    """

    def __init__(self, *chips: SimulatedEndorsements, effect: Effect = NO_EFFECT) -> None:
        self._chips = {str(chip.authority.line): chip for chip in chips}
        self._effect = effect

    def respond(self, path: str, query: str) -> KdsAnswer:
        """Answer a GET.

        Args:
            path: the URL's path, such as `/vcek/v1/Milan/cert_chain`.
            query: the URL's query, without the question mark.

        Blocks for milliseconds, and for seconds when keys are made. Never raises: 400 for a query
        that is none, 404 for what does not exist, 503 where no keys can be made.
        """
        if self._effect.kds_status is not None:
            headers = {}
            if self._effect.kds_status == HTTPStatus.TOO_MANY_REQUESTS:
                headers["Retry-After"] = str(RETRY_AFTER_S)
            return KdsAnswer(self._effect.kds_status, headers, b"")
        match path.split("/"):
            case ["", ("vcek" | "vlek") as kind, "v1", line, what] if line in self._chips:
                try:
                    return self._answer(VekKind(kind), self._chips[line], what, query)
                except BackendError as error:
                    return KdsAnswer(HTTPStatus.SERVICE_UNAVAILABLE, {}, str(error).encode())
        return _nothing()

    async def answer(self, path: str, query: str) -> KdsAnswer:
        """As `respond`, without blocking the event loop."""
        return await run_in_daemon_thread(partial(self.respond, path, query), name="simulated-kds")

    def transport(self) -> httpx.AsyncBaseTransport:
        """For an httpx client that shall ask this KDS, under whatever host name."""
        return _Transport(self)

    def _answer(self, kind: VekKind, chip: SimulatedEndorsements, what: str, query: str) -> KdsAnswer:
        if what == "cert_chain":
            pem = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chip.chain(kind))
            if chip.authority.line is ProductLine.TURIN:
                pem = pem.replace(b"\n", b"\r\n")  # AMD serves this one with the other line ends
            return KdsAnswer(HTTPStatus.OK, {"Content-Type": "application/x-pem-file"}, pem)
        if what == "crl":
            crl = chip.crl()
            return (
                _nothing()
                if crl is None
                else KdsAnswer(HTTPStatus.OK, {"Content-Type": "application/pkix-crl"}, crl)
            )
        if kind is VekKind.VLEK:
            # VLEKs are handed to their providers only.
            return KdsAnswer(HTTPStatus.FORBIDDEN, {}, b"") if what == "cert" else _nothing()
        return _vcek(chip, what, query)


def _vcek(chip: SimulatedEndorsements, hwid: str, query: str) -> KdsAnswer:
    processor = chip.processor
    if processor.signing_key is not VekKind.VCEK or hwid.lower() != processor.hwid.hex():
        return _nothing()
    try:
        tcb = _tcb(query, turin=processor.line is ProductLine.TURIN)
    except ValueError as error:
        return KdsAnswer(HTTPStatus.BAD_REQUEST, {}, str(error).encode())
    if not processor.current_tcb.covers(tcb) and tcb != processor.reported_tcb:
        return _nothing()  # no such chip has run that firmware yet
    return KdsAnswer(HTTPStatus.OK, dict(_VCEK_HEADERS), chip.leaf(tcb))


def _tcb(query: str, *, turin: bool) -> TcbVersion:
    """The TCB of a query; an SPL that is not named counts as zero."""
    parts = {name: 0 for spl, name in _SPLS.items() if turin or spl != "fmcSPL"}
    seen: set[str] = set()
    for spl, text in parse_qsl(
        query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=len(_SPLS)
    ):
        name = _SPLS.get(spl)
        if name not in parts or spl in seen:
            raise ValueError(f"{spl} is unknown here, or given twice")
        if not (text.isascii() and text.isdigit()) or int(text) > _MAX_SPL:
            raise ValueError(f"{spl} is not a number up to {_MAX_SPL}")
        seen.add(spl)
        parts[name] = int(text)
    return TcbVersion(**parts)


def _nothing() -> KdsAnswer:
    return KdsAnswer(HTTPStatus.NOT_FOUND, {}, b"")


class _Transport(httpx.AsyncBaseTransport):
    def __init__(self, kds: SimulatedKds) -> None:
        self._kds = kds

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method != "GET":
            return httpx.Response(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "GET"}, request=request)
        status, headers, body = await self._kds.answer(request.url.path, request.url.query.decode("ascii"))
        headers = {**headers, "Content-Length": str(len(body))}
        return httpx.Response(status, headers=headers, stream=httpx.ByteStream(body), request=request)
