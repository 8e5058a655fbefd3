"""The TCG EK templates, as the fixed bytes before a key's unique part.

A template settles everything of a TPMT_PUBLIC but the modulus or the point: type, nameAlg,
attributes, policy, symmetric algorithm, scheme and sizes.
Source: TCG EK Credential Profile for TPM Family 2.0, annex B (low range L, high range H).
"""

from app.wire.tpm import algorithms as alg

POLICY_A_SHA256 = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
POLICY_B_SHA256 = bytes.fromhex("ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0")
POLICY_B_SHA384 = bytes.fromhex(
    "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12"
)
# fixedTPM fixedParent sensitiveDataOrigin adminWithPolicy restricted decrypt; high range adds userWithAuth
_LOW = 0x000300B2
_HIGH = 0x000300F2
_SIZE_FIELD = 2


def _prefix(
    kind: int, name_alg: int, attributes: int, policy: bytes, aes_bits: int, parameters: bytes
) -> bytes:
    return b"".join(
        (
            kind.to_bytes(2, "big"),
            name_alg.to_bytes(2, "big"),
            attributes.to_bytes(4, "big"),
            len(policy).to_bytes(2, "big") + policy,
            alg.AES.to_bytes(2, "big") + aes_bits.to_bytes(2, "big") + alg.CFB.to_bytes(2, "big"),
            alg.NULL.to_bytes(2, "big"),
            parameters,
        )
    )


def _rsa(bits: int) -> bytes:
    return bits.to_bytes(2, "big") + bytes(4) + (bits // 8).to_bytes(2, "big")


def _ecc(curve: alg.Curve) -> bytes:
    return curve.identifier.to_bytes(2, "big") + alg.NULL.to_bytes(2, "big") + curve.size.to_bytes(2, "big")


# Up to and including the size of the first unique field.
PREFIXES: dict[str, bytes] = {
    "L-1": _prefix(alg.RSA, alg.SHA256, _LOW, POLICY_A_SHA256, 128, _rsa(2048)),
    "L-2": _prefix(alg.ECC, alg.SHA256, _LOW, POLICY_A_SHA256, 128, _ecc(alg.P256)),
    "H-1": _prefix(alg.RSA, alg.SHA256, _HIGH, POLICY_B_SHA256, 128, _rsa(2048)),
    "H-2": _prefix(alg.ECC, alg.SHA256, _HIGH, POLICY_B_SHA256, 128, _ecc(alg.P256)),
    "H-3": _prefix(alg.ECC, alg.SHA384, _HIGH, POLICY_B_SHA384, 256, _ecc(alg.P384)),
    "H-6": _prefix(alg.RSA, alg.SHA384, _HIGH, POLICY_B_SHA384, 256, _rsa(3072)),
}


def template_name(area: bytes) -> str | None:
    """Which template an encoded, well-formed TPMT_PUBLIC follows, or None."""
    return next((name for name, prefix in PREFIXES.items() if area.startswith(prefix)), None)


def creation_template(name: str) -> bytes:
    """The TPMT_PUBLIC that makes a key of this template: its prefix and the `unique` that the TCG prescribes.

    Another `unique` would make another key: the low range has zeros of the key's size, the high range
    nothing at all.
    """
    prefix = PREFIXES[name]
    size = int.from_bytes(prefix[-_SIZE_FIELD:], "big")
    is_point = prefix.startswith(alg.ECC.to_bytes(2, "big"))
    fields = 2 if is_point else 1
    unique = bytes(_SIZE_FIELD) if name.startswith("H") else prefix[-_SIZE_FIELD:] + bytes(size)
    return prefix[:-_SIZE_FIELD] + fields * unique
