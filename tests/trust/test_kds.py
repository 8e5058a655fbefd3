import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
import respx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from app.errors import CollateralUnavailableError, ConfigError
from app.trust.kds import AMD_KDS, KdsClient, KdsLimits
from app.trust.names import VekKind
from app.wire.product import ProductLine
from app.wire.tcb import TcbVersion
from tests.trust import pki
from tests.trust.evidence import milan
from tests.trust.pki import HWID, MILAN_TCB

MILAN, VCEK = ProductLine.MILAN, VekKind.VCEK
CHAIN = f"{AMD_KDS}/vcek/v1/Milan/cert_chain"
CRL = f"{AMD_KDS}/vcek/v1/Milan/crl"
REAL_VCEK = (
    f"{AMD_KDS}/vcek/v1/Milan/{milan().parsed_report.chip_id.hex()}?blSPL=02&teeSPL=00&snpSPL=05&ucodeSPL=68"
)
QUICK = KdsLimits(pause_s=0.0)
Ask = Callable[[KdsClient], Coroutine[Any, Any, Any]]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def run(
    ask: Ask, limits: KdsLimits = QUICK, clock: Callable[[], float] = time.monotonic, **options: Any
) -> Any:
    async def inside() -> Any:
        async with httpx.AsyncClient() as client:
            return await ask(KdsClient(client, limits=limits, clock=clock, **options))

    return asyncio.run(inside())


def fetch_chain(kds: KdsClient) -> Coroutine[Any, Any, Any]:
    return kds.fetch_chain(VCEK, MILAN)


def fetch_crl(kds: KdsClient) -> Coroutine[Any, Any, Any]:
    return kds.fetch_crl(VCEK, MILAN)


def fetch_vcek(kds: KdsClient) -> Coroutine[Any, Any, Any]:
    return kds.fetch_vcek(MILAN, HWID, MILAN_TCB)


def refusal(ask: Ask, limits: KdsLimits = QUICK, **options: Any) -> CollateralUnavailableError:
    with pytest.raises(CollateralUnavailableError) as caught:
        run(ask, limits, **options)
    return caught.value


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def der(certificate: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    return certificate.public_bytes(Encoding.DER)


@pytest.fixture
def kds() -> Any:
    with respx.mock(assert_all_called=False) as mock:
        yield mock


# What KDS answers


def test_a_real_vcek_by_its_real_url(kds: respx.MockRouter) -> None:
    report = milan().parsed_report
    route = kds.get(REAL_VCEK).respond(content=milan().leaf)
    tcb = TcbVersion.parse(report.reported_tcb, MILAN.tcb_layout)
    leaf = run(lambda client: client.fetch_vcek(MILAN, report.chip_id, tcb))
    assert der(leaf) == milan().leaf
    request = route.calls.last.request
    assert str(request.url) == REAL_VCEK
    assert request.headers["Accept-Encoding"] == "identity"


def test_a_turin_vcek(kds: respx.MockRouter) -> None:
    kds.get(
        f"{AMD_KDS}/vcek/v1/Turin/0001020304050607?fmcSPL=01&blSPL=02&teeSPL=03&snpSPL=04&ucodeSPL=71"
    ).respond(content=der(pki.vcek(ProductLine.TURIN).issue()))
    leaf = run(lambda client: client.fetch_vcek(ProductLine.TURIN, HWID[:8], pki.TURIN_TCB))
    assert leaf.subject == pki.named("SEV-VCEK")


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_a_real_chain(kds: respx.MockRouter, newline: bytes) -> None:
    _, intermediate, root = milan().certificates
    kds.get(CHAIN).respond(content=pem(intermediate, root).replace(b"\n", newline))
    assert run(fetch_chain) == (intermediate, root)


def test_the_chain_and_list_of_a_vlek(kds: respx.MockRouter) -> None:
    asvk, ark = pki.ask(kind="SEV-VLEK").issue(), pki.ark().issue()
    kds.get(f"{AMD_KDS}/vlek/v1/Milan/cert_chain").respond(content=pem(asvk, ark))
    ours = pki.crl(ark.subject)
    kds.get(f"{AMD_KDS}/vlek/v1/Milan/crl").respond(content=der(ours))
    assert run(lambda client: client.fetch_chain(VekKind.VLEK, MILAN)) == (asvk, ark)
    assert run(lambda client: client.fetch_crl(VekKind.VLEK, MILAN)) == ours


def test_another_kds(kds: respx.MockRouter) -> None:
    _, intermediate, root = milan().certificates
    kds.get("http://127.0.0.1:8000/kds/vcek/v1/Milan/cert_chain").respond(content=pem(intermediate, root))
    assert run(fetch_chain, base_url="http://127.0.0.1:8000/kds/") == (intermediate, root)


def test_over_a_real_socket() -> None:
    _, intermediate, root = milan().certificates
    asked = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.split(b"\r\n", 1)[0])
        body = pem(intermediate, root)
        pieces = (body[:100], body[100:])
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        writer.write(b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b"")))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def inside() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        async with server, httpx.AsyncClient() as client:
            kds = KdsClient(client, f"http://{host}:{port}", limits=QUICK)
            assert await fetch_chain(kds) == (intermediate, root)

    asyncio.run(inside())
    assert asked == [b"GET /vcek/v1/Milan/cert_chain HTTP/1.1"]


# Answers that are not what was asked for


@pytest.mark.parametrize(
    ("ask", "url", "content", "reason"),
    [
        (fetch_chain, CHAIN, lambda: b"<html>", "KDS answered with not a certificate"),
        (fetch_chain, CHAIN, lambda: b"", "KDS answered with not a certificate"),
        (fetch_chain, CHAIN, lambda: pem(pki.ark().issue()), "not one intermediate and its root"),
        (
            fetch_chain,
            CHAIN,
            lambda: pem(pki.ark().issue(), pki.ask().issue()),
            "not one intermediate and its root",
        ),
        (
            fetch_chain,
            CHAIN,
            lambda: pem(pki.ask(ProductLine.GENOA).issue(), pki.ark(ProductLine.GENOA).issue()),
            "not one intermediate and its root",
        ),
        (fetch_crl, CRL, lambda: milan().root, "KDS answered with not a CRL"),
        (fetch_vcek, None, lambda: milan().leaf, "the certificate of another chip or TCB"),
        (fetch_vcek, None, lambda: der(pki.vlek().issue()), "the certificate of another chip or TCB"),
        (
            fetch_vcek,
            None,
            lambda: der(pki.vcek(ProductLine.GENOA).issue()),
            "the certificate of another chip or TCB",
        ),
        (fetch_vcek, None, lambda: milan().leaf[:-1], "KDS answered with not a certificate"),
    ],
)
def test_an_unreadable_answer_is_no_answer(
    kds: respx.MockRouter, ask: Ask, url: str | None, content: Callable[[], bytes], reason: str
) -> None:
    kds.get(url).respond(content=content()) if url else kds.get(url__startswith=AMD_KDS).respond(
        content=content()
    )
    error = refusal(ask)
    assert reason in error.reason
    assert (error.upstream_status, error.product) == (200, "Milan")
    assert error.source is not None
    assert error.source.startswith(AMD_KDS)


def test_an_unknown_chip_is_definite(kds: respx.MockRouter) -> None:
    route = kds.get(url__startswith=f"{AMD_KDS}/vcek/v1/Milan/").respond(404)
    error = refusal(fetch_vcek)
    assert (error.upstream_status, error.what) == (404, "the VCEK certificate (Milan)")
    assert error.reason == "KDS has none"
    assert route.call_count == 1


@pytest.mark.parametrize("status", [204, 301, 302, 307, 308, 400, 403, 500])
def test_other_answers_are_refused_and_nobody_is_sent_elsewhere(kds: respx.MockRouter, status: int) -> None:
    route = kds.get(CHAIN).respond(status, headers={"Location": "https://elsewhere.example/"})
    error = refusal(fetch_chain)
    assert (error.upstream_status, error.reason) == (status, f"KDS answered {status}")
    assert route.call_count == 1


def test_a_compressed_answer_is_refused(kds: respx.MockRouter) -> None:
    kds.get(CHAIN).mock(
        return_value=httpx.Response(200, headers={"Content-Encoding": "br"}, stream=httpx.ByteStream(b"?"))
    )
    assert refusal(fetch_chain).reason == "KDS answered in an encoding nobody asked for"


def test_an_endless_answer_is_cut_off(kds: respx.MockRouter) -> None:
    sent = 0

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            nonlocal sent
            for _ in itertools.count():
                sent += 1
                yield bytes(1 << 16)

    kds.get(CHAIN).mock(return_value=httpx.Response(200, stream=Endless()))
    assert refusal(fetch_chain).reason == "KDS answered with more than 1048576 bytes"
    assert sent <= 17


# Trouble


def test_an_unreachable_service_is_asked_twice(kds: respx.MockRouter) -> None:
    route = kds.get(CHAIN).mock(side_effect=httpx.ConnectError("refused"))
    error = refusal(fetch_chain)
    assert (error.reason, error.upstream_status) == ("it cannot be reached (ConnectError)", None)
    assert error.retry_after_s == 30.0
    assert route.call_count == 2


@pytest.mark.parametrize("trouble", [httpx.ReadTimeout("slow"), httpx.ReadError("gone"), 502, 503, 504])
def test_one_hiccup_is_forgiven(kds: respx.MockRouter, trouble: Exception | int) -> None:
    _, intermediate, root = milan().certificates
    good = httpx.Response(200, content=pem(intermediate, root))
    first: Any = httpx.Response(trouble) if isinstance(trouble, int) else trouble
    kds.get(CHAIN).mock(side_effect=[first, good])
    assert run(fetch_chain) == (intermediate, root)


def test_a_service_that_hangs_is_given_up(kds: respx.MockRouter) -> None:
    async def hang(_request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        raise AssertionError

    kds.get(CHAIN).mock(side_effect=hang)
    start = time.monotonic()
    error = refusal(fetch_chain, KdsLimits(total_s=0.1))
    assert error.reason == "it did not answer within 0.1 s"
    assert time.monotonic() - start < 5


def test_a_service_that_drips_is_given_up(kds: respx.MockRouter) -> None:
    class Dripping(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                await asyncio.sleep(0.02)
                yield b"-"

    kds.get(CHAIN).mock(return_value=httpx.Response(200, stream=Dripping()))
    assert refusal(fetch_chain, KdsLimits(total_s=0.1)).reason == "it did not answer within 0.1 s"


def test_a_full_pool_is_our_own_trouble(kds: respx.MockRouter) -> None:
    kds.get(CHAIN).mock(side_effect=httpx.PoolTimeout("full"))
    crl = pki.crl(pki.named("ARK-Milan"))
    kds.get(CRL).respond(content=der(crl))

    async def ask(client: KdsClient) -> Any:
        with pytest.raises(CollateralUnavailableError, match="too many questions"):
            await fetch_chain(client)
        assert client.trouble is None
        return await fetch_crl(client)

    assert run(ask) == crl


# Memory of failures


def test_an_unreachable_service_costs_its_time_once(kds: respx.MockRouter) -> None:
    chain = kds.get(CHAIN).mock(side_effect=httpx.ConnectTimeout("down"))
    crl = kds.get(CRL).mock(side_effect=httpx.ConnectTimeout("down"))
    clock = Clock()

    async def ask(client: KdsClient) -> None:
        for _ in range(3):
            with pytest.raises(CollateralUnavailableError):
                await fetch_chain(client)
        clock.now += 29.0
        with pytest.raises(CollateralUnavailableError) as caught:
            await fetch_crl(client)
        assert "KDS is not asked again yet, because it cannot be reached" in caught.value.reason
        assert caught.value.retry_after_s == pytest.approx(1.0)
        assert client.trouble == "it cannot be reached (ConnectTimeout)"
        assert (chain.call_count, crl.call_count) == (2, 0)
        clock.now += 1.1
        assert client.trouble is None
        with pytest.raises(CollateralUnavailableError):
            await fetch_crl(client)
        assert crl.call_count == 2

    run(ask, clock=clock)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0", 0.0), ("100000", 300.0), ("9" * 400, 300.0), ("soon", 30.0), (None, 30.0)],
)
def test_retry_after_is_honoured_within_bounds(
    kds: respx.MockRouter, status: int, header: str | None, seconds: float
) -> None:
    headers = {} if header is None else {"Retry-After": header}
    route = kds.get(CHAIN).respond(status, headers=headers)
    clock = Clock()

    async def ask(client: KdsClient) -> None:
        with pytest.raises(CollateralUnavailableError) as caught:
            await fetch_chain(client)
        assert (caught.value.upstream_status, caught.value.retry_after_s) == (status, seconds)
        before = route.call_count
        clock.now += seconds - 0.5
        if seconds:
            with pytest.raises(CollateralUnavailableError, match="not asked again yet"):
                await fetch_chain(client)
            assert route.call_count == before
        clock.now += 1
        with pytest.raises(CollateralUnavailableError):
            await fetch_chain(client)
        assert route.call_count == before * 2

    run(ask, clock=clock)
    # Only an overload without a word on when to come back is asked again at once.
    assert route.call_count == (4 if status == 503 and header in {None, "soon"} else 2)


@pytest.mark.parametrize("zone", [UTC, None])
def test_retry_after_may_be_a_date(kds: respx.MockRouter, zone: Any) -> None:
    until = datetime.now(UTC) + timedelta(seconds=100)
    date = format_datetime(until, usegmt=True) if zone else format_datetime(until.replace(tzinfo=None))
    kds.get(CHAIN).respond(429, headers={"Retry-After": date})
    assert refusal(fetch_chain).retry_after_s == pytest.approx(100, abs=5)


def test_retry_after_in_the_past_is_now(kds: respx.MockRouter) -> None:
    kds.get(CHAIN).respond(429, headers={"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"})
    assert refusal(fetch_chain).retry_after_s == 0.0


def test_a_refused_question_is_remembered_alone(kds: respx.MockRouter) -> None:
    unknown = kds.get(url__regex=r".*/vcek/v1/Milan/[0-9a-f]{128}").respond(404)
    crl = pki.crl(pki.named("ARK-Milan"))
    kds.get(CRL).respond(content=der(crl))
    clock = Clock()

    async def ask(client: KdsClient) -> None:
        errors = []
        for _ in range(3):
            with pytest.raises(CollateralUnavailableError) as caught:
                await fetch_vcek(client)
            errors.append(caught.value)
        assert unknown.call_count == 1
        assert [(error.upstream_status, error.retry_after_s) for error in errors] == [
            (404, None),
            (404, 30.0),
            (404, 30.0),
        ]
        assert await fetch_crl(client) == crl
        with pytest.raises(CollateralUnavailableError):
            await client.fetch_vcek(MILAN, HWID[::-1], MILAN_TCB)
        assert unknown.call_count == 2
        clock.now += 31
        with pytest.raises(CollateralUnavailableError):
            await fetch_vcek(client)
        assert unknown.call_count == 3

    run(ask, clock=clock)


# Callers at the same time


def test_many_callers_ask_once(kds: respx.MockRouter) -> None:
    async def slowly(_request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.05)
        return httpx.Response(200, content=der(pki.vcek().issue()))

    route = kds.get(url__startswith=AMD_KDS).mock(side_effect=slowly)

    async def ask(client: KdsClient) -> None:
        leaves = await asyncio.gather(*(fetch_vcek(client) for _ in range(20)))
        assert len({id(leaf) for leaf in leaves}) == 1
        assert route.call_count == 1
        await fetch_vcek(client)  # the answer itself is not kept here
        assert route.call_count == 2

    run(ask)


def test_a_caller_that_gives_up_does_not_take_the_others_down(kds: respx.MockRouter) -> None:
    async def slowly(_request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.05)
        return httpx.Response(200, content=der(pki.vcek().issue()))

    route = kds.get(url__startswith=AMD_KDS).mock(side_effect=slowly)

    async def ask(client: KdsClient) -> None:
        impatient = asyncio.create_task(fetch_vcek(client))
        patient = asyncio.create_task(fetch_vcek(client))
        await asyncio.sleep(0.01)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        assert (await patient).subject == pki.named("SEV-VCEK")
        assert route.call_count == 1

    run(ask)


def test_a_failure_that_nobody_waits_for_is_not_reported_as_lost(kds: respx.MockRouter) -> None:
    async def fail(_request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.02)
        return httpx.Response(404)

    kds.get(CHAIN).mock(side_effect=fail)

    async def ask(client: KdsClient) -> None:
        lost = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: lost.append(context))
        impatient = asyncio.create_task(fetch_chain(client))
        await asyncio.sleep(0.01)
        impatient.cancel()
        await asyncio.sleep(0.05)
        assert lost == []

    run(ask)


def test_an_end_in_mid_flight_is_a_cancellation(kds: respx.MockRouter) -> None:
    async def hang(_request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        raise AssertionError

    kds.get(CHAIN).mock(side_effect=hang)

    async def ask(client: KdsClient) -> None:
        waiting = asyncio.create_task(fetch_chain(client))
        await asyncio.sleep(0.01)
        (flight,) = client._flights.values()
        flight.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert client._flights == {}

    run(ask)


# The address


@pytest.mark.parametrize(
    "address",
    [
        "http://kdsintf.amd.com",
        "ftp://kdsintf.amd.com",
        "kdsintf.amd.com",
        "https://",
        "https://user:password@kds.example",
        "https://kds.example?x=1",
        "https://kds.example/#x",
        "http://localhost.example",
        "http://10.0.0.1",
        "https://kds.example:port",
    ],
)
def test_an_address_that_is_not_https_stops_the_start(address: str) -> None:
    with pytest.raises(ConfigError, match="KDS address"):
        KdsClient(httpx.AsyncClient(), address)


@pytest.mark.parametrize(
    "address",
    [AMD_KDS, "https://mirror.example/kds", "http://localhost:80", "http://127.0.0.1:8080", "http://[::1]:1"],
)
def test_https_and_loopback_are_fine(address: str) -> None:
    KdsClient(httpx.AsyncClient(), address)
