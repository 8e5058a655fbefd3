"""Talking to a service of this project: an attester or a verifier at a URL."""

import ipaddress
from typing import Any, Self

import httpx

from app.api import strict_json
from app.cli.evidence_file import evidence_from
from app.cli.failure import InFileError, InputError, ServiceError
from app.errors import EvidenceError
from app.wire import b64
from app.wire.evidence import Evidence, Service

MAX_ANSWER = 4 << 20
_TIMEOUT_S = 120.0  # an attester waits for its device, a verifier for the KDS
_CONNECT_S = 10.0


class ServiceClient:
    """Calls a service, within bounds of time and size, and follows no redirects.

    Args:
        url: the service's base URL, http or https.

    Raises:
        InputError: on construction, for something that is no such URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            parts = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise InputError(url, f"no http or https URL: {error}") from error
        if parts.scheme not in {"http", "https"} or not parts.host:
            raise InputError(url, "no http or https URL", "It is to look like http://127.0.0.1:8080.")
        self._client = httpx.Client(
            timeout=httpx.Timeout(_TIMEOUT_S, connect=_CONNECT_S),
            follow_redirects=False,
            trust_env=not _is_loopback(parts.host),  # a proxy knows nothing of this machine's loopback
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def attest(
        self,
        nonce: bytes,
        service: Service,
        manifest_version: int = 0,
        *,
        quote: dict[str, Any] | None = None,
    ) -> Evidence:
        """Evidence from an attester; with `quote`, the request's member of that name, also a TPM's.

        Raises:
            ServiceError: it refused, did not answer, or answered something else.
        """
        request: dict[str, Any] = {
            "nonce": b64.encode(nonce),
            "service": service.value,
            "manifest_version": manifest_version,
        }
        if quote is not None:
            request["quote"] = quote
        document = self.ask("/attest", request)
        try:
            return evidence_from(document)
        except EvidenceError as error:
            raise InFileError(f"{self.url}/attest", error) from error

    def verify(self, request: dict[str, Any]) -> dict[str, Any]:
        """A verdict from a verifier.

        Raises:
            ServiceError: it refused, did not answer, or answered something else.
        """
        document = self.ask("/verify", request)
        if not {"verdict", "genuine", "findings"} <= document.keys():
            raise ServiceError(f"{self.url}/verify", "the answer is no verdict")
        return document

    def ask(self, path: str, request: dict[str, Any]) -> dict[str, Any]:
        """The JSON object that a POST of `request` to `path` is answered with.

        Raises:
            ServiceError: the service refused, did not answer, or answered something else.
        """
        url = self.url + path
        try:
            with self._client.stream("POST", url, json=request) as response:
                raw = b""
                for chunk in response.iter_bytes():
                    raw += chunk
                    if len(raw) > MAX_ANSWER:
                        raise ServiceError(url, f"the answer has more than {MAX_ANSWER} bytes")
        except httpx.TimeoutException as error:
            raise ServiceError(url, "no answer in time") from error
        except httpx.HTTPError as error:
            raise ServiceError(url, f"no answer: {error}") from error
        return _read(url, response, raw)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read(url: str, response: httpx.Response, raw: bytes) -> dict[str, Any]:
    status = f"HTTP {response.status_code} {response.reason_phrase}".rstrip()
    try:
        document = strict_json.loads(raw)
    except ValueError as error:
        raise ServiceError(url, f"{status}, and the answer is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise ServiceError(url, f"{status}, and the answer is no JSON object")
    if not response.is_success:
        detail = document.get("detail")
        raise ServiceError(url, f"{status}: {detail}" if detail else status, document)
    return document
