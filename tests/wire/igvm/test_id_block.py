from pathlib import Path

import pytest

from app.errors import WireError
from app.wire.igvm.file import IgvmFile
from app.wire.igvm.id_block import CURVE_P384, ECDSA_P384_SHA384, SnpIdBlock
from app.wire.igvm.snp import SnpLaunch
from tests.wire.igvm.files import igvm, piece, platform, policy
from tests.wire.igvm.id_blocks import Owner

DIGEST = bytes(range(48))
START = 24 + 24 + 8  # of the block, after one platform


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Owner:
    return Owner.made_in(tmp_path_factory.mktemp("owner"))


def block_of(*pieces: object) -> SnpIdBlock:
    found = SnpLaunch.of(IgvmFile.parse(igvm(platform(), policy(), *pieces))).id_block  # type: ignore[arg-type]
    assert found is not None
    return found


def test_a_block_and_the_digests_of_its_keys(owner: Owner) -> None:
    found = block_of(owner.sign(DIGEST))
    assert found.launch_digest == DIGEST
    assert (found.family_id, found.image_id) == (bytes(16), bytes(16))
    assert (found.version, found.guest_svn, found.author_key_enabled) == (1, 0, True)
    assert found.id_key_algorithm == found.author_key_algorithm == ECDSA_P384_SHA384
    assert found.id_key.curve == found.author_key.curve == CURVE_P384
    assert (found.id_key.digest, found.author_key.digest) == owner.digests()
    assert len(found.id_key.encode()) == 1028
    assert found.signed_bytes(0x30000) == DIGEST + bytes(32) + b"\1" + bytes(7) + b"\0\0\3" + bytes(5)


def test_a_block_without_an_author(owner: Owner) -> None:
    found = block_of(owner.sign(DIGEST, author=False))
    assert not found.author_key_enabled
    assert found.author_key.curve == 0


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (4, 2, "author key flag 2"),
        (5, 1, "must be zero"),
        (248 + 4, 1, "reserved byte of ID key"),
        (551, 1, "author key"),
    ],
)
def test_refusals(offset: int, value: int, reason: str) -> None:
    block = bytearray(696)
    block[offset] = value
    with pytest.raises(WireError, match=reason) as caught:
        IgvmFile.parse(igvm(platform(), piece(0x30B, bytes(block))))
    assert caught.value.offset == START + offset


def test_blocks_for_other_platforms_do_not_count(tmp_path: Path) -> None:
    other = Owner.made_in(tmp_path).sign(DIGEST, mask=2)
    assert SnpLaunch.of(IgvmFile.parse(igvm(platform(), other))).id_block is None
