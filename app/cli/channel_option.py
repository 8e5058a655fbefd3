"""`--channel-binding`: the channel to an attester, as whoever asked it saw it."""

import re
from pathlib import Path

from app.api.evidence_document import ChannelBinding
from app.cli.failure import InputError, about
from app.cli.files import read_file
from app.errors import NonceError
from app.trust.certificates import MAX_BUNDLE_SIZE
from app.trust.tls_end_point import server_end_point
from app.wire.session import Channel

OPTION = "--channel-binding"
METAVAR = "TYPE:HEX|FILE"
_FORM = "Write it like tls-server-end-point:HEX, or name the attester's certificate (PEM) in place of HEX."
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+")


def read_channel(text: str) -> Channel:
    """A channel such as `tls-server-end-point:cert.pem` or, with its value, `tls-exporter:00ff...`.

    Raises:
        InputError: another form, an unknown type, a file that cannot be read.
        InFileError: the file holds no certificate that gives a channel.
    """
    name, _, value = text.partition(":")
    try:
        kind = ChannelBinding(name)
    except ValueError as error:
        raise InputError(OPTION, f"{name!r} is no type of channel", _FORM) from error
    if kind is ChannelBinding.NONE or not value:
        raise InputError(OPTION, "a type and a value are wanted", _FORM)
    if _HEX.fullmatch(value):
        try:
            return Channel(kind.channel, bytes.fromhex(value))
        except NonceError as error:
            raise InputError(OPTION, error.reason, _FORM) from error
    if kind is not ChannelBinding.TLS_SERVER_END_POINT:
        raise InputError(OPTION, f"the value of {kind} is hexadecimal digits", _FORM)
    pem = read_file(Path(value), MAX_BUNDLE_SIZE)
    with about(value):
        return server_end_point(pem)
