"""EK authorities to test with, and the tools that read what they issue."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from app.trust.ek_authority import CaAlgorithm, EkAuthority
from app.trust.ek_certificate import EkStatement, TpmModel, ek_certificate_builder
from app.wire.tpm.public import TpmtPublic

NOW = datetime.now(UTC).replace(microsecond=0)  # OpenSSL and GnuTLS look at the clock
TPM = TpmModel(manufacturer="id:00001014", model="swtpm", version="id:20191023", revision=164)


@cache
def authority(algorithm: CaAlgorithm = CaAlgorithm.P384, *, simulated: bool = False) -> EkAuthority:
    return EkAuthority.create(
        name=None, simulated=simulated, algorithm=algorithm, at=NOW, lifetime=timedelta(days=30)
    )


def statement(ek: bytes, **changes: object) -> EkStatement:
    parts = {
        "ek": TpmtPublic.parse(ek),
        "tpm": TPM,
        "not_before": NOW - timedelta(minutes=5),
        "not_after": NOW + timedelta(hours=24),
    }
    return EkStatement(**{**parts, **changes})  # type: ignore[arg-type]  # as the tests choose


def issue(ek: bytes, by: EkAuthority | None = None) -> x509.Certificate:
    return (by or authority()).sign(ek_certificate_builder(statement(ek)))


def pem_file(folder: Path, name: str, certificate: x509.Certificate) -> str:
    (folder / name).write_bytes(certificate.public_bytes(Encoding.PEM))
    return name


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a tool in that folder; skip the test where it is not installed."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed (Debian: gnutls-bin, swtpm-tools)")
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
