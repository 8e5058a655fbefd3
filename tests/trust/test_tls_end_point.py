"""tls-server-end-point beside openssl's fingerprints, by the rule of RFC 5929, 4.1."""

import subprocess
from pathlib import Path

import pytest

from app.errors import CertificateError
from app.trust.tls_end_point import server_end_point
from app.wire.session import ChannelType
from tests.interop.software_tpm import demand

KEYS = {
    "p256": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "rsa": ["-newkey", "rsa:2048"],
    "pss": ["-newkey", "rsa:2048", "-sigopt", "rsa_padding_mode:pss"],
    "ed25519": ["-newkey", "ed25519"],
}


def made(folder: Path, key: str, digest: str) -> bytes:
    demand("openssl")
    command = ["openssl", "req", "-x509", "-nodes", "-subj", "/CN=attester", "-days", "1", f"-{digest}"]
    files = ["-out", "certificate.pem", "-keyout", "key.pem"]
    subprocess.run([*command, *KEYS[key], *files], check=True, cwd=folder, capture_output=True)
    return (folder / "certificate.pem").read_bytes()


def fingerprint(folder: Path, digest: str) -> bytes:
    command = ["openssl", "x509", "-in", "certificate.pem", "-noout", "-fingerprint", f"-{digest}"]
    said = subprocess.run(command, check=True, cwd=folder, capture_output=True, text=True).stdout
    return bytes.fromhex(said.strip().partition("=")[2].replace(":", ""))


@pytest.mark.parametrize(
    ("key", "signed", "hashed"),
    [
        ("p256", "sha256", "sha256"),
        ("p256", "sha384", "sha384"),
        ("p256", "sha512", "sha512"),
        ("rsa", "sha1", "sha256"),
        ("rsa", "md5", "sha256"),
        ("pss", "sha384", "sha384"),
    ],
)
def test_the_digest_is_by_the_hash_of_the_signature(
    tmp_path: Path, key: str, signed: str, hashed: str
) -> None:
    pem = made(tmp_path, key, signed)
    channel = server_end_point(pem)
    assert channel.type is ChannelType.TLS_SERVER_END_POINT
    assert channel.value == fingerprint(tmp_path, hashed)


def test_of_a_file_with_more_in_it_the_first_certificate_counts(tmp_path: Path) -> None:
    (tmp_path / "issuer").mkdir()
    issuer = made(tmp_path / "issuer", "rsa", "sha512")
    pem = made(tmp_path, "p256", "sha256")
    key = (tmp_path / "key.pem").read_bytes()
    for file in (pem + issuer, key + pem, b"Explanatory text.\n" + pem + key):
        assert server_end_point(file).value == fingerprint(tmp_path, "sha256")


def test_a_signature_without_a_hash_has_no_end_point(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="RFC 5929 defines no end point"):
        server_end_point(made(tmp_path, "ed25519", "sha256"))


@pytest.mark.parametrize(
    "pem", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate(pem: bytes) -> None:
    with pytest.raises(CertificateError, match="not a certificate in PEM"):
        server_end_point(pem)
