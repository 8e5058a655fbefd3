"""The session of docs/session.md with plain hashlib, by the page alone: nothing of the package is used."""

import hashlib

TLS_SERVER_END_POINT = 1
_SIGNED = 0x2A0  # bytes of a report that the security processor signs


def _sized(part: bytes) -> bytes:
    return len(part).to_bytes(2, "big") + part


def _digest(nonce: bytes, ak_name: bytes, channel: tuple[int, bytes]) -> bytes:
    kind, value = channel
    parts = _sized(nonce) + _sized(ak_name) + bytes([kind]) + _sized(value)
    return hashlib.sha512(b"svsm-attest/session/1\0" + parts).digest()


NO_CHANNEL = (0, b"")


def report_nonce(nonce: bytes, ak_name: bytes, channel: tuple[int, bytes] = NO_CHANNEL) -> bytes:
    """What the SVSM is asked with."""
    return hashlib.sha512(b"svsm-attest/session/1/report\0" + _digest(nonce, ak_name, channel)).digest()


def report_data(nonce: bytes, manifest: bytes) -> bytes:
    """What the SVSM puts into the report."""
    return hashlib.sha512(nonce + manifest).digest()


def qualifying(
    nonce: bytes, ak_name: bytes, report: bytes | None, channel: tuple[int, bytes] = NO_CHANNEL
) -> bytes:
    """What the TPM is asked to quote with; without a report for a quote alone."""
    signed = b"" if report is None else report[:_SIGNED]
    digest = _digest(nonce, ak_name, channel)
    return hashlib.sha256(b"svsm-attest/session/1/quote\0" + digest + _sized(signed)).digest()
