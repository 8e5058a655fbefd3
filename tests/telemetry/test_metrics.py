import asyncio

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.errors import BackendError, TpmUnavailableError
from app.telemetry.metrics import MEDIA_TYPE, Metrics


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_every_application_counts_for_itself() -> None:
    first, second = Metrics(), Metrics()
    first.appraisal("affirming", simulated=True)
    labels = {"verdict": "affirming", "simulated": "true"}
    assert value(first, "svsm_attest_appraisals_total", **labels) == 1
    assert value(second, "svsm_attest_appraisals_total", **labels) is None


def test_requests() -> None:
    metrics = Metrics()
    metrics.request("GET", "/ek", 200, 0.002)
    metrics.request("PROPFIND", None, 404, 0.2)
    name = "svsm_attest_http_requests_total"
    assert value(metrics, name, method="GET", route="/ek", status="200") == 1
    assert value(metrics, name, method="other", route="none", status="404") == 1
    bucket = "svsm_attest_http_request_duration_seconds_bucket"
    assert value(metrics, bucket, method="GET", route="/ek", le="0.001") == 0
    assert value(metrics, bucket, method="GET", route="/ek", le="0.0025") == 1


def test_attestations_by_what_became_of_them() -> None:
    metrics = Metrics()
    with metrics.attestation():
        pass
    with pytest.raises(BackendError), metrics.attestation():
        raise BackendError("no-provider", "none", "modprobe")
    with pytest.raises(LookupError), metrics.attestation():
        raise LookupError
    name = "svsm_attest_attestations_total"
    assert value(metrics, name, outcome="ok", cause="") == 1
    assert value(metrics, name, outcome="failed", cause="no-provider") == 1
    assert value(metrics, name, outcome="failed", cause="LookupError") == 1


def test_operations_of_the_tpm_are_timed_by_what_became_of_them() -> None:
    metrics = Metrics()
    with metrics.tpm_operation("quote"):
        pass
    with pytest.raises(TpmUnavailableError), metrics.tpm_operation("quote"):
        raise TpmUnavailableError("tpm-missing", "there is none", "get one")
    with pytest.raises(asyncio.CancelledError), metrics.tpm_operation("activate"):
        raise asyncio.CancelledError
    name = "svsm_attest_tpm_operation_duration_seconds"
    assert value(metrics, f"{name}_count", operation="quote", cause="") == 1
    assert value(metrics, f"{name}_count", operation="quote", cause="tpm-missing") == 1
    assert value(metrics, f"{name}_count", operation="activate", cause="CancelledError") == 1
    assert value(metrics, f"{name}_count", operation="activate", cause="") is None


def test_the_kds_is_counted_by_hooks_of_its_client() -> None:
    metrics = Metrics()

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/down":
            raise httpx.ConnectError("refused")
        return httpx.Response(429)

    async def ask() -> None:
        transport = httpx.MockTransport(answer)
        async with httpx.AsyncClient(transport=transport, event_hooks=metrics.kds_hooks()) as client:
            await client.get("https://kds/busy")
            with pytest.raises(httpx.ConnectError):
                await client.get("https://kds/down")

    asyncio.run(ask())
    assert value(metrics, "svsm_attest_kds_requests_total") == 2
    assert value(metrics, "svsm_attest_kds_answers_total", status="429") == 1


def test_the_exposition_is_what_prometheus_reads() -> None:
    metrics = Metrics()
    metrics.describe(version="1.2.3", role="both")
    families = {
        family.name: family for family in text_string_to_metric_families(metrics.exposition().decode())
    }
    (build,) = families["svsm_attest_build_info"].samples
    assert build.labels == {"version": "1.2.3", "role": "both"}
    assert "python_info" in families
    assert MEDIA_TYPE.startswith("text/plain")
