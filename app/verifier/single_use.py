"""What may be used once: nonces and secrets that this verifier gave out and waits to see again.

A store is bounded, and one that is full refuses the next entry rather than forget an earlier one:
whoever floods it delays others, but cannot make their entries invalid.
"""

import heapq
import time
from collections.abc import Callable
from typing import Protocol

from app.errors import RateLimitedError


class SingleUseStore(Protocol):
    """Entries that are taken once, or expire.

    Bytes in, bytes out, so that replicas of a verifier can share a store. Keys are unguessable or
    digests; who calls `take` with a key that was never put learns nothing.
    """

    async def put(self, key: bytes, value: bytes, lifetime_s: float) -> None:
        """Keep `value` under `key` for `lifetime_s` seconds; what lay under that key is replaced.

        Raises:
            RateLimitedError: the store is full of entries that are neither taken nor expired.
        """
        ...

    async def take(self, key: bytes) -> bytes | None:
        """Remove and give back the value; None where it is unknown, expired, or taken already.

        Atomic: of any number of takers of one key, one gets the value.
        """
        ...


class MemorySingleUseStore:
    """A SingleUseStore in the memory of one process.

    Args:
        capacity: entries at most, live ones only: an expired one gives its place up.
        clock: a monotonic clock in seconds.

    For one event loop: nothing is awaited between look and removal, which is what makes `take` atomic.
    """

    def __init__(self, capacity: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = capacity
        self._clock = clock
        self._entries: dict[bytes, tuple[float, bytes]] = {}  # key -> (expiry, value)
        self._expiries: list[tuple[float, bytes]] = []  # heap of (expiry, key); may name entries that went

    def __len__(self) -> int:
        """How many entries are live."""
        self._expire()
        return len(self._entries)

    async def put(self, key: bytes, value: bytes, lifetime_s: float) -> None:
        """As SingleUseStore."""
        now = self._expire()
        if len(self._entries) >= self._capacity and key not in self._entries:
            reason = f"{self._capacity} entries wait to be used already"
            raise RateLimitedError(reason, self._expiries[0][0] - now)
        expiry = now + lifetime_s
        self._entries[key] = (expiry, value)
        heapq.heappush(self._expiries, (expiry, key))

    async def take(self, key: bytes) -> bytes | None:
        """As SingleUseStore."""
        self._expire()
        found = self._entries.pop(key, None)
        return None if found is None else found[1]

    def _expire(self) -> float:
        """Drop what expired; returns the time. Afterwards the first expiry is that of a live entry."""
        now = self._clock()
        if len(self._expiries) > 2 * self._capacity:  # many were taken long before their time
            self._expiries = [(expiry, key) for key, (expiry, _) in self._entries.items()]
            heapq.heapify(self._expiries)
        while self._expiries:
            expiry, key = self._expiries[0]
            entry = self._entries.get(key)
            live = entry is not None and entry[0] == expiry
            if live and expiry > now:
                break
            heapq.heappop(self._expiries)
            if live:
                del self._entries[key]
        return now
