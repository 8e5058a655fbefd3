import pytest

from app.errors import WireError
from app.wire.tcb import TcbLayout, TcbVersion

MILAN = TcbVersion(bootloader=4, tee=1, snp=0x18, microcode=0xDB)
TURIN = TcbVersion(fmc=1, bootloader=2, tee=3, snp=4, microcode=0x47)
HIGHEST = TcbVersion(bootloader=255, tee=255, snp=255, microcode=255)


@pytest.mark.parametrize(
    ("tcb", "layout", "raw"),
    [
        (MILAN, TcbLayout.PRE_TURIN, "04010000000018db"),
        (HIGHEST, TcbLayout.PRE_TURIN, "ffff00000000ffff"),
        (TURIN, TcbLayout.TURIN, "0102030400000047"),
    ],
)
def test_byte_positions(tcb: TcbVersion, layout: TcbLayout, raw: str) -> None:
    assert TcbVersion.parse(bytes.fromhex(raw), layout) == tcb
    assert tcb.encode(layout).hex() == raw


@pytest.mark.parametrize(
    ("layout", "reserved"), [(TcbLayout.PRE_TURIN, {2, 3, 4, 5}), (TcbLayout.TURIN, {4, 5, 6})]
)
def test_reserved_bytes(layout: TcbLayout, reserved: set[int]) -> None:
    for offset in range(8):
        raw = bytes(offset) + b"\1" + bytes(7 - offset)
        if offset not in reserved:
            assert sum(TcbVersion.parse(raw, layout).components().values()) == 1
            continue
        with pytest.raises(WireError, match="reserved byte is not zero") as caught:
            TcbVersion.parse(raw, layout)
        assert (caught.value.structure, caught.value.offset) == ("TCB_VERSION", offset)


@pytest.mark.parametrize("size", [0, 7, 9, 64])
def test_exactly_eight_bytes(size: int) -> None:
    with pytest.raises(WireError, match=f"^TCB_VERSION at 0x0: {size} bytes, want 8$"):
        TcbVersion.parse(bytes(size), TcbLayout.TURIN)


@pytest.mark.parametrize(("tcb", "layout"), [(MILAN, TcbLayout.TURIN), (TURIN, TcbLayout.PRE_TURIN)])
def test_fmc_belongs_to_turin(tcb: TcbVersion, layout: TcbLayout) -> None:
    with pytest.raises(WireError, match=r"^TCB_VERSION at 0x0: fmc is present exactly in the Turin layout$"):
        tcb.encode(layout)


@pytest.mark.parametrize("value", [-1, 256])
def test_a_component_is_one_byte(value: int) -> None:
    with pytest.raises(WireError, match=f"^TCB_VERSION at 0x0: snp {value} does not fit one byte$"):
        TcbVersion(bootloader=0, tee=0, snp=value, microcode=0).encode(TcbLayout.PRE_TURIN)


def test_components_are_named_fmc_first() -> None:
    assert list(MILAN.components().items()) == [
        ("bootloader", 4),
        ("tee", 1),
        ("snp", 0x18),
        ("microcode", 0xDB),
    ]
    assert next(iter(TURIN.components().items())) == ("fmc", 1)
    assert str(TURIN) == "fmc=1 bootloader=2 tee=3 snp=4 microcode=71"


@pytest.mark.parametrize("name", ["bootloader", "tee", "snp", "microcode"])
def test_every_component_counts_on_its_own(name: str) -> None:
    # Compared as one number, a higher microcode would hide a lower boot loader.
    low = TcbVersion(**{**MILAN.components(), name: MILAN.components()[name] - 1})
    high = TcbVersion(**{part: min(value + 1, 255) for part, value in MILAN.components().items()})
    mixed = TcbVersion(**{**high.components(), name: low.components()[name]})
    assert MILAN.covers(MILAN)
    assert MILAN.covers(low)
    assert high.covers(MILAN)
    assert not low.covers(MILAN)
    assert not mixed.covers(MILAN)


def test_a_missing_fmc_counts_as_zero() -> None:
    without = TcbVersion(bootloader=2, tee=3, snp=4, microcode=0x47)
    assert TURIN.covers(without)
    assert not without.covers(TURIN)
    assert without.covers(TcbVersion(fmc=0, bootloader=2, tee=3, snp=4, microcode=0x47))
