"""What is this file? Told from its content: neither its name nor its size alone decides."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from app.cli.failure import InputError
from app.cli.inspection import documents
from app.cli.inspection.certificate import bundle_sheet, certificate_sheet, crl_sheet
from app.cli.inspection.event_log import event_log_sheet, is_event_log
from app.cli.inspection.igvm import igvm_sheet
from app.cli.inspection.manifest import manifest_sheet
from app.cli.inspection.quote import ATTEST_MAGIC, attest_sheet, signature_sheet
from app.cli.inspection.report import report_sheet
from app.cli.inspection.sheet import Sheet
from app.cli.inspection.table import table_sheet
from app.cli.inspection.tpm import public_sheet
from app.errors import AttestError, CertificateError, WireError
from app.trust.certificates import load_certificate, load_certificates, load_crl
from app.wire import b64, guid, services_manifest, uefi_mm
from app.wire.certificate_table import CertificateTable
from app.wire.event_log import EventLog
from app.wire.igvm.fixed_header import MAGIC as IGVM_MAGIC
from app.wire.manifest import parse_manifest
from app.wire.report import REPORT_SIZE, AttestationReport
from app.wire.tpm import algorithms as alg
from app.wire.tpm.public import TpmtPublic

MAX_SIZE = 4 << 20  # evidence with the largest manifest, table and event log, in base64
RESPONSE_HEADER_SIZE = 32  # MSG_REPORT_RSP: u32 status, u32 size of the report, 24 reserved bytes
_HCL_MAGIC = b"HCLA"  # Azure's paravisor: a header of 32 bytes, the report, then its runtime data
_PLAUSIBLE_VERSIONS = range(1, 17)
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_NONCE_SIZE = 64
_SIGNATURE_SCHEMES = {alg.RSASSA, alg.RSAPSS, alg.ECDSA, alg.HMAC}


def identify(raw: bytes) -> Sheet:
    """Say what the bytes are, and lay them open.

    Raises:
        WireError, CertificateError, EvidenceError: they resemble a structure and stop to fit it.
        InputError: they resemble nothing that is known here.
    """
    if not raw:
        raise InputError("content", "there is nothing: 0 bytes")
    for recognise in _RECOGNISERS:
        sheet = recognise(raw)
        if sheet is not None:
            return sheet
    raise _unknown(raw)


def _json(raw: bytes) -> Sheet | None:
    return documents.document_sheet(raw) if raw.lstrip()[:1] in {b"{", b"["} else None


def _pem(raw: bytes) -> Sheet | None:
    if b"\0" in raw:
        return None
    blocks = [(match[1], match[0]) for match in _PEM.finditer(raw)]
    if not blocks:
        if raw.lstrip().startswith(b"-----BEGIN"):
            raise CertificateError("PEM", "the block has no end")
        return None
    labels = {label for label, _ in blocks}
    # RFC 7468 lets text stand around the blocks.
    text = b"\n".join(block for _, block in blocks)
    if labels == {b"X509 CRL"}:
        return crl_sheet(load_crl(text, "PEM"))
    if labels != {b"CERTIFICATE"}:
        names = ", ".join(sorted(label.decode() for label in labels))
        raise CertificateError("PEM", f"holds {names}; known are CERTIFICATE and X509 CRL, apart")
    certificates = load_certificates(text, "PEM")
    if len(certificates) == 1:
        return replace(certificate_sheet(certificates[0]), size=len(raw))
    return bundle_sheet(certificates, len(raw))


def _der(raw: bytes) -> Sheet | None:
    if raw[:1] != b"\x30" or len(raw) < 4 or raw[1] not in {0x81, 0x82, 0x83}:  # noqa: PLR2004 (a long SEQUENCE)
        return None
    try:
        return certificate_sheet(load_certificate(raw, "DER"))
    except CertificateError as error:
        try:
            return crl_sheet(load_crl(raw, "DER"))
        except CertificateError:
            stated = _stated_size(raw)
            if stated == len(raw):
                raise error from None
            reason = (
                f"resembles a certificate, but its outer SEQUENCE has {stated} bytes, and here are {len(raw)}"
            )
            raise CertificateError("DER", reason) from error


def _stated_size(raw: bytes) -> int:
    """How long the outer SEQUENCE says it is, header included (X.690, 8.1.3.5)."""
    octets = raw[1] - 0x80
    return 2 + octets + int.from_bytes(raw[2 : 2 + octets], "big")


def _attest(raw: bytes) -> Sheet | None:
    return attest_sheet(raw) if raw.startswith(ATTEST_MAGIC) else None


def _signature(raw: bytes) -> Sheet | None:
    scheme, hash_alg = (int.from_bytes(raw[start : start + 2], "big") for start in (0, 2))
    if scheme not in _SIGNATURE_SCHEMES or hash_alg not in {*alg.HASH_NAMES, alg.SHA1}:
        return None
    return signature_sheet(raw)


def _event_log(raw: bytes) -> Sheet | None:
    return event_log_sheet(EventLog.parse(raw), len(raw)) if is_event_log(raw) else None


def _report(raw: bytes) -> Sheet | None:
    """A report, bare or in one of the wrappings that are in use."""
    if raw.startswith(_HCL_MAGIC):
        left = len(raw) - RESPONSE_HEADER_SIZE - REPORT_SIZE
        return _wrapped(
            raw, RESPONSE_HEADER_SIZE, "an Azure HCL blob", f"{left} bytes of runtime data follow it"
        )
    if _is_response(raw):
        status = int.from_bytes(raw[:4], "little")
        size = int.from_bytes(raw[4:8], "little")
        return _wrapped(
            raw, RESPONSE_HEADER_SIZE, "MSG_REPORT_RSP", f"its header says status {status} and {size} bytes"
        )
    version = int.from_bytes(raw[:4], "little")
    if len(raw) == REPORT_SIZE and (version in _PLAUSIBLE_VERSIONS or not any(raw)):
        return report_sheet(AttestationReport.parse(raw))
    if version not in _PLAUSIBLE_VERSIONS or _is_key_like(raw):
        return None
    if len(raw) > REPORT_SIZE:
        rest = raw[REPORT_SIZE:]
        what = "zero bytes" if not any(rest) else f"bytes {rest[:32].hex()}{'…' if len(rest) > 32 else ''}"  # noqa: PLR2004
        return _wrapped(raw, 0, "a longer buffer", f"{len(rest)} {what} follow it")
    if len(raw) > _NONCE_SIZE:
        AttestationReport.parse(raw)  # says how many bytes are missing
    return None


def _is_response(raw: bytes) -> bool:
    inner = raw[RESPONSE_HEADER_SIZE:]
    return (
        len(inner) >= REPORT_SIZE
        and int.from_bytes(raw[4:8], "little") == REPORT_SIZE
        and not any(raw[8:RESPONSE_HEADER_SIZE])
        and int.from_bytes(inner[:4], "little") in _PLAUSIBLE_VERSIONS
    )


def _wrapped(raw: bytes, start: int, wrapping: str, remark: str) -> Sheet:
    sheet = report_sheet(AttestationReport.parse(raw[start : start + REPORT_SIZE]))
    bare = f"tail -c +{start + 1} FILE | head -c {REPORT_SIZE}" if start else f"head -c {REPORT_SIZE} FILE"
    return replace(
        sheet,
        title=f"{sheet.title}, inside {wrapping}",
        size=len(raw),
        remarks=(
            *sheet.remarks,
            f"The report starts at byte {start}; {remark}.",
            f"`verify` wants it bare: {bare}",
        ),
        document={**sheet.document, "wrapping": {"form": wrapping, "report_offset": start}},
    )


def _igvm(raw: bytes) -> Sheet | None:
    return igvm_sheet(raw) if raw.startswith(IGVM_MAGIC) else None


def _services(raw: bytes) -> Sheet | None:
    if not raw.startswith(services_manifest.MAGIC):
        return None
    return manifest_sheet(parse_manifest(raw), len(raw))


def _tpm_key(raw: bytes) -> Sheet | None:
    if not _is_key_like(raw):
        return None
    if _starts_public(raw[2:]) and not _starts_public(raw):
        return public_sheet(TpmtPublic.from_tpm2b(raw), size=len(raw), form="TPM2B_PUBLIC")
    return manifest_sheet(parse_manifest(raw), len(raw))


def _is_key_like(raw: bytes) -> bool:
    is_list = raw[:4] == b"\0\0\0\1" and _starts_public(raw[10:])
    return _starts_public(raw) or _starts_public(raw[2:]) or is_list


def _starts_public(raw: bytes) -> bool:
    kind, name_alg = (int.from_bytes(raw[start : start + 2], "big") for start in (0, 2))
    return kind in {alg.RSA, alg.ECC} and name_alg in alg.HASH_NAMES


def _uefi_mm(raw: bytes) -> Sheet | None:
    if len(raw) != uefi_mm.SIZE or raw[1:4] != b"\0\0\0":
        return None
    return manifest_sheet(parse_manifest(raw), len(raw))


def _table(raw: bytes) -> Sheet | None:
    first = raw[: guid.SIZE]
    if not any(raw):
        return table_sheet(CertificateTable.parse(raw), len(raw))
    known = {name.bytes for name in guid.NAMES} | {name.bytes_le for name in guid.NAMES}
    if first in known:
        return table_sheet(CertificateTable.parse(raw), len(raw))
    try:
        table = CertificateTable.parse(raw)
    except WireError:
        return None
    # Nothing but zeros in the right places makes a table of nothing, too.
    return table_sheet(table, len(raw)) if any(entry.data for entry in table.entries) else None


def _text(raw: bytes) -> Sheet | None:
    """Digits instead of bytes: decoded, and said so."""
    squeezed = b"".join(raw.split())
    if len(squeezed) < 2 * guid.SIZE or not squeezed.isascii():
        return None
    text = squeezed.decode("ascii")
    decoders: tuple[tuple[str, str, Callable[[str], bytes]], ...] = (
        ("hexadecimal digits", "xxd -r -p", bytes.fromhex),
        ("base64", "base64 -d", b64.decode),
    )
    for name, command, decode in decoders:
        try:
            inner = decode(text)
        except ValueError:
            continue
        sheet = identify(inner)
        remark = f"The file holds it as {name}; make it binary with `{command}`."
        return replace(sheet, remarks=(*sheet.remarks, remark))
    return None


_RECOGNISERS: tuple[Callable[[bytes], Sheet | None], ...] = (
    _json,
    _pem,
    _der,
    _igvm,
    _attest,
    _event_log,
    _signature,
    _services,
    _tpm_key,
    _report,
    _uefi_mm,
    _table,
    _text,
)


@dataclass(frozen=True, slots=True)
class _Guess:
    name: str
    offset: int
    reason: str


def _unknown(raw: bytes) -> AttestError:
    """Nothing fits: which structure fits longest, and where does it stop?"""
    parsers: tuple[tuple[str, Callable[[bytes], object]], ...] = (
        ("a certificate table", CertificateTable.parse),
        ("a TPMT_PUBLIC", TpmtPublic.parse),
        ("a TPM2B_PUBLIC", TpmtPublic.from_tpm2b),
        ("a manifest", parse_manifest),
    )
    guesses = []
    for name, parse in parsers:
        try:
            parse(raw)
        except WireError as error:
            guesses.append(_Guess(name, error.offset, error.reason))
    best = max(guesses, key=lambda guess: guess.offset)
    head = raw[:16].hex(" ") + (" …" if len(raw) > 16 else "")  # noqa: PLR2004
    nearest = f"; nearest is {best.name}, which ends to fit at 0x{best.offset:x}: {best.reason}"
    if len(raw) == _NONCE_SIZE:
        nearest = "; 64 bytes may be a nonce or a REPORT_DATA, but nothing in them says so"
    return InputError("content", f"nothing known begins with {head} ({len(raw)} bytes){nearest}")
