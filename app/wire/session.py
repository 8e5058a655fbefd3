"""One nonce for everything: how report, keys and quote of one session become one statement.

A verifier's client chooses 64 bytes. From them, from the Name of the attestation key and from the
channel (where it is bound), the 64-byte nonce of the SNP report and the 32-byte qualifying data of
the quote are derived, each under its own label. The quote's also covers the report's REPORT_DATA,
and with it the manifest: a quote made for one report verifies beside no other.
Construction, argument and test vectors: docs/session.md.
"""

import hashlib
from dataclasses import dataclass
from enum import IntEnum

from app.errors import NonceError
from app.wire.binding import demand_nonce

CONSTRUCTION = "svsm-attest/session/1"
REPORT_DATA_SIZE = 64
MAX_NAME_SIZE = 66  # a SHA-512 Name; TPM 2.0 Library, Part 1, 16
MAX_CHANNEL_SIZE = 64
_SESSION = b"svsm-attest/session/1"
_REPORT = b"svsm-attest/session/1/report"
_QUOTE = b"svsm-attest/session/1/quote"


class ChannelType(IntEnum):
    """What a session is bound to beside its nonce; the value enters the construction."""

    NONE = 0
    TLS_SERVER_END_POINT = 1  # RFC 5929, 4: digest of the attester's TLS certificate
    TLS_EXPORTER = 2  # RFC 9266: keying material of the connection


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel and the bytes that identify it (none, or 1 to 64)."""

    type: ChannelType = ChannelType.NONE
    value: bytes = b""

    def __post_init__(self) -> None:
        fits = 1 <= len(self.value) <= MAX_CHANNEL_SIZE if self.type else not self.value
        if not fits:
            raise NonceError(f"channel binding: {len(self.value)} bytes, want 1 to {MAX_CHANNEL_SIZE}")


NO_CHANNEL = Channel()


@dataclass(frozen=True, slots=True)
class Session:
    """A client's nonce (64 bytes), an attestation key's Name (34, 50 or 66 bytes) and a channel."""

    nonce: bytes
    ak_name: bytes
    channel: Channel = NO_CHANNEL

    def __post_init__(self) -> None:
        demand_nonce(self.nonce)
        if not 0 < len(self.ak_name) <= MAX_NAME_SIZE:
            raise NonceError(f"Name of the attestation key: {len(self.ak_name)} bytes")

    @property
    def digest(self) -> bytes:
        """64 bytes that stand for the session; every part is preceded by its length."""
        channel = self.channel.type.to_bytes(1, "big") + _sized(self.channel.value)
        return _labelled(_SESSION, _sized(self.nonce) + _sized(self.ak_name) + channel)

    @property
    def report_nonce(self) -> bytes:
        """The 64 bytes that the SVSM is asked with."""
        return _labelled(_REPORT, self.digest)

    def qualifying_data(self, report_data: bytes | None) -> bytes:
        """The 32 bytes that the TPM is asked to quote with.

        Args:
            report_data: the 64-byte REPORT_DATA of the session's report; None for a quote alone.

        Raises:
            NonceError: REPORT_DATA of another length.
        """
        if report_data is not None and len(report_data) != REPORT_DATA_SIZE:
            raise NonceError(f"REPORT_DATA: {len(report_data)} bytes, want {REPORT_DATA_SIZE}")
        body = self.digest + _sized(report_data or b"")
        return hashlib.sha256(_QUOTE + b"\0" + body).digest()


def _labelled(label: bytes, body: bytes) -> bytes:
    # no label is a prefix of another up to and including its zero byte
    return hashlib.sha512(label + b"\0" + body).digest()


def _sized(part: bytes) -> bytes:
    return len(part).to_bytes(2, "big") + part
