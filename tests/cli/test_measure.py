"""`measure`: launch digests, for people, for policies and for programs; and IGVM files in `inspect`."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.appraisal.policy_document import parse_policy
from app.wire.igvm.file import MAX_SIZE
from tests.cli.command_line import Cli
from tests.wire.igvm import files
from tests.wire.igvm.files import PAGE, area, context, igvm, insert, page, platform, policy, vmsa
from tests.wire.igvm.id_blocks import Owner
from tests.wire.test_launch_digest import KNOWN, peer_digest

STATE = context(vmsa(x158=0x31, x178=0x808000, x3B0=0x9))
SOUND = (platform(), policy(), page(0x10000, files.A_PAGE), page(0x11000), STATE)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return written(tmp_path / "small.igvm", *files.small())


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return written(tmp_path / "coconut-qemu.igvm", *SOUND)


def written(path: Path, *pieces: files.Piece, version: int = 1) -> Path:
    path.write_bytes(igvm(*pieces, version=version))
    return path


def digest(*, native_zero: bool) -> str:
    return peer_digest(SOUND, native_zero=native_zero)


def test_the_known_digest(cli: Cli, small: Path) -> None:
    ended = cli("measure", small)
    assert (ended.status, ended.err) == (0, "")
    assert KNOWN in ended.out
    assert cli("measure", "-", "--bare", stdin=small.read_bytes()).out == f"{KNOWN}  standard input\n"


def test_both_digests_are_shown_where_they_differ(cli: Cli, sound: Path, small: Path) -> None:
    text = cli("measure", sound).out
    assert f"{digest(native_zero=False)}  pages without data as pages of zeros: QEMU" in text
    assert f"{digest(native_zero=True)}  pages without data as native zero pages: Vanadium" in text
    assert "Vanadium" not in cli("measure", small).out


def test_what_is_chosen_is_printed(cli: Cli, sound: Path, small: Path) -> None:
    assert cli("measure", sound, small, "--bare").out.splitlines() == [
        f"{digest(native_zero=False)}  {sound}",
        f"{KNOWN}  {small}",
    ]
    assert cli("measure", sound, "--bare", "--native-zero").out.startswith(digest(native_zero=True))


def test_one_json_document(cli: Cli, sound: Path, small: Path) -> None:
    document = cli("measure", sound, small, "--json", "--check-kvm").json
    assert document["native_zero"] is False
    first, second = document["files"]
    assert first["file"] == str(sound)
    assert first["measurement"] == first["launch_digest"]["normal_zero"] == digest(native_zero=False)
    assert first["launch_digest"]["native_zero"] == digest(native_zero=True)
    assert first["pages"] == {"normal": 2, "vmsa": 1}
    assert first["guest_policy"]["raw"] == "0x30000"
    assert first["guest_policy"]["debug"] is False
    (state,) = first["vmsas"]
    assert (state["vmpl"], state["rip"], state["gpa"]) == (0, "0x808000", "0xfffffffff000")
    assert state["features"] == ["SNPActive", "RestrictedInjection"]
    assert (first["id_block"], first["id_block_problems"], first["kvm_faults"]) == (None, [], [])
    (fault,) = second["kvm_faults"]
    assert "CR0 of the VMSA is 0x0" in fault["reason"]
    native = cli("measure", sound, "--json", "--native-zero").json
    assert native["files"][0]["measurement"] == digest(native_zero=True)
    assert native["files"][0]["kvm_faults"] is None


def test_kvm_is_asked_for(cli: Cli, sound: Path, tmp_path: Path) -> None:
    checked = cli("measure", sound, "--check-kvm")
    assert checked.status == 0
    assert "QEMU and KVM reach this digest." in checked.out
    other = written(tmp_path / "other.igvm", platform(), area(), page(0), insert(PAGE), STATE)
    assert cli("measure", other).status == 0
    refused = cli("measure", other, sound, "--check-kvm")
    assert refused.status == 1
    assert f"problem: {other}: KVM at 0x" in refused.err
    assert "a parameter area after pages" in refused.err
    assert refused.out.count("QEMU and KVM reach") == 1


def test_reference_values_for_a_policy(cli: Cli, sound: Path, small: Path) -> None:
    text = cli("measure", sound, small, "--policy").out
    first, second = parse_policy(f"version: 1\nid: test\n{text}".encode()).reference_values.measurements
    assert (first.name, first.value.hex()) == ("coconut-qemu", digest(native_zero=False))
    assert (second.name, second.value.hex()) == ("small", KNOWN)
    native = cli("measure", sound, "--policy", "--native-zero").out
    (only,) = parse_policy(f"version: 1\nid: test\n{native}".encode()).reference_values.measurements
    assert only.value.hex() == digest(native_zero=True)


@pytest.mark.parametrize(
    "name", ["a b", "ü", 'q"uote', "#hash: x", "new\nline", b"\xff".decode("utf-8", "surrogateescape")]
)
def test_any_file_name_makes_a_policy(cli: Cli, tmp_path: Path, name: str) -> None:
    path = written(tmp_path / f"{name}.igvm", *SOUND)
    text = cli("measure", path, "--policy").out
    (only,) = parse_policy(f"version: 1\nid: test\n{text}".encode()).reference_values.measurements
    assert only.name == name.encode(errors="replace").decode()


class TestIdBlock:
    """Of the file itself."""

    @pytest.fixture
    def owner(self, tmp_path: Path) -> Owner:
        return Owner.made_in(tmp_path)

    def measured(self, cli: Cli, path: Path, *options: str) -> Any:
        return cli("measure", path, "--json", *options).json["files"][0]

    def test_that_fits(self, cli: Cli, owner: Owner, tmp_path: Path) -> None:
        path = written(tmp_path / "signed.igvm", *files.small(), owner.sign(bytes.fromhex(KNOWN)))
        ended = cli("measure", path)
        assert (ended.status, ended.err) == (0, "")
        found = self.measured(cli, path)
        id_key, author_key = owner.digests()
        assert found["id_block"]["id_key_digest"] == id_key.hex()
        assert found["id_block"]["author_key_digest"] == author_key.hex()
        assert found["id_block"]["launch_digest"] == KNOWN
        assert id_key.hex() in ended.out
        text = cli("measure", path, "--policy").out
        assert f'#     - "{id_key.hex()}"' in text
        live = "\n".join(line.removeprefix("# ") for line in text.splitlines()[2:])
        read = parse_policy(f"version: 1\nid: test\n{live.replace('#   ', '  ')}".encode())
        assert read.policy.trusted_id_key_hashes == (id_key,)

    def test_without_an_author(self, cli: Cli, owner: Owner, tmp_path: Path) -> None:
        block = owner.sign(bytes.fromhex(KNOWN), author=False)
        path = written(tmp_path / "signed.igvm", *files.small(), block)
        assert self.measured(cli, path)["id_block"]["author_key_digest"] is None
        assert "AUTHOR_KEY_DIGEST  none" in cli("measure", path).out

    def test_of_another_digest(self, cli: Cli, owner: Owner, tmp_path: Path) -> None:
        path = written(tmp_path / "signed.igvm", *files.small(), owner.sign(bytes(48)))
        ended = cli("measure", path)
        assert ended.status == 1
        assert "problem:" in ended.err
        assert "ID block: the ID block is for another launch digest\n" in ended.err
        assert "trusted_id_key_hashes" not in cli("measure", path, "--policy").out

    def test_of_the_other_way_to_load_zeros(self, cli: Cli, owner: Owner, tmp_path: Path) -> None:
        signed = owner.sign(bytes.fromhex(digest(native_zero=True)))
        path = written(tmp_path / "signed.igvm", *SOUND, signed)
        assert cli("measure", path, "--native-zero").status == 0
        assert "(it is the digest with pages without data as native zero pages" in cli("measure", path).err

    def test_that_nobody_signed(self, cli: Cli, owner: Owner, tmp_path: Path) -> None:
        pieces = [one for one in files.small() if one.number != 0x101]  # signed for another policy
        path = written(tmp_path / "signed.igvm", *pieces, owner.sign(bytes.fromhex(KNOWN)))
        (problem,) = self.measured(cli, path)["id_block_problems"]
        assert problem == "the ID key did not sign this block under guest policy 0x0"


def test_a_guest_policy_with_reserved_bits_is_shown(cli: Cli, tmp_path: Path) -> None:
    path = written(tmp_path / "odd.igvm", platform(), policy(1 << 63))
    assert cli("measure", path).status == 0
    assert "0x8000000000000000  reserved bit 17 must be one" in cli("measure", path).out
    (found,) = cli("measure", path, "--json").json["files"]
    assert found["guest_policy"]["fault"].startswith("reserved bit 17")


@pytest.mark.parametrize(
    ("raw", "structure", "offset"),
    [
        (b"", "IGVM", 0),
        (b"\x7fELF" + bytes(100), "IGVM", 0),
        (igvm(*files.small())[:-1], "IGVM", 16),
        (igvm(platform(kind=files.TDX)), "IGVM", 24),
        (igvm(platform(), page(0, flags=files.SHARED)), "IGVM", 48),
    ],
)
def test_what_has_no_digest(cli: Cli, tmp_path: Path, raw: bytes, structure: str, offset: int) -> None:
    path = tmp_path / "file.igvm"
    path.write_bytes(raw)
    ended = cli("measure", path, "--json")
    assert ended.status == 2
    assert (ended.json["structure"], ended.json["byte_offset"]) == (structure, offset)
    assert ended.json["file"] == str(path)
    assert json.dumps(ended.json["reason"])


def test_one_bad_file_ends_it_all(cli: Cli, small: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.igvm"
    bad.write_bytes(b"IGVM")
    ended = cli("measure", small, bad)
    assert (ended.status, ended.out) == (2, "")


def test_usage(cli: Cli, small: Path, tmp_path: Path) -> None:
    assert cli("measure").status == 2
    for pair in (("--json", "--bare"), ("--json", "--policy"), ("--bare", "--policy")):
        assert cli("measure", small, *pair).status == 2
    assert cli("measure", tmp_path / "missing.igvm").status == 2
    huge = tmp_path / "huge.igvm"
    with huge.open("wb") as file:
        file.truncate(MAX_SIZE + 1)
    assert f"more than {MAX_SIZE} bytes" in cli("measure", huge).err


def test_inspect_knows_igvm_files(cli: Cli, sound: Path, tmp_path: Path) -> None:
    found = cli("inspect", sound, "--json").json
    assert (found["kind"], found["format_version"], found["headers"]) == ("igvm", 1, len(SOUND))
    assert found["snp"]["launch_digest"]["normal_zero"] == digest(native_zero=False)
    assert found["platforms"] == [{"type": "SEV_SNP", "mask": 1}]
    boundary = written(
        tmp_path / "tdx.igvm",
        platform(kind=files.TDX, boundary=1 << 46),
        files.version_string(b"v7"),
        version=2,
    )
    text = cli("inspect", boundary).out
    assert "IGVM file, format version 2, v7: 2 headers" in text
    assert "No launch digest of SEV-SNP: the file is not for SEV_SNP, but for TDX." in text
    assert "memory from 0x400000000000 on is shared" in text
    assert cli("inspect", boundary, "--json").json["snp"] is None
    broken = tmp_path / "broken.igvm"
    broken.write_bytes(sound.read_bytes()[:-1])
    assert cli("inspect", broken, "--json").json["structure"] == "IGVM"


def test_inspect_reads_large_files_only_of_this_kind(cli: Cli, tmp_path: Path) -> None:
    data = [
        page(number * files.LARGE_PAGE, bytes([number]) * files.LARGE_PAGE, flags=1) for number in range(3)
    ]
    large = written(tmp_path / "large.igvm", platform(), *data)
    assert cli("inspect", large, "--json").json["size"] > 6 << 20
    other = tmp_path / "other"
    other.write_bytes(b"\0" * (6 << 20))
    assert "more than" in cli("inspect", other).err
