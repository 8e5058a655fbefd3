"""Which known launch digest is an unknown one nearest to, if any?

Two digests of different memory have nothing in common, however alike the memory was, so there is
no nearness but that of mistakes in writing. The rule, applied to every reference value:

1. The same bytes in reverse order: somebody changed the byte order.
2. At least 88 of 96 hexadecimal digits in place: a typing mistake.
3. The first or the last 24 digits alike: a value that was cut, padded or shifted.

Unrelated digests meet none of them: the likeliest is the third, at 2^-95, which is also what an
attacker would have to find to have a digest look like a slip of the pen. Where none is met, the
reference values in force are what could have been meant, and nothing makes one of them likelier.
"""

from collections.abc import Iterable
from datetime import date

from app.appraisal.policy import ReferenceMeasurement

_MAX_WRONG = 8
_LEAST_ALIKE = 24
_LISTED = 3
_ALL_DIGITS = int.from_bytes(b"\x11" * 48, "big")  # the lowest bit of each digit


def nearest(digest: bytes, known: Iterable[ReferenceMeasurement]) -> tuple[ReferenceMeasurement, str] | None:
    """The reference value that looks like a mistake in writing, and what the mistake may be.

    Costs a few operations on 384 bits for each value. Of several the first of the best kind is told.
    """
    best: tuple[int, ReferenceMeasurement, str] | None = None
    for one in known:
        found = _mistake(digest, one.value)
        if found is not None and (best is None or found[0] < best[0]):
            best = (found[0], one, found[1])
    return best and best[1:]


def in_force(known: Iterable[ReferenceMeasurement], day: date) -> str | None:
    """The names of the approved reference values, at most three of them; None without any."""
    names = [
        one.name
        for one in known
        if one.state == "allowed" and (one.not_after is None or day <= one.not_after)
    ]
    if not names:
        return None
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _mistake(digest: bytes, value: bytes) -> tuple[int, str] | None:
    """Rank and name of the mistake that makes `value` out of `digest`."""
    if value == digest[::-1]:
        return 0, "the same bytes in reverse order"
    differing = int.from_bytes(digest, "big") ^ int.from_bytes(value, "big")
    wrong = ((differing | differing >> 1 | differing >> 2 | differing >> 3) & _ALL_DIGITS).bit_count()
    if wrong <= _MAX_WRONG:
        digits = "digit" if wrong == 1 else "digits"
        return wrong, f"all but {wrong} {digits} the same, which looks like a typing mistake"
    first = (8 * len(digest) - differing.bit_length()) // 4
    last = ((differing & -differing).bit_length() - 1) // 4
    if max(first, last) >= _LEAST_ALIKE:
        place, count = ("first", first) if first >= last else ("last", last)
        return 4 * len(digest), f"the {place} {count} digits the same, as if it had been cut or padded"
    return None
