"""`svsm-attest health`: what a container's health check runs."""

import http.client
import json
import ssl
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from app.cli import terminal
from app.cli.failure import ExitCode
from app.config import Settings

_TIMEOUT_S = 5.0
_MAX_ANSWER = 1 << 20
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (to know them, not to bind them)


def health(
    *,
    ready: Annotated[
        bool, typer.Option("--ready", help="Ask whether it can do its work, not just whether it lives.")
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The service; otherwise where the settings have it listen."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what it answered as JSON.")] = False,
) -> None:
    """Ask the service whether it is well: exit code 0 if it is, 1 if not."""
    base = url or _own_url(Settings.load())
    path = "/readyz" if ready else "/livez"
    well, answer = _ask(base, path)
    if as_json:
        terminal.print_json({"url": base + path, "ok": well, "answer": answer})
    else:
        terminal.show(terminal.joined(("ok" if well else "not ok", terminal.GOOD if well else terminal.BAD)))
        if not well:
            terminal.note(f"{base}{path}: {_reason(answer)}")
    raise typer.Exit(ExitCode.DONE if well else ExitCode.NOT_AFFIRMING)


def _own_url(settings: Settings) -> str:
    host = settings.host.strip("[]")
    host = _ANYWHERE.get(host, host)
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if settings.tls_certificate else 'http'}://{shown}:{settings.port}"


def _ask(base: str, path: str) -> tuple[bool, Any]:
    parts = urlsplit(base)
    connection: http.client.HTTPConnection
    try:
        if parts.scheme == "https":
            # It asks for life, not for identity, and the certificate is for another name than this.
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = http.client.HTTPSConnection(parts.netloc, timeout=_TIMEOUT_S, context=context)
        else:
            connection = http.client.HTTPConnection(parts.netloc, timeout=_TIMEOUT_S)
    except http.client.InvalidURL as error:
        raise typer.BadParameter(f"--url {base!r}: {error}") from error
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        raw = response.read(_MAX_ANSWER)
    except (OSError, http.client.HTTPException) as error:
        return False, f"no answer: {error}"
    finally:
        connection.close()
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError):
        answer = f"HTTP {response.status}"
    return response.status == http.client.OK, answer


def _reason(answer: Any) -> str:
    if not isinstance(answer, dict):
        return str(answer)
    checks = answer.get("checks")
    failed = (
        [one for one in checks if isinstance(one, dict) and not one.get("ok")]
        if isinstance(checks, list)
        else []
    )
    said = [f"{one.get('name')}: {one.get('detail')}" for one in failed]
    return "; ".join(said) or str(answer.get("detail") or "it says that it is not well")
