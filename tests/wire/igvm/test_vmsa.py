import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sevsnpmeasure.vmsa import SevEsSaveArea

from app.errors import WireError
from app.wire.igvm.vmsa import Vmsa

U64 = st.integers(0, 2**64 - 1)
NAMES = [field.name for field in dataclasses.fields(Vmsa)]


@given(st.fixed_dictionaries({name: st.integers(0, 3) if name == "vmpl" else U64 for name in NAMES}))
def test_fields_stand_where_another_layout_has_them(values: dict[str, int]) -> None:
    area = SevEsSaveArea(**values)
    assert dataclasses.asdict(Vmsa.parse(bytes(area))) == values


def test_features_by_name() -> None:
    page = bytes(SevEsSaveArea(sev_features=1 | 1 << 3 | 1 << 15 | 1 << 63))
    assert Vmsa.parse(page).features == ("SNPActive", "RestrictedInjection", "SmtProtection", "bit 63")
    assert Vmsa.parse(bytes(4096)).features == ()


@pytest.mark.parametrize("size", [0, 4095, 4097])
def test_a_vmsa_is_one_page(size: int) -> None:
    with pytest.raises(WireError, match=f"{size} bytes, want 4096"):
        Vmsa.parse(bytes(size))
