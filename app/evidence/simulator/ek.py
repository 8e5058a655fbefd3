"""The endorsement key of the simulated vTPM.

Source: TCG EK Credential Profile, templates L-1, L-2 and H-3; an SVSM makes the L-1 key.
"""

from enum import StrEnum
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec

from app.evidence.simulator.vault import Vault
from app.wire.tpm.template import PREFIXES

_RSA_BITS = 2048


class EkKind(StrEnum):
    """Which key the vTPM has; the value is what people call it."""

    RSA_2048 = "rsa2048"
    P_256 = "p256"
    P_384 = "p384"

    @property
    def template(self) -> str:
        """The name of the TCG's template for it."""
        return _TEMPLATES[self]


_TEMPLATES = {EkKind.RSA_2048: "L-1", EkKind.P_256: "L-2", EkKind.P_384: "H-3"}
_CURVES: dict[EkKind, ec.EllipticCurve] = {EkKind.P_256: ec.SECP256R1(), EkKind.P_384: ec.SECP384R1()}


class EkSource(Protocol):
    """Whoever can tell the EK: the simulator's own key, or a TPM's."""

    def public(self) -> bytes:
        """The bare TPMT_PUBLIC, byte for byte as the TPM marshals it. May block.

        Raises:
            ServiceRefusedError: the TPM does not make the key.
        """


class SimulatedEk:
    """An EK that is made once and kept in the vault.

    A vTPM without persistent state has another EK after every boot; with a state directory
    this one stays.
    """

    def __init__(self, vault: Vault, kind: EkKind = EkKind.RSA_2048, *, name: str = "EK") -> None:
        self.kind = kind
        self._vault = vault
        self._name = f"{name}-{kind}"

    def public(self) -> bytes:
        """The bare TPMT_PUBLIC: 314, 122 or 170 bytes.

        Raises:
            BackendError: the vault cannot be used.
        """
        prefix = PREFIXES[self.kind.template]
        if self.kind is EkKind.RSA_2048:
            modulus = self._vault.rsa_key(self._name, _RSA_BITS).public_key().public_numbers().n
            return prefix + modulus.to_bytes(_RSA_BITS // 8, "big")
        curve = _CURVES[self.kind]
        point = self._vault.ec_key(self._name, curve).public_key().public_numbers()
        size = curve.key_size // 8
        # the prefix ends with the size of x; y has the same
        x, y = (coordinate.to_bytes(size, "big") for coordinate in (point.x, point.y))
        return prefix + x + size.to_bytes(2, "big") + y
