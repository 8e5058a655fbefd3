"""Keylime's own check of an EK certificate, run by a Python that has Keylime.

KEYLIME_PYTHON names the interpreter of an environment with `keylime==7.14.3` and what it imports:
its wheel declares no requirements.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from app.trust.certificates import der
from app.trust.ek_authority import CaAlgorithm
from tests.trust.ek_ca import authority, issue, pem_file
from tests.wire.samples import SWTPM_EK, p256_ek, p384_ek

EKS = {"rsa2048": SWTPM_EK, "p256": p256_ek(), "p384": p384_ek()}
ASK = """
import sys
from keylime import cert_utils
print(cert_utils.verify_ek(open(sys.argv[1], "rb").read(), sys.argv[2]))
"""


@pytest.fixture(scope="module")
def keylime() -> str:
    python = shutil.which(os.environ.get("KEYLIME_PYTHON", ""))
    if python is None:
        pytest.skip("no Keylime: set KEYLIME_PYTHON to a Python that has it")
    return python


def keylime_trusts(python: str, folder: Path, certificate: Path, store: Path) -> bool:
    (folder / "gpg.py").touch()  # imported, and not used for this
    environment = {**os.environ, "PYTHONPATH": str(folder), "KEYLIME_DIR": str(folder)}
    command = (python, "-c", ASK, str(certificate), str(store))
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = done.stdout.strip().splitlines()[-1]
    assert answer in {"True", "False"}
    return answer == "True"


@pytest.mark.parametrize("algorithm", CaAlgorithm)
@pytest.mark.parametrize("ek", EKS)
def test_keylime_trusts_it_where_the_authority_is_in_its_store(
    keylime: str, tmp_path: Path, algorithm: CaAlgorithm, ek: str
) -> None:
    certificate = tmp_path / "ek.der"
    certificate.write_bytes(der(issue(EKS[ek], authority(algorithm))))
    store, other = tmp_path / "store", tmp_path / "other"
    for folder, by in ((store, authority(algorithm)), (other, authority(algorithm, simulated=True))):
        folder.mkdir()
        pem_file(folder, "ca.pem", by.certificate)
    assert keylime_trusts(keylime, tmp_path, certificate, store)
    assert not keylime_trusts(keylime, tmp_path, certificate, other)
