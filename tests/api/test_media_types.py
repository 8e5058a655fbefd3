import asyncio

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from app.api.media_types import JSON, Offers, demand_json

EVIDENCE = "application/vnd.svsm-attest.evidence+json"


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/json",
        "Application/JSON; charset=UTF-8",
        'application/json; charset="utf-8"',
        "text/json",
        EVIDENCE,
        "application/problem+json",
        "application/x-www-form-urlencoded",  # curl -d
        "text/plain",
        "text/plain;charset=us-ascii",
    ],
)
def test_bodies_that_may_be_json(content_type: str | None) -> None:
    demand_json(content_type)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/xml",
        "multipart/form-data; boundary=x",
        "application/cbor",
        "application/octet-stream",
        "image/png",
        "application/json; charset=utf-16",
        "application/json; charset*=x''y",
        "application/jsonx",
    ],
)
def test_bodies_that_are_something_else(content_type: str) -> None:
    with pytest.raises(HTTPException) as caught:
        demand_json(content_type)
    assert caught.value.status_code == 415
    assert caught.value.headers == {"Accept": JSON}


def ask(offers: Offers, *accept: str) -> None:
    headers = [(b"accept", value.encode("latin-1")) for value in accept]
    asyncio.run(offers(Request({"type": "http", "headers": headers})))


@pytest.mark.parametrize(
    "accept",
    [
        (),
        ("",),
        ("*/*",),
        ("application/json",),
        ("APPLICATION/JSON",),
        ("application/*",),
        (EVIDENCE,),
        ("text/html, application/json;q=0.1",),
        ("text/html", "application/json"),
        ("application/eat+jwt, application/json",),
        ("*/*;q=0, application/json",),
        ("application/json;profile=x;q=0.5",),
    ],
)
def test_whoever_accepts_json_gets_it(accept: tuple[str, ...]) -> None:
    ask(Offers(EVIDENCE, JSON), *accept)


@pytest.mark.parametrize(
    "accept",
    [
        ("text/html",),
        ("application/json;q=0, */*",),
        ("application/json; q=0",),
        ("application/json;q=x",),
        ("*/*;q=0",),
        ("application/xml, text/*",),
        ("json",),
        (",,;;",),
    ],
)
def test_whoever_does_not_is_told(accept: tuple[str, ...]) -> None:
    with pytest.raises(HTTPException) as caught:
        ask(Offers(JSON), *accept)
    assert caught.value.status_code == 406
    assert JSON in caught.value.detail


def test_signed_tokens_are_refused_by_name() -> None:
    with pytest.raises(HTTPException, match=r"\(EAR\) are not offered"):
        ask(Offers(JSON), "application/eat+jwt")
