"""JSON without surprises: one document has one meaning, whoever reads it.

RFC 8259 leaves open what repeated names, lone surrogates and numbers beyond a double mean, and
Python's reader accepts NaN and a byte order mark's kin: here all of these are errors.
"""

import json
import math
import re
from typing import Any, NoReturn

MAX_DEPTH = 32
MAX_VALUES = 0x10000  # a policy with every list full has fewer
_MAX_DIGITS = 20  # as many as 2**64 - 1 has
# Possessive, and content with a string that never ends: every character of any text is looked at once.
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")


def loads(raw: bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises:
        ValueError: not such a text; the message names the place and never quotes the text.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    if not text.strip():
        raise ValueError("the text is empty")
    if text.startswith("\ufeff"):
        raise ValueError("starts with a byte order mark")
    _demand_simple(text)
    try:
        value = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite, parse_int=_integer
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    if "\\u" in text:  # the one way to write half of a surrogate pair
        _demand_whole_characters(value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object has two members of the same name")
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError("a number is too large")
    return int(text)


def _demand_simple(text: str) -> None:
    """Refuse what would take long to read before it is read."""
    brackets = text.count("[") + text.count("{")
    if brackets + text.count(",") > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES} values")
    if brackets <= MAX_DEPTH:
        return
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub("", text)):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")


def _demand_whole_characters(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("a string holds half of a surrogate pair") from None
