import re

from hypothesis import given
from hypothesis import strategies as st

from app.telemetry.request_id import PATTERN, request_id


@given(st.none() | st.text() | st.from_regex(PATTERN, fullmatch=True))
def test_the_answer_is_always_harmless(offered: str | None) -> None:
    answer = request_id(offered)
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", answer, re.ASCII)
    if offered is not None and re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", offered, re.ASCII):
        assert answer == offered


def test_a_new_one_each_time() -> None:
    assert len({request_id(None) for _ in range(100)}) == 100
    assert request_id("a\n") != "a\n"
