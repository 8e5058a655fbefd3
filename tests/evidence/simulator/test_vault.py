import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from app.errors import BackendError
from app.evidence.backend import Cause
from app.evidence.simulator.authority import CertificateAuthority
from app.evidence.simulator.vault import Vault
from app.trust.certificates import load_certificate

BITS = 1024  # quick to make; the vault does not mind


def test_keys_and_secrets_outlive_the_process(tmp_path: Path) -> None:
    first, second = Vault(tmp_path / "state"), Vault(tmp_path / "state")
    assert first.rsa_key("a", BITS).private_numbers() == second.rsa_key("a", BITS).private_numbers()
    assert first.secret("s") == second.secret("s") != first.secret("t")
    curve = ec.SECP256R1()
    assert first.ec_key("e", curve).private_numbers() == second.ec_key("e", curve).private_numbers()


def test_without_a_directory_everything_is_of_this_object_only() -> None:
    vault = Vault()
    assert vault.secret("s") == vault.secret("s") != Vault().secret("s")


def test_everything_is_private_and_says_simulated(tmp_path: Path) -> None:
    state = tmp_path / "new" / "state"
    vault = Vault(state)
    vault.rsa_key("a", BITS)
    vault.secret("s")
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in state.iterdir()} == {0o600}
    assert sorted(file.name for file in state.iterdir()) == [
        "README.txt",
        "SIMULATED-a.key.pem",
        "SIMULATED-s.secret",
    ]
    assert "simulation only" in (state / "README.txt").read_text()
    assert "SIMULATED" in (state / "SIMULATED-a.key.pem").read_text()


def test_a_directory_of_the_operator_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    Vault(tmp_path).secret("s")
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_an_unfinished_file_of_a_killed_process_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / ".new-half").write_bytes(b"-----BEGIN")
    assert len(Vault(tmp_path).secret("s")) == 32


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    ],
)
def test_a_damaged_key_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "SIMULATED-a.key.pem").write_bytes(content)
    with pytest.raises(BackendError, match=r"a\.key\.pem in .* is damaged") as caught:
        Vault(tmp_path).rsa_key("a", BITS)
    assert caught.value.cause == Cause.PLATFORM
    assert "Remove" in caught.value.remedy


def test_a_key_cut_short_is_a_clear_error(tmp_path: Path) -> None:
    Vault(tmp_path).rsa_key("a", BITS)
    file = tmp_path / "SIMULATED-a.key.pem"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BackendError, match="damaged"):
        Vault(tmp_path).rsa_key("a", BITS)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    vault.rsa_key("a", BITS)
    vault.ec_key("e", ec.SECP256R1())
    with pytest.raises(BackendError, match="not an RSA-2048 key"):
        vault.rsa_key("a", 2048)
    with pytest.raises(BackendError, match="not an RSA-1024 key"):
        vault.rsa_key("e", BITS)
    with pytest.raises(BackendError, match="not a secp384r1 key"):
        vault.ec_key("e", ec.SECP384R1())
    with pytest.raises(BackendError, match="not a secp256r1 key"):
        vault.ec_key("a", ec.SECP256R1())


@pytest.mark.parametrize("content", [b"", b"00", b"zz" * 32, b"00" * 33, b"\xff" * 64])
def test_a_damaged_secret_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "SIMULATED-s.secret").write_bytes(content)
    with pytest.raises(BackendError, match=r"s\.secret in .* is damaged"):
        Vault(tmp_path).secret("s")


def test_an_enormous_file_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "SIMULATED-s.secret").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BackendError, match="damaged"):
        Vault(tmp_path).secret("s")


def test_a_directory_that_cannot_be_used_is_a_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(BackendError, match="cannot be used") as caught:
        Vault(file / "below").secret("s")
    assert caught.value.errno is not None
    (tmp_path / "SIMULATED-s.secret").mkdir()
    with pytest.raises(BackendError, match="cannot be used"):
        Vault(tmp_path).secret("s")


def test_a_certificate_is_issued_once_and_loads_as_a_trust_root(
    tmp_path: Path, milan_ark: x509.Certificate
) -> None:
    issued: list[x509.Certificate] = []

    def issue() -> x509.Certificate:
        issued.append(milan_ark)
        return milan_ark

    assert Vault(tmp_path).certificate("c", issue) == Vault(tmp_path).certificate("c", issue) == milan_ark
    assert len(issued) == 1
    assert load_certificate((tmp_path / "SIMULATED-c.cert.pem").read_bytes(), "file") == milan_ark


def test_who_comes_second_takes_what_the_first_made(
    tmp_path: Path, milan_ark: x509.Certificate, milan: CertificateAuthority
) -> None:
    def issue_too_late() -> x509.Certificate:
        Vault(tmp_path).certificate("c", lambda: milan_ark)
        return milan.ask

    assert Vault(tmp_path).certificate("c", issue_too_late) == milan_ark


def test_threads_agree_on_one_key() -> None:
    vault = Vault()
    keys: list[int] = []
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait()
        keys.append(vault.rsa_key("a", BITS).public_key().public_numbers().n)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1


ASK = """
import sys
from pathlib import Path
from app.evidence.simulator.vault import Vault
print("ready", flush=True)
sys.stdin.read(1)
vault = Vault(Path(sys.argv[1]))
print(vault.secret("s").hex(), vault.rsa_key("a", 2048).public_key().public_numbers().n)
"""


def test_processes_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ASK, str(tmp_path / "state")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)
        for _ in range(4)
    ]
    answers = set()
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()
    for process in processes:
        answer, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        answers.add(answer)
    assert len(answers) == 1
    assert not [file for file in (tmp_path / "state").iterdir() if file.name.startswith(".new-")]


def test_a_state_is_made_once_and_replaced_at_will(tmp_path: Path) -> None:
    for vault in (Vault(tmp_path / "state"), Vault()):
        assert vault.state("tpm", lambda: b"new") == b"new"
        assert vault.state("tpm", lambda: b"newer") == b"new"
        vault.replace_state("tpm", b"later")
        assert vault.state("tpm", bytes) == b"later"
    assert Vault(tmp_path / "state").state("tpm", bytes) == b"later"
    file = tmp_path / "state" / "SIMULATED-tpm.state"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert {path.name for path in file.parent.iterdir()} == {"README.txt", file.name}


def test_a_state_can_be_replaced_where_nothing_was(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "state")
    vault.replace_state("tpm", b"first")
    assert vault.state("tpm", bytes) == b"first"


def test_a_state_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = Vault(tmp_path)
    vault.replace_state("tpm", b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BackendError, match="No space left"):
        vault.replace_state("tpm", b"new")
    assert vault.state("tpm", bytes) == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["SIMULATED-tpm.state"]


def test_an_empty_state_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "SIMULATED-tpm.state").touch()
    with pytest.raises(BackendError, match="nothing is in it"):
        Vault(tmp_path).state("tpm", bytes)


def test_what_keeps_a_state_from_being_made_is_told_as_it_is(tmp_path: Path) -> None:
    def fail() -> bytes:
        raise BackendError(Cause.TIMEOUT, "too late", "Try again")

    with pytest.raises(BackendError, match="too late"):
        Vault(tmp_path).state("tpm", fail)
