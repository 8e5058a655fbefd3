from concurrent.futures import ThreadPoolExecutor

from app.trust.memo import Memo, MemoInfo


def test_the_least_recently_used_entry_makes_room() -> None:
    memo: Memo[str, int] = Memo(2)
    memo.put("a", 1)
    memo.put("b", 2)
    assert memo.get("a") == 1
    memo.put("c", 3)
    assert [memo.get(key) for key in "abc"] == [1, None, 3]
    assert memo.info() == MemoInfo(hits=3, misses=1, size=2)
    memo.put("a", 4)
    memo.put("d", 5)
    assert (memo.get("a"), memo.get("c")) == (4, None)
    memo.clear()
    assert memo.info() == MemoInfo(hits=0, misses=0, size=0)


def test_it_stays_bounded_between_threads() -> None:
    memo: Memo[int, int] = Memo(10)

    def use(number: int) -> bool:
        memo.put(number % 50, number)
        return memo.get(number % 50) is None or memo.info().size <= 10

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(2000)))
    assert memo.info().size == 10
