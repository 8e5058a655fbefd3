"""A bounded memory for results that are dear to compute."""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class MemoInfo:
    """How often a memory helped, and how full it is."""

    hits: int
    misses: int
    size: int


class Memo(Generic[Key, Value]):
    """A map of at most `limit` entries that forgets the least recently used; safe between threads.

    Two threads that miss at once both compute: the results are equal, and no lock is held meanwhile.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: OrderedDict[Key, Value] = OrderedDict()
        self._lock = Lock()
        self._hits = self._misses = 0

    def get(self, key: Key) -> Value | None:
        """The remembered value, or None."""
        with self._lock:
            value = self._entries.get(key)
            if value is None:
                self._misses += 1
            else:
                self._hits += 1
                self._entries.move_to_end(key)
            return value

    def put(self, key: Key, value: Value) -> None:
        """Remember a value, and forget another one where there is no room."""
        with self._lock:
            self._entries[key] = value
            self._entries.move_to_end(key)
            if len(self._entries) > self._limit:
                self._entries.popitem(last=False)

    def clear(self) -> None:
        """Forget everything, the counts included."""
        with self._lock:
            self._entries.clear()
            self._hits = self._misses = 0

    def info(self) -> MemoInfo:
        """Hits, misses and size, taken at one moment."""
        with self._lock:
            return MemoInfo(self._hits, self._misses, len(self._entries))
