"""`ek-ca init`: a key and a certificate that the verifier takes and OpenSSL reads; nothing is overwritten."""

import os
import subprocess
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from cryptography import x509

from app.assembly import make_ek_ca
from app.cli.roles import utc_now
from app.config import Settings
from app.trust.ek_authority import CaAlgorithm
from tests.cli.command_line import Cli


def certificate(folder: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / "ek-ca.pem").read_bytes())


@pytest.mark.parametrize("algorithm", CaAlgorithm)
@pytest.mark.parametrize("flags", [(), ("--simulated",)])
def test_what_it_says_can_be_set(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: CaAlgorithm, flags: tuple[str, ...]
) -> None:
    ended = cli("ek-ca", "init", tmp_path / "ca", "--algorithm", algorithm, "--json", *flags)
    assert ended.status == 0
    for name, value in ended.json["settings"].items():
        monkeypatch.setenv(name, value)
    issuer = make_ek_ca(Settings.load(), utc_now)
    assert issuer is not None
    assert issuer.authority.certificate == certificate(tmp_path / "ca")
    assert issuer.authority.simulated is bool(flags) is ended.json["simulated"]
    assert issuer.authority.name == ended.json["name"]


def test_files_are_private_and_hold_one_thing_each(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "ca"
    before = os.umask(0)
    try:
        assert cli("ek-ca", "init", folder).status == 0
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())}
    assert modes == {"ca": 0o700, "ek-ca.key": 0o600, "ek-ca.pem": 0o644}
    assert (folder / "ek-ca.pem").read_text().count("-----BEGIN") == 1
    assert "PRIVATE" not in (folder / "ek-ca.pem").read_text()


def test_openssl_takes_key_and_certificate_for_a_pair(cli: Cli, tmp_path: Path) -> None:
    cli("ek-ca", "init", tmp_path, "--name", "Mine", "--days", "3")

    def openssl(*arguments: str) -> str:
        command = ("openssl", *arguments)
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    assert "OK" in openssl("verify", "-x509_strict", "-CAfile", "ek-ca.pem", "ek-ca.pem")
    public = openssl("x509", "-in", "ek-ca.pem", "-noout", "-pubkey")
    assert public == openssl("pkey", "-in", "ek-ca.key", "-pubout")
    assert openssl("x509", "-in", "ek-ca.pem", "-noout", "-subject").strip() == "subject=CN = Mine"


def test_days_count_from_now(cli: Cli, tmp_path: Path) -> None:
    document = cli("ek-ca", "init", tmp_path, "--days", "3", "--json").json
    assert datetime.fromisoformat(document["not_after"]) == certificate(tmp_path).not_valid_after_utc
    left = certificate(tmp_path).not_valid_after_utc - utc_now()
    assert timedelta(days=2, hours=23) < left <= timedelta(days=3)


def test_it_says_what_to_do(cli: Cli, tmp_path: Path) -> None:
    ended = cli("ek-ca", "init", tmp_path, "--simulated", "--name", "Test")
    assert f"SVSM_ATTEST_EK_CA_KEY={tmp_path}/ek-ca.key" in ended.out
    assert "tpm_cert_store" in ended.out
    assert "SIMULATED Test" in ended.out
    assert "Trust it in tests only" in ended.err
    assert "PRIVATE" not in ended.out + ended.err


@pytest.mark.parametrize("taken", ["ek-ca.key", "ek-ca.pem"])
@pytest.mark.parametrize("dangling", [False, True])
def test_nothing_is_overwritten(cli: Cli, tmp_path: Path, taken: str, *, dangling: bool) -> None:
    if dangling:
        (tmp_path / taken).symlink_to(tmp_path / "elsewhere")
    else:
        (tmp_path / taken).write_text("mine")
    ended = cli("ek-ca", "init", tmp_path)
    assert ended.status == 2
    assert f"{taken}: exists already" in ended.err
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("ek-ca")] == [taken]
    assert dangling or (tmp_path / taken).read_text() == "mine"


def test_half_an_authority_is_none(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync, calls = os.fsync, count()

    def fail_later(descriptor: int) -> None:
        if next(calls) > 1:  # the key, its name, and then the certificate
            raise OSError(28, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_later)
    ended = cli("ek-ca", "init", tmp_path / "ca")
    assert ended.status == 2
    assert "cannot be written: No space left" in ended.err
    assert list((tmp_path / "ca").iterdir()) == []


def test_a_folder_that_cannot_be_made(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = cli("ek-ca", "init", tmp_path / "file" / "ca")
    assert ended.status == 2
    assert "cannot be written" in ended.err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--name", "SIMULATED mine"), "--simulated puts that word before the name"),
        (("--name", "a simulated one", "--simulated"), "leave it out of --name"),
        (("--name", " "), "is empty"),
        (("--name", "a\nb"), "cannot be shown"),
        (("--name", "x" * 65), "has 65 characters, at most 64"),
        (("--name", "x" * 55, "--simulated"), "has 55 characters, at most 54"),
        (("--days", "0"), "--days"),
        (("--days", "3651"), "--days"),
        (("--algorithm", "ed25519"), "--algorithm"),
    ],
)
def test_usage(cli: Cli, tmp_path: Path, options: tuple[str, ...], reason: str) -> None:
    ended = cli("ek-ca", "init", tmp_path / "ca", *options)
    assert ended.status == 2
    assert reason in ended.err
    assert not (tmp_path / "ca").exists()


def test_the_longest_names_fit(cli: Cli, tmp_path: Path) -> None:
    assert cli("ek-ca", "init", tmp_path / "1", "--name", "x" * 64).status == 0
    assert cli("ek-ca", "init", tmp_path / "2", "--name", "x" * 54, "--simulated").status == 0
