import pytest

from app.wire.product import Cpuid, ProductLine
from app.wire.tcb import TcbLayout

# First and last model of each range, and the models beside them.
LINES = {
    (0x19, 0x00): ProductLine.MILAN,
    (0x19, 0x01): ProductLine.MILAN,
    (0x19, 0x0F): ProductLine.MILAN,
    (0x19, 0x10): ProductLine.GENOA,
    (0x19, 0x11): ProductLine.GENOA,
    (0x19, 0x1F): ProductLine.GENOA,
    (0x19, 0x20): None,
    (0x19, 0x9F): None,
    (0x19, 0xA0): ProductLine.GENOA,  # Bergamo, Siena
    (0x19, 0xAF): ProductLine.GENOA,
    (0x19, 0xB0): None,
    (0x1A, 0x00): ProductLine.TURIN,
    (0x1A, 0x02): ProductLine.TURIN,
    (0x1A, 0x11): ProductLine.TURIN,  # Turin Dense
    (0x1A, 0x12): None,
    (0x1A, 0x50): None,  # Venice: no chain is published
    (0x18, 0x01): None,
    (0x1B, 0x01): None,
    (0x00, 0x00): None,
}


@pytest.mark.parametrize(("part", "line"), LINES.items())
@pytest.mark.parametrize("stepping", [0, 2, 255])
def test_line_of_a_part(part: tuple[int, int], line: ProductLine | None, stepping: int) -> None:
    family, model = part
    assert Cpuid(family=family, model=model, stepping=stepping).product_line is line


def test_lines_differ_in_tcb_layout_and_chip_id() -> None:
    assert [line.value for line in ProductLine] == ["Milan", "Genoa", "Turin"]
    assert [line.tcb_layout for line in ProductLine] == [
        TcbLayout.PRE_TURIN,
        TcbLayout.PRE_TURIN,
        TcbLayout.TURIN,
    ]
    assert [line.hwid_size for line in ProductLine] == [64, 64, 8]


def test_cpuid_reads_like_the_key_of_a_floor() -> None:
    assert str(Cpuid(family=0x19, model=0xA0, stepping=2)) == "19/a0/02"
