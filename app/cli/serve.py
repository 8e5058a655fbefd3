"""`svsm-attest serve`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from app.cli.server import LocalServer, export_settings
from app.config import Settings


class Role(StrEnum):
    """What the service does."""

    ATTESTER = "attester"
    VERIFIER = "verifier"
    BOTH = "both"


class Backend(StrEnum):
    """Where evidence comes from."""

    SIMULATOR = "simulator"
    CONFIGFS = "configfs"


def serve(
    *,
    role: Annotated[Role | None, typer.Option(help="What the service does.")] = None,
    backend: Annotated[Backend | None, typer.Option(help="Where evidence comes from.")] = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=0xFFFF, help="The port; 0 takes a free one.")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings in a TOML file.")] = None,
    policy: Annotated[
        str | None, typer.Option(metavar="FILE|NAME", help="The policy where a request names none.")
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificate chain (PEM) to serve TLS with.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its private key (PEM).")] = None,
    insecure_http: Annotated[
        bool, typer.Option("--insecure-http", help="Listen outside loopback without TLS.")
    ] = False,
    allow_simulator: Annotated[
        bool,
        typer.Option("--allow-simulator", help="Trust the simulator, and serve it outside loopback."),
    ] = False,
) -> None:
    """Run the service until Ctrl-C or SIGTERM.

    Flags win over SVSM_ATTEST_* in the environment, and that over the file of --config.
    """
    export_settings(
        {
            "role": role,
            "backend": backend,
            "host": host,
            "port": port,
            "config": config,
            "policy": policy,
            "tls_certificate": tls_cert,
            "tls_key": tls_key,
            "insecure_http": insecure_http,
            "allow_simulator": allow_simulator,
        }
    )
    LocalServer(Settings.load()).run()
