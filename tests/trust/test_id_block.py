from dataclasses import replace

import pytest

from app.trust.id_block import id_block_problems
from app.wire.igvm.file import IgvmFile
from app.wire.igvm.id_block import EcdsaKey, EcdsaSignature, SnpIdBlock
from app.wire.igvm.snp import SnpLaunch
from tests.wire.igvm.files import igvm, platform
from tests.wire.igvm.id_blocks import Owner

POLICY = 0x30000
NO_KEY, NO_SIGNATURE = EcdsaKey(2, 0, 0), EcdsaSignature(0, 0)


@pytest.fixture(scope="module")
def block(tmp_path_factory: pytest.TempPathFactory) -> SnpIdBlock:
    """Signed by sev-snp-measure's tool."""
    owner = Owner.made_in(tmp_path_factory.mktemp("owner"))
    found = SnpLaunch.of(IgvmFile.parse(igvm(platform(), owner.sign(bytes(range(48)))))).id_block
    assert found is not None
    return found


def test_a_block_that_its_owner_and_author_signed(block: SnpIdBlock) -> None:
    assert id_block_problems(block, POLICY) == ()


def test_an_author_counts_only_where_the_block_says_so(block: SnpIdBlock) -> None:
    without = replace(block, author_key_enabled=False, author_key=NO_KEY, author_key_signature=NO_SIGNATURE)
    assert id_block_problems(without, POLICY) == ()
    assert id_block_problems(replace(without, author_key_enabled=True), POLICY) == (
        "the author key did not sign the ID key",
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"launch_digest": bytes(48)},
        {"family_id": b"\1" * 16},
        {"image_id": b"\1" * 16},
        {"version": 2},
        {"guest_svn": 1},
        {"id_key_signature": NO_SIGNATURE},
        {"id_key_signature": EcdsaSignature(2**576 - 1, 1)},
    ],
)
def test_every_field_is_signed(block: SnpIdBlock, changes: dict[str, object]) -> None:
    (problem,) = id_block_problems(replace(block, **changes), POLICY)  # type: ignore[arg-type]
    assert "the ID key did not sign this block under guest policy 0x30000" in problem


def test_the_guest_policy_is_signed_too(block: SnpIdBlock) -> None:
    assert id_block_problems(block, POLICY | 1 << 19) == (
        "the ID key did not sign this block under guest policy 0xb0000",
    )


@pytest.mark.parametrize("key", [NO_KEY, EcdsaKey(2, 1, 1), EcdsaKey(2, 2**576 - 1, 2**576 - 1)])
def test_points_off_the_curve_sign_nothing(block: SnpIdBlock, key: EcdsaKey) -> None:
    problems = id_block_problems(replace(block, id_key=key), POLICY)
    assert problems == (
        "the ID key did not sign this block under guest policy 0x30000",
        "the author key did not sign the ID key",
    )


def test_other_algorithms_and_curves(block: SnpIdBlock) -> None:
    other = replace(block, id_key_algorithm=2, author_key_algorithm=0)
    assert id_block_problems(other, POLICY) == (
        "the ID key is not one for ECDSA on P-384",
        "the author key is not one for ECDSA on P-384",
    )
    key = replace(block.id_key, curve=1)
    assert "the ID key is not one for" in id_block_problems(replace(block, id_key=key), POLICY)[0]
    author = replace(block, author_key=replace(block.author_key, curve=0))
    assert id_block_problems(author, POLICY) == ("the author key is not one for ECDSA on P-384",)
