"""`svsm-attest ek-certificate`: a certificate for the EK of this VM's vTPM."""

import asyncio
import contextlib
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from app.api.evidence_document import EvidenceDocument
from app.cli import terminal
from app.cli.attest import attest_here
from app.cli.exchange import DEFAULT_KEY, Exchange
from app.cli.failure import ServiceError
from app.cli.roles import command_settings
from app.cli.service import ServiceClient
from app.cli.terminal import STRONG, joined
from app.errors import CertificateError
from app.tpm.client import Tpm
from app.tpm.ek_certificates import store_ek_certificate
from app.tpm.transport import DeviceTransport
from app.trust.certificates import der, load_certificate
from app.trust.tpm_key import public_key
from app.wire import b64
from app.wire.binding import NONCE_SIZE
from app.wire.evidence import Evidence
from app.wire.manifest import manifest_ek, parse_manifest
from app.wire.tpm.public import TpmtPublic

_PATH = "/ek-certificates"


def ek_certificate(
    *,
    verifier: Annotated[str, typer.Option(metavar="URL", help="The verifier that issues certificates.")],
    attester: Annotated[
        str | None, typer.Option(metavar="URL", help="Ask the attester at this URL, not this machine.")
    ] = None,
    quote: Annotated[
        bool, typer.Option("--quote", help="Bring a quote too, where the verifier's policy asks for one.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it here, not on standard output.")
    ] = None,
    as_der: Annotated[bool, typer.Option("--der", help="Write DER, not PEM; with --out.")] = False,
    write_nv: Annotated[
        bool, typer.Option("--write-nv", help="Store it in this machine's TPM, where Keylime's agent looks.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the verifier's whole answer as one JSON document.")
    ] = False,
) -> None:
    """Have the vTPM's EK certified: take the verifier's nonce, attest, and fetch the certificate.

    The certificate is public. An SVSM without persistent state makes a new EK at every boot, so this
    is to be run at every boot, before Keylime's agent starts.
    """
    if quote and attester is None:
        raise typer.BadParameter("--quote takes an attester with a vTPM: name it with --attester")
    if as_der and out is None:
        raise typer.BadParameter("--der takes a file: name it with --out")
    settings = command_settings()
    with contextlib.ExitStack() as stack:
        issuer = stack.enter_context(ServiceClient(verifier))
        nonce = _nonce_from(issuer)
        if attester is None:
            evidence = asyncio.run(attest_here(settings, nonce))
            request = {"nonce": b64.encode(nonce), "evidence": _document(evidence)}
        else:
            exchange = Exchange(stack.enter_context(ServiceClient(attester)), issuer)
            exchange.nonce = nonce
            evidence, request = _exchanged(exchange, quote=quote)
        document = _ask(issuer, request)
    ek, certificate = _certified(issuer.url, document, evidence)
    if write_nv:
        _write_nv(settings.tpm_device, ek, certificate, settings.tpm_timeout_s)
    if out is not None:
        out.write_bytes(certificate.public_bytes(Encoding.DER if as_der else Encoding.PEM))
    if as_json:
        terminal.print_json(document)
    elif out is None and not write_nv:
        terminal.show(certificate.public_bytes(Encoding.PEM).decode("ascii").rstrip("\n"))
    _note(certificate, ek)


def _nonce_from(issuer: ServiceClient) -> bytes:
    document = issuer.ask(f"{_PATH}/nonces", {})
    nonce = document.get("nonce")
    try:
        raw = b64.decode(nonce) if isinstance(nonce, str) else b""
    except ValueError:
        raw = b""
    if len(raw) != NONCE_SIZE:
        raise ServiceError(f"{issuer.url}{_PATH}/nonces", f"the answer holds no nonce of {NONCE_SIZE} bytes")
    return raw


def _exchanged(exchange: Exchange, *, quote: bool) -> tuple[Evidence, dict[str, Any]]:
    if quote:
        exchange.activate(exchange.challenge(exchange.ask_key()))
    evidence = exchange.attest(DEFAULT_KEY if quote else None)
    request = {"nonce": b64.encode(exchange.nonce), "evidence": _document(evidence)}
    if exchange.activation is not None:
        request["activation"] = exchange.activation
    return evidence, request


def _document(evidence: Evidence) -> dict[str, Any]:
    return EvidenceDocument.from_evidence(evidence).model_dump(mode="json")


def _ask(issuer: ServiceClient, request: dict[str, Any]) -> dict[str, Any]:
    """The verifier's answer; a refusal is shown with what the appraisal found."""
    try:
        return issuer.ask(_PATH, request)
    except ServiceError as error:
        findings = error.problem.get("findings")
        for finding in findings if isinstance(findings, list) else ():
            if isinstance(finding, dict):
                said = f"  {finding.get('outcome')}: {finding.get('why')}"
                terminal.note(joined((finding.get("check"), STRONG), said))
        raise


def _certified(url: str, document: dict[str, Any], evidence: Evidence) -> tuple[TpmtPublic, x509.Certificate]:
    """The certificate in an answer, which must be about the attested EK."""
    pem = str(document.get("certificate")).encode("utf-8", "replace")
    ek = manifest_ek(parse_manifest(evidence.manifest or b""))
    try:
        certificate = load_certificate(pem, "certificate")
        is_of_ek = ek is not None and certificate.public_key() == public_key(ek)
    except (CertificateError, ValueError, UnsupportedAlgorithm) as error:
        raise ServiceError(url + _PATH, f"the answer holds no certificate: {error}") from error
    if ek is None or not is_of_ek:
        raise ServiceError(url + _PATH, "the certificate is for another key than the attested EK")
    return ek, certificate


def _write_nv(device: Path, ek: TpmtPublic, certificate: x509.Certificate, timeout_s: float) -> None:
    def may_replace(held: bytes) -> bool:
        """Nothing, or what the same authority issued: what else there is may be a manufacturer's."""
        try:
            return not held or load_certificate(held, "NV index").issuer == certificate.issuer
        except CertificateError:
            return False

    with contextlib.closing(DeviceTransport(device)) as channel:
        tpm = Tpm(channel, timeout_s=timeout_s)
        index = store_ek_certificate(tpm, ek, der(certificate), may_replace=may_replace)
    terminal.note(joined(("stored: ", STRONG), f"NV index 0x{index:08x} of {device}"))


def _note(certificate: x509.Certificate, ek: TpmtPublic) -> None:
    issuer = certificate.issuer.rfc4514_string()
    terminal.note(joined(("certified: ", STRONG), f"EK {ek.name.hex()}"))
    terminal.note(joined(("by: ", STRONG), f"{issuer}, serial {certificate.serial_number:040x}"))
    terminal.note(joined(("until: ", STRONG), f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"))
