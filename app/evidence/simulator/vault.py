"""Where the simulator keeps its keys: a state directory, or only this process.

Nothing here is secret in any useful sense: whoever trusts a simulated root trusts software,
and every file says so. Still each is private to its owner and is written whole or not at all. A key
is never replaced, so that processes which start together agree on it.
"""

import contextlib
import os
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from app.errors import BackendError
from app.evidence.backend import Cause

PREFIX = "SIMULATED-"  # of every file name
SECRET_SIZE = 32
_MAX_FILE_SIZE = 1 << 20
_BANNER = "svsm-attest SIMULATED: made by software, for simulation only, proves nothing about hardware\n"
_README = f"""{_BANNER}
This directory holds the keys of a software security processor and of the certificate authority
that vouches for it, and the seeds of a software TPM. Remove the directory to start over with new
ones; whoever trusted the old root will then see an unknown one.
"""

Kept = TypeVar("Kept")


class Vault:
    """Makes keys, certificates and secrets when they are first asked for, and keeps them.

    Args:
        directory: where they outlive the process; made with mode 0700 where it is missing.
            None keeps them in memory.

    Blocks: an RSA-4096 key takes from a fraction of a second to several seconds. Safe to use
    from several threads and, with a directory, from several processes.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory
        self._memory: dict[str, bytes] = {}
        self._lock = threading.RLock()  # re-entrant: issuing a certificate asks for keys

    def rsa_key(self, name: str, bits: int) -> rsa.RSAPrivateKey:
        """The RSA key of that name, with exponent 65537.

        Raises:
            BackendError: the state directory cannot be used, or the file is not such a key.
        """
        file = f"{name}.key.pem"
        key = self._keep(file, lambda: _key_pem(rsa.generate_private_key(65537, bits)), _read_key)
        if not isinstance(key, rsa.RSAPrivateKey) or key.key_size != bits:
            raise self.corrupt(file, f"not an RSA-{bits} key")
        return key

    def ec_key(self, name: str, curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        """The EC key of that name.

        Raises:
            BackendError: the state directory cannot be used, or the file is not such a key.
        """
        file = f"{name}.key.pem"
        key = self._keep(file, lambda: _key_pem(ec.generate_private_key(curve)), _read_key)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != curve.name:
            raise self.corrupt(file, f"not a {curve.name} key")
        return key

    def secret(self, name: str) -> bytes:
        """32 random bytes.

        Raises:
            BackendError: the state directory cannot be used, or the file is damaged.
        """
        return self._keep(f"{name}.secret", lambda: secrets.token_hex(SECRET_SIZE).encode(), _read_secret)

    def certificate(self, name: str, issue: Callable[[], x509.Certificate]) -> x509.Certificate:
        """The certificate of that name, from `issue` when it is not there yet.

        Raises:
            BackendError: the state directory cannot be used, or the file is not a certificate.
        """

        def make() -> bytes:
            return issue().public_bytes(serialization.Encoding.PEM)  # bare, for use as a trust root

        return self._keep(f"{name}.cert.pem", make, x509.load_pem_x509_certificate)

    def state(self, name: str, make: Callable[[], bytes]) -> bytes:
        """What was last kept under that name, or what `make` gives where nothing was yet.

        Raises:
            BackendError: the state directory cannot be used, or the file is empty.
        """
        return self._keep(f"{name}.state", make, _read_state)

    def replace_state(self, name: str, content: bytes) -> None:
        """Keep this under that name from now on. Of several processes, the last one's stays.

        Raises:
            BackendError: the state directory cannot be used.
        """
        file = f"{name}.state"
        with self._lock, self._usable():
            if self.directory is None:
                self._memory[file] = content
            else:
                self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                _write_over(self.directory / (PREFIX + file), content)

    def _keep(self, file: str, make: Callable[[], bytes], read: Callable[[bytes], Kept]) -> Kept:
        """What the file says, after making it where it is missing."""
        with self._lock, self._usable():
            raw = self._read(file)
            if raw is None:
                raw = self._publish(file, make())
        try:
            return read(raw)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise self.corrupt(file, str(error)) from error

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BackendError(
                Cause.PLATFORM,
                f"the simulator's state directory {self.directory} cannot be used: {error.strerror}",
                "Name a directory that this user may write, or none",
                errno=error.errno,
            ) from error

    def corrupt(self, file: str, reason: str) -> BackendError:
        """The error for a file that does not hold what its name says."""
        return BackendError(
            Cause.PLATFORM,
            f"{file} in {self.directory or 'memory'} is damaged: {reason}",
            "Remove the directory to have new keys made; roots trusted before are then unknown",
        )

    def _read(self, file: str) -> bytes | None:
        if self.directory is None:
            return self._memory.get(file)
        try:
            with (self.directory / (PREFIX + file)).open("rb") as stream:
                return stream.read(_MAX_FILE_SIZE)
        except FileNotFoundError:
            return None

    def _publish(self, file: str, content: bytes) -> bytes:
        """Make the content durable under that name, unless another process was faster: then its content."""
        if self.directory is None:
            self._memory[file] = content
            return content
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, text in (("README.txt", _README.encode()), (PREFIX + file, content)):
            if not (self.directory / name).exists():
                with contextlib.suppress(FileExistsError):
                    _write_once(self.directory / name, text)
        return self._read(file) or content


def _write_once(path: Path, content: bytes) -> None:
    """Create the file, whole or not at all, readable by its owner only.

    A hard link appears in one step and fails where the name is taken; a rename would replace.

    Raises:
        FileExistsError: the name is taken.
    """
    with _written(path.parent, content) as temporary:
        os.link(temporary, path)


def _write_over(path: Path, content: bytes) -> None:
    """Create or replace the file, whole or not at all, readable by its owner only."""
    with _written(path.parent, content) as temporary:
        temporary.replace(path)


@contextlib.contextmanager
def _written(directory: Path, content: bytes) -> Iterator[Path]:
    """The content, safe on disk under a passing name."""
    descriptor, name = tempfile.mkstemp(prefix=".new-", dir=directory)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _key_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return _BANNER.encode() + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@lru_cache(maxsize=32)  # checking an RSA-4096 key takes 0.4 s: once per process is enough
def _read_key(pem: bytes) -> PrivateKeyTypes:
    return serialization.load_pem_private_key(pem, password=None)


def _read_state(raw: bytes) -> bytes:
    if not raw:
        raise ValueError("nothing is in it")
    return raw


def _read_secret(text: bytes) -> bytes:
    secret = bytes.fromhex(text.decode("ascii"))
    if len(secret) != SECRET_SIZE:
        raise ValueError(f"{len(secret)} bytes, want {SECRET_SIZE}")
    return secret
