"""Request ids: the caller's own where it is harmless, a fresh one otherwise."""

import re
from uuid import uuid4

HEADER = "X-Request-Id"
PATTERN = r"^[A-Za-z0-9_.-]{1,128}$"
_ACCEPTED = re.compile(PATTERN)


def request_id(offered: str | None) -> str:
    """`offered`, if it has 1 to 128 letters, digits, dots, hyphens and underscores; else a random one."""
    if offered is not None and _ACCEPTED.fullmatch(offered):
        return offered
    return uuid4().hex
