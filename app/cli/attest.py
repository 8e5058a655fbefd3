"""`svsm-attest attest`."""

import asyncio
import secrets
from typing import Annotated

import typer

from app.api.evidence_document import EvidenceDocument
from app.assembly import make_backend
from app.attester.attester import Attester
from app.cli import terminal
from app.cli.files import read_64_bytes
from app.cli.roles import command_settings
from app.cli.service import ServiceClient
from app.config import Settings
from app.wire.binding import NONCE_SIZE
from app.wire.evidence import Evidence, Service


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
    as_json: Annotated[
        bool, typer.Option("--json", help="Errors as JSON on standard output; evidence always is.")
    ] = False,
) -> None:
    """Print evidence as JSON: from this machine's backend, or from an attester elsewhere.

    The backend is the one of the settings (SVSM_ATTEST_BACKEND): the simulator, unless it says
    configfs.
    """
    del as_json
    asked = read_64_bytes(nonce, "--nonce") if nonce is not None else secrets.token_bytes(NONCE_SIZE)
    if url is not None:
        with ServiceClient(url) as client:
            evidence = client.attest(asked, service, manifest_version)
    else:
        evidence = asyncio.run(_attest_here(command_settings(), asked, service, manifest_version))
    if nonce is None:
        terminal.note(terminal.joined(("nonce: ", terminal.STRONG), asked.hex()))
    if evidence.backend == "simulator":
        terminal.note(
            terminal.joined(("SIMULATED: ", terminal.BAD), "this evidence proves nothing about hardware.")
        )
    terminal.print_json(EvidenceDocument.from_evidence(evidence).model_dump(mode="json"))


async def _attest_here(settings: Settings, nonce: bytes, service: Service, manifest_version: int) -> Evidence:
    backend = make_backend(settings)
    try:
        attester = Attester(backend, interval_s=settings.interval_s, max_waiting=settings.max_waiting)
        return await attester.attest(nonce, service, manifest_version)
    finally:
        await backend.aclose()
