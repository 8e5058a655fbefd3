"""One nonce for everything: how report, keys and quote of one session become one statement.

A verifier's client chooses 64 bytes. From them, from the Name of the attestation key and from the
channel (where it is bound), the 64-byte nonce of the SNP report and the 32-byte qualifying data of
the quote are derived, each under its own label. The quote's also covers what the security processor
signed: a quote made for one report verifies beside no other, not even beside a second report of the
same session.
Construction, argument and test vectors: docs/session.md.
"""

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from app.errors import NonceError
from app.wire.binding import demand_nonce
from app.wire.report import REPORT_SIZE, SIGNED_SIZE
from app.wire.tpm.algorithms import HASH_SIZES

CONSTRUCTION: Final = "svsm-attest/session/1"
MAX_CHANNEL_SIZE = 64
_SESSION = CONSTRUCTION.encode()
_REPORT = _SESSION + b"/report"
_QUOTE = _SESSION + b"/quote"
_NAME_SIZES = tuple(2 + size for size in HASH_SIZES.values())


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
        if self.type is ChannelType.NONE and self.value:
            raise NonceError(f"channel binding: {len(self.value)} bytes, want none without a channel")
        if self.type is not ChannelType.NONE and not 1 <= len(self.value) <= MAX_CHANNEL_SIZE:
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
        if len(self.ak_name) not in _NAME_SIZES:
            raise NonceError(f"Name of the attestation key: {len(self.ak_name)} bytes, want 34, 50 or 66")

    @property
    def digest(self) -> bytes:
        """64 bytes that stand for the session; every part is preceded by its length."""
        channel = self.channel.type.to_bytes(1, "big") + _sized(self.channel.value)
        return _labelled(_SESSION, _sized(self.nonce) + _sized(self.ak_name) + channel)

    @property
    def report_nonce(self) -> bytes:
        """The 64 bytes that the SVSM is asked with."""
        return _labelled(_REPORT, self.digest)

    def qualifying_data(self, report: bytes | None) -> bytes:
        """The 32 bytes that the TPM is asked to quote with.

        Args:
            report: the session's SNP report, all 1184 bytes, of which the signed 672 count: its
                signature has a second form. None for a quote alone.

        Raises:
            NonceError: a report of another length.
        """
        if report is None:
            signed = b""
        elif len(report) == REPORT_SIZE:
            signed = report[:SIGNED_SIZE]
        else:
            raise NonceError(f"the session's report: {len(report)} bytes, want {REPORT_SIZE}")
        return hashlib.sha256(_QUOTE + b"\0" + self.digest + _sized(signed)).digest()


def _labelled(label: bytes, body: bytes) -> bytes:
    # no label is a prefix of another up to and including its zero byte
    return hashlib.sha512(label + b"\0" + body).digest()


def _sized(part: bytes) -> bytes:
    return len(part).to_bytes(2, "big") + part
