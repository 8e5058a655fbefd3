"""`svsm-attest demo`: the whole round trip, on one machine, over HTTP."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from app.attester.endorsement_key import endorsement_key
from app.cli import terminal
from app.cli.chain_view import render_chain
from app.cli.exchange import DEFAULT_KEY, Exchange
from app.cli.failure import ExitCode, ServiceError
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
from app.wire.evidence import Evidence
from app.wire.product import ProductLine

_SERVE_PORT = 8080
_PATIENCE_S = 2.0
_NO_TPM = "tpm-"  # how the causes begin for which there is evidence, but no quote
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
    """Start both roles on a simulated VM, then prove its key, attest and verify over HTTP.

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
        status = _show_trip(server.url, settings, as_json=as_json)
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


def _show_trip(url: str, settings: Settings, *, as_json: bool) -> ExitCode:
    def show(*items: RenderableType) -> None:
        if not as_json:
            terminal.show(*items)

    with ServiceClient(url) as client:
        exchange = Exchange(client, client)
        show(*_introduction(exchange, url, settings))
        missing = None
        try:
            _bind_key(exchange, show)
        except ServiceError as error:
            if not str(error.problem.get("cause", "")).startswith(_NO_TPM):
                raise
            missing = f"{error.problem.get('detail')}. {error.problem.get('remedy')}."
            show(_step(2, "key", "none: report only, no quote", missing))
        evidence = exchange.attest(DEFAULT_KEY if missing is None else None)
        show(_step(4, "attest", f"POST /attest {_took(exchange)}", _gist(evidence)))
        verdict = exchange.verify()
        outcome = f"{verdict['verdict']}, {'genuine' if verdict['genuine'] is True else 'not genuine'}"
        show(
            _step(5, "verify", f"POST /verify {_took(exchange)}", outcome),
            Text(),
            *render_chain(verdict),
            Text(),
            *render_verdict(verdict),
        )
        if as_json:
            terminal.print_json(
                {
                    "simulated": True,
                    "url": url,
                    "nonce": b64.encode(exchange.nonce),
                    "evidence": exchange.document(),
                    "activation": exchange.activation,
                    "report_only": missing,
                    "verdict": verdict,
                }
            )
    return exit_code_of(verdict)


def _bind_key(exchange: Exchange, show: Callable[..., None]) -> None:
    """Have the verifier challenge the attester's AK, and the TPM answer."""
    key = exchange.ask_key()
    show(_step(2, "key", f"POST /ak {_took(exchange)}", f"AK {key['algorithm']} {key['name'][:20]}…"))
    challenge = exchange.challenge(key)
    asked_s = exchange.took_s
    exchange.activate(challenge)
    what = f"POST /ak-challenges, /ak/activate: {asked_s + exchange.took_s:.2f} s"
    show(_step(3, "activate", what, "answered by the TPM that has EK and AK"))


def _introduction(exchange: Exchange, url: str, settings: Settings) -> Iterator[RenderableType]:
    yield joined("Attester and verifier listen on ", (url, STRONG))
    what = (
        f"a {settings.simulator_product} processor, report version {settings.simulator_report_version},"
        f" signed by a {settings.simulator_signing_key.upper()}"
    )
    yield joined("The simulated VM: ", what)
    if settings.simulator_fault is not None:
        fault = settings.simulator_fault
        yield joined(("The fault: ", BAD), f"{fault.value}: {fault.effect.what}")
    yield Text()
    nonce = exchange.nonce.hex()
    yield _step(1, "challenge", f"a nonce of {NONCE_SIZE} random bytes", f"{nonce[:32]}…")


def _step(number: int, name: str, what: str, result: str) -> RenderableType:
    return columns(
        [(styled(f"{number} {name:<9}", GOOD), styled(f"{what:<44}"), styled(result, FAINT))], indent=2
    )


def _took(exchange: Exchange) -> str:
    return f"answered in {exchange.took_s:.2f} s"


def _gist(evidence: Evidence) -> str:
    parts = [f"report {len(evidence.report)} bytes"]
    ek = endorsement_key(evidence.manifest) if evidence.manifest else None
    if ek is not None:
        parts.append(f"vTPM EK {ek.algorithm} ({ek.template or 'no template'})")
    if evidence.quote is not None:
        registers = sum(len(digests) for digests in evidence.quote.pcrs.values)
        parts.append(f"quote over {registers} PCRs")
    if evidence.quote is not None and evidence.quote.event_log is not None:
        parts.append(f"event log {len(evidence.quote.event_log)} bytes")
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
