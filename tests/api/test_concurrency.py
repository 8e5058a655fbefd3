"""Many at once: every answer is the one to its own question."""

import asyncio

import httpx

from app.wire import b64
from tests.api.service import Service, new_nonce

CALLERS = 24


def test_round_trips_at_once(trusting: Service) -> None:
    async def round_trip(number: int) -> tuple[httpx.Response, httpx.Response]:
        client, nonce = trusting.client, b64.encode(new_nonce())
        headers = {"X-Request-Id": f"caller-{number}"}
        evidence = await client.post("/attest", json={"nonce": nonce}, headers=headers)
        assert evidence.json()["nonce"] == nonce
        body = {"nonce": nonce, "evidence": evidence.json()}
        return evidence, await client.post("/verify", json=body, headers=headers)

    async def everybody() -> list[tuple[httpx.Response, httpx.Response]]:
        return await asyncio.gather(*(round_trip(number) for number in range(CALLERS)))

    answers = trusting.run(everybody())
    for number, (evidence, verdict) in enumerate(answers):
        assert evidence.headers["x-request-id"] == verdict.headers["x-request-id"] == f"caller-{number}"
        assert verdict.json()["verdict"] == "affirming"
    assert len({evidence.json()["report"] for evidence, _ in answers}) == CALLERS


def test_swapped_evidence_is_noticed_in_the_crowd(trusting: Service) -> None:
    nonces = [new_nonce() for _ in range(6)]
    evidence = [trusting.attest(nonce) for nonce in nonces]

    async def everybody() -> list[httpx.Response]:
        bodies = [{"nonce": b64.encode(nonce), "evidence": given} for nonce in nonces for given in evidence]
        return await asyncio.gather(*(trusting.client.post("/verify", json=body) for body in bodies))

    verdicts = [answer.json()["verdict"] for answer in trusting.run(everybody())]
    expected = ["affirming" if i == j else "contraindicated" for i in range(6) for j in range(6)]
    assert verdicts == expected
