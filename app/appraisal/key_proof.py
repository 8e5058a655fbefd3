"""What ties an attestation key to an EK.

An EK cannot sign and an attestation key says nothing of its TPM: that both are in one TPM takes an
answer that only such a TPM can give, or the word of whoever vouches for the EK.
"""

from dataclasses import dataclass
from enum import StrEnum


class ProofMethod(StrEnum):
    """How it was shown that attestation key and EK are in one TPM."""

    ACTIVATE = "activate"  # TPM2_ActivateCredential gave the verifier its secret back
    IMPORT = "import"  # a key that the verifier wrapped for the EK certified the attestation key
    MANIFEST = "manifest"  # the SVSM lists both


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyProof:
    """An answered challenge: the TPM that has the EK of one Name has the key of the other, too."""

    method: ProofMethod
    ek_name: bytes  # 34 or 50
    ak_name: bytes  # 34, 50 or 66


@dataclass(frozen=True, slots=True)
class NoKeyProof:
    """An answer that proves nothing, and the sentence that says why."""

    why: str
