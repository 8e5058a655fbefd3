"""`svsm-attest attest`."""

import asyncio
import secrets
from typing import Annotated

import typer

from app.api.evidence_document import EvidenceDocument
from app.api.pcr_fields import every_pcr
from app.api.quote_request import QuoteMembers
from app.attester.attester import QuoteWish
from app.cli import pcr_option, terminal
from app.cli.files import read_64_bytes
from app.cli.roles import command_settings, local_attester
from app.cli.service import ServiceClient
from app.config import Settings
from app.evidence.vtpm.ak_kind import AkKind
from app.wire.binding import NONCE_SIZE
from app.wire.evidence import Evidence, Service
from app.wire.session import NO_CHANNEL


def attest(
    *,
    nonce: Annotated[
        str | None,
        typer.Option(metavar="HEX|FILE", help="64 bytes from whoever will verify; random if left out."),
    ] = None,
    service: Annotated[Service, typer.Option(help="What the SVSM shall vouch for.")] = Service.VTPM,
    manifest_version: Annotated[
        int, typer.Option(min=0, max=0xFFFFFFFF, help="The version of the manifest to ask for.")
    ] = 0,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Ask the attester at this URL, not this machine.")
    ] = None,
    quote: Annotated[
        bool, typer.Option("--quote", help="Add a quote of the vTPM, in one session with the report.")
    ] = False,
    key: Annotated[
        AkKind | None,
        typer.Option(help="The attestation key that quotes; p256 if left out. Implies --quote."),
    ] = None,
    pcrs: Annotated[
        str | None,
        typer.Option(
            metavar=pcr_option.METAVAR,
            help="What to quote, such as sha256:0,1,7; sha256:all if left out. Implies --quote.",
        ),
    ] = None,
    event_log: Annotated[
        bool, typer.Option("--event-log", help="Add the firmware's event log. Implies --quote.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Errors as JSON on standard output; evidence always is.")
    ] = False,
) -> None:
    """Print evidence as JSON: from this machine's backend, or from an attester elsewhere.

    The backend is the one of the settings (SVSM_ATTEST_BACKEND): the simulator, unless it says
    configfs. Quotes come from the TPM at SVSM_ATTEST_TPM_DEVICE, or the simulator's.
    """
    del as_json
    members = None
    if quote or key or pcrs is not None or event_log:
        members = QuoteMembers(
            key=key or AkKind.P256,
            pcrs=every_pcr() if pcrs is None else pcr_option.read_pcrs(pcrs),
            event_log=event_log,
        )
    asked = read_64_bytes(nonce, "--nonce") if nonce is not None else secrets.token_bytes(NONCE_SIZE)
    if url is not None:
        with ServiceClient(url) as client:
            wanted = None if members is None else members.model_dump(mode="json")
            evidence = client.attest(asked, service, manifest_version, quote=wanted)
    else:
        wish = None if members is None else members.wish(NO_CHANNEL)
        evidence = asyncio.run(attest_here(command_settings(), asked, service, manifest_version, wish))
    if nonce is None:
        terminal.note(terminal.joined(("nonce: ", terminal.STRONG), asked.hex()))
    if evidence.backend == "simulator":
        terminal.note(
            terminal.joined(("SIMULATED: ", terminal.BAD), "this evidence proves nothing about hardware.")
        )
    terminal.print_json(EvidenceDocument.from_evidence(evidence).model_dump(mode="json"))


async def attest_here(
    settings: Settings,
    nonce: bytes,
    service: Service = Service.VTPM,
    manifest_version: int = 0,
    quote: QuoteWish | None = None,
) -> Evidence:
    """Evidence of this machine's backend, or of the simulator.

    Raises:
        BackendError: it gives none; or there is no TPM for the quote.
    """
    async with local_attester(settings) as attester:
        return await attester.attest(nonce, service, manifest_version, quote)
