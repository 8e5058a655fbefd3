"""`svsm-attest ek-ca`: the authority that certifies EKs."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography.hazmat.primitives.serialization import Encoding

from app.cli import terminal
from app.cli.failure import InputError
from app.cli.roles import utc_now
from app.cli.terminal import BAD, STRONG, columns, joined, styled
from app.config import PREFIX
from app.trust.certificates import certificate_digest
from app.trust.ek_authority import SIMULATED, CaAlgorithm, EkAuthority
from app.verifier.private_files import write_new

_KEY = "ek-ca.key"  # not .pem: Keylime reads every *.pem of its store
_CERTIFICATE = "ek-ca.pem"
_LOG = "issued.jsonl"
_MAX_DAYS = 3650
_MAX_NAME = 64  # RFC 5280, ub-common-name

ek_ca = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Set up the authority that certifies the EKs of vTPMs."
)


@ek_ca.callback()
def _group() -> None:
    pass


@ek_ca.command("init")
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where key and certificate go.")],
    *,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="For simulated evidence, and for nothing else.")
    ] = False,
    algorithm: Annotated[CaAlgorithm, typer.Option(help="The kind of key.")] = CaAlgorithm.P384,
    name: Annotated[
        str | None, typer.Option(help="The common name; otherwise one that no other authority has.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=_MAX_DAYS, help="How long the certificate is valid.")] = 365,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Make a key and a certificate that it signs itself, and say what to do with them.

    The key is worth as much as a TPM manufacturer's to everybody who trusts the certificate. Nothing
    that exists is overwritten.
    """
    _demand_name(name, simulated=simulated)
    made = EkAuthority.create(
        name=name, simulated=simulated, algorithm=algorithm, at=utc_now(), lifetime=timedelta(days=days)
    )
    folder = folder.absolute()
    _write(folder, made)
    settings = {
        f"{PREFIX}EK_CA_CERTIFICATE": str(folder / _CERTIFICATE),
        f"{PREFIX}EK_CA_KEY": str(folder / _KEY),
        f"{PREFIX}EK_CA_LOG": str(folder / _LOG),
    }
    if as_json:
        terminal.print_json(_document(made, settings))
    else:
        _show(made, settings)


def _demand_name(name: str | None, *, simulated: bool) -> None:
    if name is None:
        return
    if not name.strip() or not name.isprintable():
        raise typer.BadParameter("--name is empty, or has characters that cannot be shown")
    room = _MAX_NAME - (len(SIMULATED) + 1 if simulated else 0)
    if len(name) > room:
        raise typer.BadParameter(f"--name has {len(name)} characters, at most {room}")
    if SIMULATED.lower() in name.lower():
        raise typer.BadParameter("--simulated puts that word before the name: leave it out of --name")


def _write(folder: Path, made: EkAuthority) -> None:
    """Both files, or none."""
    key, certificate = folder / _KEY, folder / _CERTIFICATE
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (key, certificate):
            if os.path.lexists(path):
                raise FileExistsError(None, "File exists", str(path))  # noqa: TRY301 (as open would say)
        write_new(key, made.key_pem())
        try:
            write_new(certificate, made.certificate.public_bytes(Encoding.PEM), 0o644)
        except OSError:
            key.unlink()
            raise
    except FileExistsError as error:
        remedy = "Name another folder. Whoever trusts the authority that is there would not trust a new one."
        raise InputError(str(error.filename), "exists already", remedy) from error
    except OSError as error:
        raise InputError(str(folder), f"cannot be written: {error.strerror}") from error


def _document(made: EkAuthority, settings: dict[str, str]) -> dict[str, Any]:
    certificate = made.certificate
    return {
        "name": made.name,
        "simulated": made.simulated,
        "not_before": f"{certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}",
        "not_after": f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
        "sha256": certificate_digest(certificate),
        "settings": settings,
    }


def _show(made: EkAuthority, settings: dict[str, str]) -> None:
    rows = [
        ("authority", made.name),
        ("valid until", f"{made.certificate.not_valid_after_utc:%Y-%m-%d}"),
        ("SHA-256", certificate_digest(made.certificate)),
    ]
    terminal.show(columns([(styled(title, STRONG), styled(value)) for title, value in rows]))
    terminal.show("", styled("Set for the verifier:", STRONG))
    terminal.show(*(f"  {name}={value}" for name, value in settings.items()))
    certificate, key, _ = settings.values()
    terminal.show("", styled("Give to Keylime:", STRONG))
    terminal.show(f"  {certificate} goes into the folder tpm_cert_store, under a name that ends in .pem")
    terminal.show("", styled("Keep to yourself:", STRONG), f"  {key}")
    if made.simulated:
        warning = "it certifies simulated evidence, and nothing else. Trust it in tests only."
        terminal.note(joined(("SIMULATED: ", BAD), warning))
