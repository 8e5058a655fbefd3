import time
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.appraisal.findings import Outcome
from app.appraisal.guest_checks import check_measurement
from app.appraisal.nearest_measurement import in_force, nearest
from app.appraisal.policy import MAX_LIST, ReferenceMeasurement
from tests.appraisal.subjects import policy, subject

DAY = date(2026, 11, 23)
DIGEST = bytes.fromhex(
    "dcbbc1c8169733648e32d054144060bdafaf3dfbd11737469a26daaf43635aa4b378e45a752d520eb71e2c84d746ca20"
)


def reference(value: str, name: str = "svsm", **more: Any) -> ReferenceMeasurement:
    return ReferenceMeasurement.model_validate({"value": value, "name": name, **more}, strict=False)


def digits(changed: dict[int, str]) -> str:
    text = list(DIGEST.hex())
    for place, digit in changed.items():
        assert text[place] != digit
        text[place] = digit
    return "".join(text)


def wrong(count: int) -> str:
    """Every eleventh digit replaced, `count` of them."""
    places = [11 * number % 96 for number in range(1, count + 1)]
    return digits({place: "0" if DIGEST.hex()[place] != "0" else "f" for place in places})


@pytest.mark.parametrize(
    ("value", "mistake"),
    [
        (DIGEST[::-1].hex(), "the same bytes in reverse order"),
        (wrong(1), "all but 1 digit the same"),
        (wrong(2), "all but 2 digits the same, which looks like a typing mistake"),
        (wrong(8), "all but 8 digits the same"),
        (DIGEST.hex()[:64].ljust(96, "0"), "the first 64 digits the same, as if it had been cut"),
        (DIGEST.hex()[:24].ljust(96, "0"), "the first 24 digits the same"),
        (DIGEST.hex()[:40] + DIGEST.hex()[41:] + "0", "the first 40 digits the same"),  # one was left out
        (DIGEST.hex()[64:].rjust(96, "0"), "the last 32 digits the same"),
    ],
)
def test_mistakes_in_writing(value: str, mistake: str) -> None:
    found = nearest(DIGEST, [reference("ab" * 48, "other"), reference(value)])
    assert found is not None
    assert (found[0].name, mistake in found[1]) == ("svsm", True), found[1]


@pytest.mark.parametrize(
    "value",
    [wrong(9), DIGEST.hex()[:23].ljust(96, "f"), DIGEST.hex()[73:].rjust(96, "f"), "00" * 48, "ff" * 48],
)
def test_what_is_not_near(value: str) -> None:
    assert nearest(DIGEST, [reference(value)]) is None


def test_a_likelier_mistake_wins_and_the_first_of_two_alike() -> None:
    known = [
        reference(DIGEST.hex()[:64].ljust(96, "0"), "cut"),
        reference(wrong(3), "three"),
        reference(wrong(2), "two"),
        reference(digits({5: "f", 6: "0"}), "another two"),
    ]
    for order, expected in ((known, "two"), (known[::-1], "another two"), (known[:1], "cut")):
        found = nearest(DIGEST, order)
        assert found is not None
        assert found[0].name == expected


@given(st.binary(min_size=48, max_size=48), st.binary(min_size=48, max_size=48))
def test_unrelated_digests_are_not_near(one: bytes, other: bytes) -> None:
    found = nearest(one, [reference(other.hex())])
    differing = sum(a != b for a, b in zip(one.hex(), other.hex(), strict=True))
    ends = one.hex()[:24] == other.hex()[:24] or one.hex()[-24:] == other.hex()[-24:]
    assert (found is not None) == (one == other[::-1] or differing <= 8 or ends)


def test_the_most_references_cost_little() -> None:
    known = [reference(number.to_bytes(48, "big").hex(), str(number)) for number in range(MAX_LIST)]
    started = time.thread_time()
    assert nearest(DIGEST, known) is None
    assert time.thread_time() - started < 0.2
    assert in_force(known, DAY) == "0, 1, 2 and 4093 more"


def test_what_is_in_force() -> None:
    assert in_force([], DAY) is None
    known = [
        reference("01" * 48, "denied", state="denied"),
        reference("02" * 48, "old", state="deprecated"),
        reference("03" * 48, "ended", not_after="2026-11-22"),
        reference("04" * 48, "today", not_after="2026-11-23"),
        reference("05" * 48, "open"),
    ]
    assert in_force(known, DAY) == "today, open"
    assert in_force(known[:3], DAY) is None
    assert in_force([known[4]] * 3, DAY) == "open, open, open"


def finding_for(*measurements: dict[str, Any]) -> Any:
    wished = policy(reference_values={"measurements": list(measurements)})
    return check_measurement(subject(policy=wished, measurement=DIGEST))


def test_a_verdict_names_the_nearest_reference_value() -> None:
    finding = finding_for(
        {"value": "ab" * 48, "name": "older"}, {"value": wrong(2), "name": "svsm 2026.07", "state": "denied"}
    )
    assert finding.outcome is Outcome.WARNED  # a resemblance is no match: neither denied nor allowed
    assert (finding.expected, finding.actual) == (wrong(2), DIGEST.hex())
    assert "nearest is svsm 2026.07 (denied), all but 2 digits the same" in finding.why


def test_a_verdict_names_what_could_have_been() -> None:
    finding = finding_for(*({"value": f"{n:02x}" * 48, "name": f"build {n}"} for n in range(5)))
    assert finding.expected == "a known launch digest: build 0, build 1, build 2 and 2 more"
    assert "none resembles it" in finding.why
    assert finding_for().expected == "a known launch digest"
    assert "the policy has none" in finding_for().why
    ended = {"value": "ab" * 48, "name": "ended", "not_after": "2020-01-01"}
    assert finding_for(ended).expected == "a known launch digest"
