"""A reader of outside bytes, and what must hold once it has accepted some.

A target is fed by hypothesis (tests/properties) and by atheris (fuzz_wire.py). It may refuse bytes
with its typed error, which must name a place inside them; anything else that escapes is a bug.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from app.errors import WireError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Target(Generic[T]):
    """A reader, what it may refuse with, and what holds for what it accepts."""

    read: Callable[[bytes], T]
    refusals: tuple[type[Exception], ...]
    check: Callable[[bytes, T], None]

    def feed(self, raw: bytes) -> bool:
        """Read and check; True if the bytes were accepted.

        Raises:
            AssertionError: something does not hold, or a refusal points outside the bytes.
            Exception: an error of another type than `refusals`.
        """
        try:
            value = self.read(raw)
        except self.refusals as error:
            check_refusal(raw, error)
            return False
        self.check(raw, value)
        return True


def check_refusal(raw: bytes, error: Exception) -> None:
    assert str(error)
    if isinstance(error, WireError):
        assert error.structure
        assert error.reason
        assert 0 <= error.offset <= len(raw), str(error)
