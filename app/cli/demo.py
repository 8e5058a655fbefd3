"""`svsm-attest demo`: the whole round trip, on one machine, over HTTP."""

import contextlib
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from app.api.evidence_document import EvidenceDocument
from app.attester.endorsement_key import endorsement_key
from app.cli import terminal
from app.cli.failure import ExitCode
from app.cli.server import LocalServer, export_settings
from app.cli.service import ServiceClient
from app.cli.terminal import BAD, FAINT, GOOD, STRONG, columns, joined, styled
from app.cli.verdict_view import render_verdict
from app.cli.verify import exit_code_of
from app.config import PREFIX, Settings
from app.evidence.simulator.faults import Fault
from app.trust.names import VekKind
from app.wire import b64
from app.wire.binding import NONCE_SIZE
from app.wire.evidence import Evidence, Service
from app.wire.product import ProductLine

_SERVE_PORT = 8080
_PATIENCE_S = 2.0
_BANNER = (
    "SIMULATED: every key, certificate and report below is made by software on this machine."
    " The protocol is real; nothing here proves anything about hardware."
)


def demo(
    *,
    serve: Annotated[
        bool, typer.Option("--serve", help="Keep serving afterwards, and show how to do it by hand.")
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=0xFFFF, help="Listen here; otherwise any free port, with --serve 8080."),
    ] = None,
    product: Annotated[ProductLine | None, typer.Option(help="The simulated processor.")] = None,
    report_version: Annotated[
        int | None, typer.Option(metavar="2|3|5", help="The version of its reports.")
    ] = None,
    signing_key: Annotated[VekKind | None, typer.Option(help="The kind of key that signs them.")] = None,
    fault: Annotated[
        str | None,
        typer.Option(metavar="CHECK", help="Let one check fail, such as snp.vmpl; `list` shows them all."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Start both roles on a simulated VM, then challenge, attest and verify over HTTP.

    Exits with the verdict's code: 0 when the evidence is affirmed.
    """
    if fault == "list":
        _list_faults()
        return
    if fault is not None and fault not in {one.value for one in Fault}:
        raise typer.BadParameter(f"there is no fault {fault!r}; `--fault list` shows them all")
    export_settings(
        {
            "role": "both",
            "backend": "simulator",
            "allow_simulator": True,
            "host": "127.0.0.1",
            "port": port if port is not None else (_SERVE_PORT if serve else 0),
            "simulator_product": product,
            "simulator_report_version": report_version,
            "simulator_signing_key": signing_key,
            "simulator_fault": fault,
            "log_level": os.environ.get(f"{PREFIX}LOG_LEVEL", "error"),
        }
    )
    settings = Settings.load()
    if not as_json:
        terminal.show(styled(_BANNER, BAD), Text())
    server = LocalServer(settings)
    with _patience() as arrived, server.in_thread():
        trip = _RoundTrip(server.url)
        status = _show_trip(trip, settings, as_json=as_json)
        arrived()
        if serve:
            if not as_json:
                _show_by_hand(server.url)
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
    raise typer.Exit(status)


@contextlib.contextmanager
def _patience() -> Iterator[Callable[[], None]]:
    """Say what takes so long, unless what is given is called before."""
    said = threading.Timer(
        _PATIENCE_S,
        terminal.note,
        ["Still at it: the simulator makes its RSA keys when they are first needed."],
    )
    said.daemon = True
    said.start()
    try:
        yield said.cancel
    finally:
        said.cancel()


class _RoundTrip:
    """Challenge, attest, verify; every step is timed. The second and third may raise ServiceError."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.nonce = secrets.token_bytes(NONCE_SIZE)
        self.evidence: Evidence | None = None
        self.verdict: dict[str, Any] | None = None
        self.attest_s = 0.0
        self.verify_s = 0.0

    def attest(self, client: ServiceClient) -> Evidence:
        """Ask for evidence."""
        start = time.perf_counter()
        self.evidence = client.attest(self.nonce, Service.VTPM)
        self.attest_s = time.perf_counter() - start
        return self.evidence

    def verify(self, client: ServiceClient) -> dict[str, Any]:
        """Have it appraised."""
        start = time.perf_counter()
        self.verdict = client.verify({"nonce": b64.encode(self.nonce), "evidence": self.document()})
        self.verify_s = time.perf_counter() - start
        return self.verdict

    def document(self) -> dict[str, Any] | None:
        """The evidence as JSON."""
        if self.evidence is None:
            return None
        return EvidenceDocument.from_evidence(self.evidence).model_dump(mode="json")


def _show_trip(trip: _RoundTrip, settings: Settings, *, as_json: bool) -> ExitCode:
    with ServiceClient(trip.url) as client:
        if as_json:
            trip.attest(client)
            verdict = trip.verify(client)
            terminal.print_json(
                {
                    "simulated": True,
                    "url": trip.url,
                    "nonce": b64.encode(trip.nonce),
                    "evidence": trip.document(),
                    "verdict": verdict,
                }
            )
            return exit_code_of(verdict)
        terminal.show(*_introduction(trip, settings))
        evidence = trip.attest(client)
        terminal.show(_step(2, "attest", f"POST /attest answered in {trip.attest_s:.2f} s", _gist(evidence)))
        verdict = trip.verify(client)
        outcome = f"{verdict['verdict']}, {'genuine' if verdict['genuine'] is True else 'not genuine'}"
        terminal.show(
            _step(3, "verify", f"POST /verify answered in {trip.verify_s:.2f} s", outcome),
            Text(),
            *render_verdict(verdict),
        )
    return exit_code_of(verdict)


def _introduction(trip: _RoundTrip, settings: Settings) -> Iterator[RenderableType]:
    yield joined("Attester and verifier listen on ", (trip.url, STRONG))
    what = (
        f"a {settings.simulator_product} processor, report version {settings.simulator_report_version},"
        f" signed by a {settings.simulator_signing_key.upper()}"
    )
    yield joined("The simulated VM: ", what)
    if settings.simulator_fault is not None:
        fault = settings.simulator_fault
        yield joined(("The fault: ", BAD), f"{fault.value}: {fault.effect.what}")
    yield Text()
    nonce = trip.nonce.hex()
    yield _step(1, "challenge", f"a nonce of {NONCE_SIZE} random bytes", f"{nonce[:32]}…")


def _step(number: int, name: str, what: str, result: str) -> RenderableType:
    return columns(
        [(styled(f"{number} {name:<9}", GOOD), styled(f"{what:<35}"), styled(result, FAINT))], indent=2
    )


def _gist(evidence: Evidence) -> str:
    parts = [f"report {len(evidence.report)} bytes"]
    ek = endorsement_key(evidence.manifest) if evidence.manifest else None
    if ek is not None:
        parts.append(f"vTPM EK {ek.algorithm} ({ek.template or 'no template'})")
    if evidence.certificates:
        parts.append(f"certificate table {len(evidence.certificates)} bytes")
    return ", ".join(parts)


def by_hand(url: str) -> tuple[str, ...]:
    """The round trip as lines for bash: what a relying party does."""
    nonce = r"\"nonce\": \"$NONCE\""
    return (
        "NONCE=$(head -c 64 /dev/urandom | base64 -w0)",
        f'curl -sS {url}/attest -d "{{{nonce}}}" > evidence.json',
        f'curl -sS {url}/verify -d "{{{nonce}, \\"evidence\\": $(cat evidence.json)}}"',
    )


def _show_by_hand(url: str) -> None:
    terminal.show(Text(), styled("The same by hand, in another terminal:", STRONG), Text())
    for line in by_hand(url):
        typer.echo(line)  # as it is: to be copied, a line may not be wrapped
    terminal.show(Text(), joined("Serving on ", (url, STRONG), f" (API: {url}/docs). Ctrl-C stops."))
    sys.stdout.flush()  # a pipe or a file has waited for it, and nothing more is printed while serving


def _list_faults() -> None:
    terminal.show(columns([(fault.value, fault.effect.what) for fault in Fault], header=("Fault", "What")))
