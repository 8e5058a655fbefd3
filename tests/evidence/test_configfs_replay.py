"""The table of what a real kernel did, replayed on the emulation and on a kernel where there is one."""

import pytest

from tests.evidence.replay.bench import Bench, NotAvailableError
from tests.evidence.replay.section import Section
from tests.evidence.replay.table import SECTIONS
from tests.evidence.rig import emulated

SURVIVABLE = [section for section in SECTIONS if not section.destructive]


@pytest.mark.parametrize("section", SURVIVABLE, ids=lambda section: section.name)
def test_answers_as_recorded(bench: Bench, section: Section) -> None:
    try:
        for action, expected, shown in section.compare(bench):
            assert shown == expected, action
    except NotAvailableError as lack:
        pytest.skip(str(lack))


def test_what_a_kernel_does_not_survive() -> None:
    """On an emulation of its own: an entry used twice, the second time without certificates."""
    (section,) = [section for section in SECTIONS if section.destructive]
    for bench in emulated():
        for action, expected, shown in section.compare(bench):
            assert shown == expected, action
