"""Metrics in Prometheus' text format, each application with a registry of its own.

Labels have few values: routes are templates, methods and causes are fixed words, and nothing that
a caller can choose becomes one.
"""

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

MEDIA_TYPE = CONTENT_TYPE_LATEST
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
# A verification takes a millisecond, a device request up to a minute and more.
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Everything that this service counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._build = Info("svsm_attest_build", "Version, role and backend.", registry=self.registry)
        self._requests = Counter(
            "svsm_attest_http_requests",
            "HTTP requests by method, route template and status.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._duration = Histogram(
            "svsm_attest_http_request_duration_seconds",
            "Time from the end of a request's headers to the end of its answer.",
            ("method", "route"),
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._attestations = Counter(
            "svsm_attest_attestations",
            "Requests for evidence by outcome (ok or failed) and by cause of failure.",
            ("outcome", "cause"),
            registry=self.registry,
        )
        self._appraisals = Counter(
            "svsm_attest_appraisals",
            "Finished appraisals by verdict, and whether the evidence was simulated.",
            ("verdict", "simulated"),
            registry=self.registry,
        )
        self._tpm = Histogram(
            "svsm_attest_tpm_operation_duration_seconds",
            "Time of what the vTPM was asked, waiting for its turn included, by cause of failure.",
            ("operation", "cause"),
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._kds_requests = Counter(
            "svsm_attest_kds_requests", "Requests to the KDS, answered or not.", registry=self.registry
        )
        self._kds_answers = Counter(
            "svsm_attest_kds_answers", "Answers of the KDS by status.", ("status",), registry=self.registry
        )

    def describe(self, **build: str) -> None:
        """Say what runs here."""
        self._build.info(build)

    def request(self, method: str, route: str | None, status: int, duration_s: float) -> None:
        """Count one HTTP request; a route of None is a path that leads nowhere."""
        method = method if method in _METHODS else "other"
        route = route or "none"
        self._requests.labels(method, route, str(status)).inc()
        self._duration.labels(method, route).observe(duration_s)

    def appraisal(self, verdict: str, *, simulated: bool) -> None:
        """Count one finished appraisal."""
        self._appraisals.labels(verdict, str(simulated).lower()).inc()

    @contextmanager
    def attestation(self) -> Iterator[None]:
        """Count one request for evidence, by what leaves the block: an exception's `cause` names why."""
        try:
            yield
        except Exception as error:
            self._attestations.labels("failed", _cause(error)).inc()
            raise
        self._attestations.labels("ok", "").inc()

    @contextmanager
    def tpm_operation(self, name: str) -> Iterator[None]:
        """Count and time one operation of the vTPM, by what leaves the block, as `attestation`."""
        start = time.perf_counter()
        cause = ""
        try:
            yield
        except BaseException as error:
            cause = _cause(error)
            raise
        finally:
            self._tpm.labels(name, cause).observe(time.perf_counter() - start)

    def kds_hooks(self) -> dict[str, list[Callable[[Any], Awaitable[None]]]]:
        """Event hooks of an httpx client that asks the KDS."""

        async def asked(_request: Any) -> None:
            self._kds_requests.inc()

        async def answered(response: Any) -> None:
            self._kds_answers.labels(str(response.status_code)).inc()

        return {"request": [asked], "response": [answered]}

    def exposition(self) -> bytes:
        """All of it, as text of MEDIA_TYPE."""
        return generate_latest(self.registry)


def _cause(error: BaseException) -> str:
    return str(getattr(error, "cause", type(error).__name__))
