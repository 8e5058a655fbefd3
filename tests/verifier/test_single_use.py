import asyncio
import itertools

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.errors import RateLimitedError
from app.verifier.single_use import MemorySingleUseStore, SingleUseStore


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    def __init__(self, capacity: int = 3) -> None:
        self.clock = Clock()
        self.capacity = capacity
        self.memory = MemorySingleUseStore(capacity, self.clock)
        self.store: SingleUseStore = self.memory

    def put(self, key: bytes, value: bytes = b"v", lifetime_s: float = 10) -> None:
        asyncio.run(self.store.put(key, value, lifetime_s))

    def take(self, key: bytes) -> bytes | None:
        return asyncio.run(self.store.take(key))


def test_a_value_is_given_back_once() -> None:
    bench = Bench()
    bench.put(b"k", b"\0value")
    assert bench.take(b"k") == b"\0value"
    assert bench.take(b"k") is None
    assert bench.take(b"never put") is None


def test_an_empty_value_is_a_value() -> None:
    bench = Bench()
    bench.put(b"k", b"")
    assert bench.take(b"k") == b""
    assert bench.take(b"k") is None


def test_an_entry_is_gone_at_the_end_of_its_lifetime() -> None:
    bench = Bench()
    bench.put(b"late", lifetime_s=10)
    bench.put(b"in time", lifetime_s=10.5)
    bench.clock.now += 10
    assert bench.take(b"late") is None
    assert bench.take(b"in time") == b"v"


def test_an_expired_value_is_not_kept() -> None:
    bench = Bench()
    bench.put(b"k", b"secret", lifetime_s=1)
    bench.clock.now += 1
    bench.take(b"another")
    assert not bench.memory._entries
    assert not bench.memory._expiries


def test_a_full_store_refuses_and_says_when_there_is_room() -> None:
    bench = Bench()
    for lifetime_s in (30, 10, 20):
        bench.put(b"%d" % lifetime_s, lifetime_s=lifetime_s)
    bench.clock.now += 4
    with pytest.raises(RateLimitedError, match="3 entries wait") as refused:
        bench.put(b"more")
    assert refused.value.retry_after_s == 6
    bench.clock.now += refused.value.retry_after_s
    bench.put(b"more")
    assert bench.take(b"30") == bench.take(b"20") == b"v"


def test_the_time_to_wait_is_not_that_of_an_entry_which_was_taken() -> None:
    bench = Bench(2)
    bench.put(b"first", lifetime_s=1)
    bench.put(b"second", lifetime_s=50)
    bench.take(b"first")
    bench.put(b"third", lifetime_s=60)
    with pytest.raises(RateLimitedError) as refused:
        bench.put(b"fourth")
    assert refused.value.retry_after_s == 50


def test_taking_makes_room() -> None:
    bench = Bench(1)
    bench.put(b"a")
    bench.take(b"a")
    bench.put(b"b")
    assert bench.take(b"b") == b"v"


@pytest.mark.parametrize(("first", "second"), [(5, 20), (20, 5), (20, 20)])
def test_a_second_value_replaces_the_first_and_has_its_own_lifetime(first: float, second: float) -> None:
    bench = Bench(1)
    bench.put(b"k", b"old", first)
    bench.put(b"k", b"new", second)
    bench.clock.now += second - 1
    assert len(bench.memory) == 1
    assert bench.take(b"k") == b"new"
    bench.put(b"k", b"old", first)
    bench.put(b"k", b"new", second)
    bench.clock.now += second
    assert bench.take(b"k") is None


def test_of_many_takers_one_gets_the_value() -> None:
    store = MemorySingleUseStore(3)

    async def race() -> list[bytes | None]:
        await store.put(b"k", b"v", 60)
        return await asyncio.gather(*(store.take(b"k") for _ in range(50)))

    assert sorted(map(str, asyncio.run(race()))) == ["None"] * 49 + ["b'v'"]


def test_many_entries_that_are_taken_at_once_leave_nothing_behind() -> None:
    bench = Bench()

    async def churn() -> None:
        for number in range(10_000):
            key = b"%d" % number
            await bench.store.put(key, b"v", 3600)
            await bench.store.take(key)

    asyncio.run(churn())
    assert len(bench.memory._expiries) <= 2 * bench.capacity + 1


class AgainstAPlainModel(RuleBasedStateMachine):
    """The store beside a list of everything that was ever put."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(3)
        self.model: dict[bytes, tuple[float, bytes]] = {}
        self.values = itertools.count()

    def live(self) -> dict[bytes, tuple[float, bytes]]:
        return {key: entry for key, entry in self.model.items() if entry[0] > self.bench.clock.now}

    @rule(key=st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), lifetime_s=st.integers(1, 9))
    def put(self, key: bytes, lifetime_s: int) -> None:
        live, value = self.live(), b"%d" % next(self.values)
        if key in live or len(live) < 3:
            self.bench.put(key, value, lifetime_s)
            self.model[key] = (self.bench.clock.now + lifetime_s, value)
            return
        with pytest.raises(RateLimitedError) as refused:
            self.bench.put(key, value, lifetime_s)
        first = min(expiry for expiry, _ in live.values())
        assert refused.value.retry_after_s == first - self.bench.clock.now

    @rule(key=st.sampled_from([b"a", b"b", b"c", b"d", b"e"]))
    def take(self, key: bytes) -> None:
        expected = self.live().get(key)
        self.model.pop(key, None)
        assert self.bench.take(key) == (expected[1] if expected else None)

    @precondition(lambda self: self.model)
    @rule(seconds=st.integers(1, 5))
    def wait(self, seconds: int) -> None:
        self.bench.clock.now += seconds

    @invariant()
    def as_many_as_in_the_model(self) -> None:
        assert len(self.bench.memory) == len(self.live())


def test_any_order_of_calls() -> None:
    run_state_machine_as_test(AgainstAPlainModel)
