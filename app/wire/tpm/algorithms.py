"""TPM_ALG_ID and TPM_ECC_CURVE values, and the curves' numbers.

Sources: TCG Algorithm Registry (identifiers); FIPS 186-4 D.1.2 (curves).
"""

from dataclasses import dataclass

RSA = 0x0001
SHA1 = 0x0004  # known by name only, so that it can be refused by name
HMAC = 0x0005
AES = 0x0006
KEYEDHASH = 0x0008
SHA256 = 0x000B
SHA384 = 0x000C
SHA512 = 0x000D
NULL = 0x0010
RSASSA = 0x0014
RSAES = 0x0015
RSAPSS = 0x0016
OAEP = 0x0017
ECDSA = 0x0018
ECDH = 0x0019
ECC = 0x0023
CFB = 0x0043

HASH_NAMES = {SHA256: "sha256", SHA384: "sha384", SHA512: "sha512"}  # hashlib's names
HASH_SIZES = {SHA256: 32, SHA384: 48, SHA512: 64}


@dataclass(frozen=True, slots=True)
class Curve:
    """A prime curve y^2 = x^3 - 3x + b over the field of `p`."""

    identifier: int
    name: str  # JWK's name
    size: int  # bytes of a coordinate
    p: int
    b: int

    def holds(self, x: int, y: int) -> bool:
        """Is (x, y) a point of the curve, given in reduced coordinates?"""
        return x < self.p and y < self.p and (y * y - (x * x * x - 3 * x + self.b)) % self.p == 0


P256 = Curve(
    0x0003,
    "P-256",
    32,
    2**256 - 2**224 + 2**192 + 2**96 - 1,
    0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
)
P384 = Curve(
    0x0004,
    "P-384",
    48,
    2**384 - 2**128 - 2**96 + 2**32 - 1,
    0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
)
CURVES = {curve.identifier: curve for curve in (P256, P384)}
