"""Every published vector through POST /verify, for its own reason.

One verifier, offline, with an empty store, AMD's roots and where a case says so one more. The
certificates travel in the evidence's certificate table. /verify has no argument for the time: the
verifier's clock is set to the case's.
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.config import Settings
from app.main import create_app
from app.wire import b64
from tests.acceptance.cases import Case, all_cases, available, certificate_table

CASES = all_cases()


@pytest.fixture(scope="module", autouse=True)
def _vectors() -> None:
    if not available():
        pytest.skip("no test vectors: set SVSM_ATTEST_VECTORS")


class Verifiers:
    """A verifier for each time and trust root, made once and kept to the end."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._runner = asyncio.Runner()
        self._open = AsyncExitStack()
        self._clients: dict[tuple[str, Path | None], httpx.AsyncClient] = {}

    def ask(self, case: Case) -> httpx.Response:
        return self._runner.run(self._ask(case))

    def close(self) -> None:
        self._runner.run(self._open.aclose())
        self._runner.close()

    async def _ask(self, case: Case) -> httpx.Response:
        key = (case.at, case.trust_root)
        if key not in self._clients:
            self._clients[key] = await self._client(*key)
        return await self._clients[key].post("/verify", json=request(case))

    async def _client(self, at: str, trust_root: Path | None) -> httpx.AsyncClient:
        settings = Settings(
            role="verifier",
            offline=True,
            store=self._store,
            trust_roots=(trust_root,) if trust_root else (),
            log_level="error",
        )
        app = create_app(settings, clock=lambda: datetime.fromisoformat(at))
        state = await self._open.enter_async_context(app.router.lifespan_context(app))

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": dict(state or {})}, receive, send)

        client = httpx.AsyncClient(transport=httpx.ASGITransport(app=with_state), base_url="http://verifier")
        return await self._open.enter_async_context(client)


@pytest.fixture(scope="module")
def verifiers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verifiers]:
    made = Verifiers(tmp_path_factory.mktemp("store"))
    yield made
    made.close()


def request(case: Case) -> dict[str, Any]:
    nonce = case.nonce.read_bytes() if case.nonce else case.report_data
    table = certificate_table(case)
    evidence = {
        "report": b64.encode(case.report.read_bytes()),
        "manifest": b64.encode(case.manifest.read_bytes()) if case.manifest else None,
        "certificates": b64.encode(table) if table is not None else None,
    }
    body: dict[str, Any] = {"nonce": b64.encode(nonce or bytes(64)), "evidence": evidence}
    if case.policy:
        body["policy"] = json.loads(case.policy)
    return body


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_vector(case: Case, verifiers: Verifiers) -> None:
    answer = verifiers.ask(case)
    expected, document = case.expected, answer.json()
    if expected.malformed is not None:
        assert answer.headers["content-type"] == "application/problem+json"
        kind = document["type"].rsplit(":", 1)[-1]
        if expected.bad_nonce:
            assert (answer.status_code, kind) == (400, "nonce-invalid"), document
        elif expected.unsupported_version:
            assert (answer.status_code, kind) == (422, "report-version-unsupported"), document
            assert document["supported"] == [2, 3, 4, 5]
        else:
            assert (answer.status_code, kind) == (422, "evidence-malformed"), document
            assert expected.malformed in document["detail"], document
        return
    if expected.unavailable:
        assert (answer.status_code, document["type"].rsplit(":", 1)[-1]) == (503, "collateral-unavailable")
        return
    assert answer.status_code == 200, document
    outcomes = {finding["check"]: finding["outcome"] for finding in document["findings"]}
    failed = {check for check, outcome in outcomes.items() if outcome == "failed"}
    if case.nonce is None and case.report_data is None:
        failed.discard("snp.report_data")  # the vector does not say what REPORT_DATA should be
    assert failed == expected.failed, document["findings"]
    assert document["genuine"] is expected.genuine
    assert document["profile"] == case.profile
    if case.nonce is not None or case.report_data is not None:
        assert (document["verdict"] == "contraindicated") == bool(expected.failed)
    chain = next(finding for finding in document["findings"] if finding["check"] == "snp.chain")
    assert [fault for fault in expected.chain if f"{fault}: " not in chain["actual"]] == []
    assert document["endorsements"]["simulated"] is False
    if case.trust_root and "unknown-root" not in expected.chain and "issuer" not in expected.chain:
        assert document["endorsements"]["root_origin"] == "extra"


WARNINGS = {
    "synthetic-genoa-platform-no-alias-check": "snp.platform_info",
    "synthetic-genoa-provisional-firmware": "snp.firmware",
    "crl-crl-stale": "snp.revocation",
    "crl-crl-future": "snp.revocation",
    "crl-real-stale": "snp.revocation",
    "milan-v2-azure-hcl": "snp.tcb.minimum",
    "genoa-v3-b": "snp.measurement",
}


@pytest.mark.parametrize("case", [case for case in CASES if case.id in WARNINGS], ids=lambda case: case.id)
def test_warnings(case: Case, verifiers: Verifiers) -> None:
    document = verifiers.ask(case).json()
    outcomes = {finding["check"]: finding["outcome"] for finding in document["findings"]}
    assert outcomes[WARNINGS[case.id]] == "warned"
    assert document["verdict"] != "affirming"


CLEARED = {"crl-crl-empty", "crl-crl-revokes-other-ask", "crl-real-current"}


@pytest.mark.parametrize("case", [case for case in CASES if case.id in CLEARED], ids=lambda case: case.id)
def test_cleared_by_a_crl(case: Case, verifiers: Verifiers) -> None:
    document = verifiers.ask(case).json()
    outcomes = {finding["check"]: finding["outcome"] for finding in document["findings"]}
    assert outcomes["snp.revocation"] == "passed"


def test_every_entry_of_the_vectors_is_a_case() -> None:
    assert len(CASES) >= 200
    assert len({case.id for case in CASES}) == len(CASES)
