"""An EK authority's files, and the settings that name them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from app.trust.ek_authority import CaAlgorithm, EkAuthority
from app.verifier.private_files import write_new


def authority_settings(folder: Path, *, simulated: bool = True) -> dict[str, Any]:
    """Make a new authority in that folder."""
    made = EkAuthority.create(
        name=None,
        simulated=simulated,
        algorithm=CaAlgorithm.P384,
        at=datetime.now(UTC),
        lifetime=timedelta(days=2),
    )
    certificate, key = folder / "ca.pem", folder / "ca.key"
    certificate.write_bytes(made.certificate.public_bytes(Encoding.PEM))
    write_new(key, made.key_pem())
    return {"ek_ca_certificate": certificate, "ek_ca_key": key, "ek_ca_log": folder / "issued.jsonl"}
