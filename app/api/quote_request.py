"""What a request may say about a quote: by which key, about which registers, bound to which channel."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from app.api.pcr_fields import Pcrs, every_pcr
from app.attester.attester import QuoteWish
from app.evidence.vtpm.ak_kind import AkKind
from app.wire.session import NO_CHANNEL, Channel


class QuoteMembers(BaseModel):
    """By which key, and about what."""

    model_config = ConfigDict(extra="forbid")

    key: AkKind = Field(default=AkKind.P256, description="the attestation key, as POST /ak names it")
    pcrs: Pcrs = Field(
        default_factory=every_pcr, description="registers by bank; all of the SHA-256 bank if left out"
    )
    event_log: bool = Field(
        default=False, strict=True, description="add the firmware's event log, which explains the registers"
    )

    def wish(self, channel: Channel) -> QuoteWish:
        """The wish, within a session that is bound to this channel."""
        return QuoteWish(key=self.key, pcrs=self.pcrs, with_event_log=self.event_log, channel=channel)


class ChannelWish(BaseModel):
    """What a session is to be bound to beside its nonce.

    The value is never the client's: it is what the attester knows of its own end. A value from the
    request would be whatever somebody between the two wants it to be.
    """

    channel_binding: Literal["none", "tls-server-end-point"] = Field(
        default="none",
        description="tls-server-end-point binds to the certificate that this service presents",
    )

    def channel(self, end_point: Channel | None) -> Channel:
        """The channel, of a service whose own certificate gives `end_point`.

        Raises:
            HTTPException: 400, because there is no such channel.
        """
        if self.channel_binding == "none":
            return NO_CHANNEL
        if end_point is None:
            raise HTTPException(
                400,
                "/channel_binding: this service has no TLS certificate of its own to bind a session to;"
                " what does TLS in front of it is another end point",
            )
        return end_point
