"""The whole table."""

from tests.evidence.replay import attributes, core, files
from tests.evidence.replay.section import Section

SECTIONS = tuple(
    found
    for module in (attributes, core, files)
    for found in vars(module).values()
    if isinstance(found, Section)
)
