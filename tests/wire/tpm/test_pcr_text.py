import pytest

from app.wire.tpm.pcr import PcrSelection


@pytest.mark.parametrize(
    ("banks", "text"),
    [
        ({"sha256": range(24)}, "sha256:0-23"),
        ({"sha256": [7]}, "sha256:7"),
        ({"sha256": [0, 1, 2, 3, 7, 11, 12]}, "sha256:0-3,7,11-12"),
        ({"sha384": [0, 2], "sha256": [1]}, "sha384:0,2+sha256:1"),
    ],
)
def test_a_selection_is_shown_in_short(banks: dict[str, list[int]], text: str) -> None:
    assert str(PcrSelection.of(banks)) == text
