"""Media types: which bodies are taken as JSON, and which answers a caller accepts.

Source: RFC 9110, sections 8.3 (Content-Type) and 12.5.1 (Accept).
"""

from email.message import Message

from starlette.exceptions import HTTPException
from starlette.requests import Request

JSON = "application/json"
EAR = "application/eat+jwt"
# What curl says of `-d`, and what those say who say nothing in particular.
_TAKEN_AS_JSON = {"application/x-www-form-urlencoded", "text/plain"}
_UTF8 = {"utf-8", "utf8", "us-ascii"}


def demand_json(content_type: str | None) -> None:
    """Accept a body that is JSON, or may be.

    Raises:
        HTTPException: 415 for a type that is certainly something else.
    """
    if content_type is None:
        return
    message = Message()
    message["content-type"] = content_type
    essence = message.get_content_type()
    is_json = essence.endswith(("/json", "+json")) or essence in _TAKEN_AS_JSON
    charset = message.get_param("charset")
    if is_json and (charset is None or str(charset).lower() in _UTF8):
        return
    raise HTTPException(415, f"The body is to be JSON in UTF-8: {JSON}", headers={"Accept": JSON})


class Offers:
    """A dependency: the media types that an answer can have, of which the caller must accept one.

    Args:
        media_types: the type of the answer, and more general ones that it is an instance of.
    """

    def __init__(self, *media_types: str) -> None:
        self._offered = media_types

    async def __call__(self, request: Request) -> None:
        """Refuse a caller who accepts none of them.

        Raises:
            HTTPException: 406.
        """
        accept = ",".join(request.headers.getlist("accept"))
        if not accept.strip() or any(_accepts(accept, offered) for offered in self._offered):
            return
        detail = f"The answer is {self._offered[0]}."
        if EAR in accept.lower():
            detail += " Signed tokens (EAR) are not offered."
        raise HTTPException(406, detail)


def _accepts(accept: str, offered: str) -> bool:
    """Does the most specific range that matches have a weight above zero?"""
    family = offered.partition("/")[0]
    ranges = {offered: 3, f"{family}/*": 2, "*/*": 1}
    best, weight = 0, 0.0
    for part in accept.lower().split(","):
        media_range, *parameters = (piece.strip() for piece in part.split(";"))
        rank = ranges.get(media_range, 0)
        if rank > best:
            best, weight = rank, _weight(parameters)
    return weight > 0


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
