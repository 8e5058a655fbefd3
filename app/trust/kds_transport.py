"""Getting bytes from a KDS within bounds of time and size, without redirects.

Source: AMD 57230 (KDS interface); RFC 9110 10.2.3 (Retry-After).
"""

import asyncio
import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import httpx

from app.errors import CollateralUnavailableError, ConfigError

if TYPE_CHECKING:
    from app.wire.product import ProductLine

_OVERLOADED = {429, 502, 503, 504}  # the service, not the question, is the trouble
_TRANSIENT = {502, 503, 504}


@dataclass(frozen=True, slots=True, kw_only=True)
class KdsLimits:
    """Bounds on asking KDS; all times in seconds.

    `total_s` bounds one question with its repetitions; a failure is answered from memory for
    `remember_failure_s`, or for as long as Retry-After says, up to `longest_block_s`.
    """

    connect_s: float = 5.0
    read_s: float = 10.0
    total_s: float = 20.0
    attempts: int = 2
    pause_s: float = 0.5
    remember_failure_s: float = 30.0
    longest_block_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for, and the most bytes that the answer may have."""

    what: str
    line: "ProductLine"
    url: str
    limit: int

    def unavailable(
        self, reason: str, *, status: int | None = None, retry_after_s: float | None = None
    ) -> CollateralUnavailableError:
        """The error that says why this question has no answer."""
        return CollateralUnavailableError(
            self.what,
            reason,
            source=self.url,
            upstream_status=status,
            product=self.line,
            retry_after_s=retry_after_s,
        )


class KdsTroubleError(Exception):
    """The service is in trouble: another attempt, or another question, may meet the same."""

    def __init__(self, reason: str, *, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.status, self.retry_after_s = reason, status, retry_after_s


class KdsTransport:
    """Asks one base URL, with a few attempts per question.

    Raises:
        ConfigError: on construction, for a base URL that is not https (http is for loopback only).
    """

    def __init__(self, client: httpx.AsyncClient, base_url: str, limits: KdsLimits) -> None:
        self.base_url = _checked(base_url)
        self._client = client
        self._limits = limits
        self._timeout = httpx.Timeout(limits.read_s, connect=limits.connect_s)

    async def get(self, question: Question) -> bytes:
        """The body of a 200 answer.

        Raises:
            KdsTroubleError: no connection, no answer in time, or the service is overloaded.
            CollateralUnavailableError: an answer, but not to this question.
        """
        try:
            async with asyncio.timeout(self._limits.total_s):
                for _ in range(self._limits.attempts - 1):
                    try:
                        return await self._attempt(question)
                    except KdsTroubleError as trouble:
                        if trouble.retry_after_s is not None or trouble.status not in {None, *_TRANSIENT}:
                            raise
                        await asyncio.sleep(self._limits.pause_s)
                return await self._attempt(question)
        except TimeoutError:
            raise KdsTroubleError(f"it did not answer within {self._limits.total_s:g} s") from None

    async def _attempt(self, question: Question) -> bytes:
        request = self._client.build_request(
            "GET", question.url, headers={"Accept-Encoding": "identity"}, timeout=self._timeout
        )
        try:
            response = await self._client.send(request, stream=True, follow_redirects=False)
            try:
                return await _body(question, response)
            finally:
                await response.aclose()
        except httpx.PoolTimeout:
            raise question.unavailable("too many questions to KDS are waiting") from None
        except httpx.HTTPError as error:
            raise KdsTroubleError(f"it cannot be reached ({type(error).__name__})") from error


async def _body(question: Question, response: httpx.Response) -> bytes:
    status = response.status_code
    if status in _OVERLOADED:
        after_s = _retry_after_s(response.headers.get("Retry-After"))
        raise KdsTroubleError(f"it answered {status}", status=status, retry_after_s=after_s)
    if status == httpx.codes.NOT_FOUND:
        raise question.unavailable("KDS has none", status=status)
    if status != httpx.codes.OK:
        raise question.unavailable(f"KDS answered {status}", status=status)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise question.unavailable("KDS answered in an encoding nobody asked for", status=status)
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > question.limit:
            raise question.unavailable(f"KDS answered with more than {question.limit} bytes", status=status)
    return bytes(body)


def _retry_after_s(value: str | None) -> float | None:
    """Seconds or an HTTP date; None where there is neither."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _checked(base_url: str) -> str:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"KDS address {base_url!r}: {error}") from error
    if not url.host or url.userinfo or url.query or url.fragment:
        raise ConfigError(f"KDS address {base_url!r}: want https://host[:port][/path]")
    if url.scheme != "https" and not (url.scheme == "http" and _is_loopback(url.host)):
        raise ConfigError(f"KDS address {base_url!r}: want https; plain http is for loopback only")
    return base_url.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
