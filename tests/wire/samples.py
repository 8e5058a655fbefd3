"""Well-formed structures to start from, written down from the specifications and not by our encoder."""

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

NONCE = bytes(range(64))
RSA_2048_UNIQUE = 256

# TCG EK template L-1 up to the modulus, field by field.
L1_PREFIX = bytes.fromhex(
    "0001"  # TPM_ALG_RSA
    "000b"  # nameAlg SHA-256
    "000300b2"  # fixedTPM fixedParent sensitiveDataOrigin adminWithPolicy restricted decrypt
    "0020837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa"  # PolicyA
    "000600800043"  # AES-128-CFB
    "0010"  # no scheme
    "0800"  # keyBits
    "00000000"  # exponent: the default, 65537
    "0100"  # size of the modulus
)

# The EK of one software TPM: its public area and the Name that the TPM itself gave it.
SWTPM_EK = bytes.fromhex(
    "0001000b000300b20020837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa000600800043"
    "001008000000000001009a794fcd8c739450388386134ce40a14d1f75e9f454d40fa8dc6e63d5b9a40dd5a10e8bc2309"
    "ce054889ef8ad786c78caab5dcadb0013c902f768c7b3e6c3eca74c5de242f949c5792be31894b1270a7606ea2ae801a"
    "d5f7d60dead3ce4b2f01e9096d67e9861ea454def1fe70a206509511791e983f8c61d5acb1d07371427943e42055f035"
    "7f01d442b5f126fdca5604a9afb139bc1aab3de33ec417983a85c8e1ae446524a092ed124a520b7f5e65eabe1426d8a4"
    "4c2e8f5407ed5a81379529c26a4f7691d9a0d7ff8b35e243f4196e83a9208472c1cefb16a05b186f3993b6e8f895908d"
    "dbb342dc2ebb705d4a771029b60df1024f2fe73eb4ac09b7de11"
)
SWTPM_EK_NAME = bytes.fromhex("000b33fa5787c91d9aa9765b6327fee23fb7512dcbedc01bc40429eb64ab8b87edb4")

# A public area of the right shape whose modulus counts upwards: the subject of worked examples.
COUNTING_EK = L1_PREFIX + b"\x80" + bytes((7 * i + 1) % 256 for i in range(1, 255)) + b"\x01"

# Private scalars whose public point has a leading zero byte in the named coordinate.
LEADING_ZERO_SCALARS = {("P-256", "x"): 379, ("P-256", "y"): 43, ("P-384", "x"): 197, ("P-384", "y"): 176}
CURVES: dict[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1()}


def point(curve: str, scalar: int) -> tuple[bytes, bytes]:
    """The coordinates of a point, full width, as OpenSSL computes them."""
    numbers = ec.derive_private_key(scalar, CURVES[curve]).public_key().public_numbers()
    size = (CURVES[curve].key_size + 7) // 8
    return numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big")


def sized(data: bytes) -> bytes:
    """A TPM2B: two bytes of size and the data."""
    return len(data).to_bytes(2, "big") + data


def p256_ek(scalar: int = 1) -> bytes:
    """A public area that follows template L-2."""
    x, y = point("P-256", scalar)
    return b"\x00\x23" + L1_PREFIX[2:50] + bytes.fromhex("00030010") + sized(x) + sized(y)


def p384_ek(scalar: int = 1) -> bytes:
    """A public area that follows template H-3."""
    policy = bytes.fromhex(
        "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12"
    )
    x, y = point("P-384", scalar)
    head = bytes.fromhex("0023000c000300f2") + sized(policy) + bytes.fromhex("000601000043001000040010")
    return head + sized(x) + sized(y)


def signing_key(*, curve: str = "P-256", scalar: int = 2) -> bytes:
    """A restricted ECDSA signing key: what an AK looks like."""
    x, y = point(curve, scalar)
    identifier = {"P-256": "0003", "P-384": "0004"}[curve]
    head = bytes.fromhex("0023000b00050072" + "0000" + "0010" + "0018000b" + identifier + "0010")
    return head + sized(x) + sized(y)


def patched(raw: bytes, *changes: tuple[int, bytes | str]) -> bytes:
    """`raw` with each (offset, bytes or hex) written over it."""
    data = bytearray(raw)
    for offset, change in changes:
        new = bytes.fromhex(change) if isinstance(change, str) else change
        data[offset : offset + len(new)] = new
    return bytes(data)


# (offset, size, name) of everything in a version 5 report that may hold any value.
REPORT_FIELDS = (
    (0x004, 4, "guest_svn"),
    (0x010, 16, "family_id"),
    (0x020, 16, "image_id"),
    (0x030, 4, "vmpl"),
    (0x038, 8, "current_tcb"),
    (0x040, 8, "platform_info"),
    (0x050, 64, "report_data"),
    (0x090, 48, "measurement"),
    (0x0C0, 32, "host_data"),
    (0x0E0, 48, "id_key_digest"),
    (0x110, 48, "author_key_digest"),
    (0x140, 32, "report_id"),
    (0x160, 32, "report_id_ma"),
    (0x180, 8, "reported_tcb"),
    (0x188, 3, "cpuid"),
    (0x1A0, 64, "chip_id"),
    (0x1E0, 8, "committed_tcb"),
    (0x1E8, 3, "current_version"),
    (0x1EC, 3, "committed_version"),
    (0x1F0, 8, "launch_tcb"),
    (0x1F8, 8, "launch_mit_vector"),
    (0x200, 8, "current_mit_vector"),
    (0x2A0, 144, "signature"),
)
_SINCE = {"cpuid": 3, "launch_mit_vector": 5, "current_mit_vector": 5}


def report(version: int = 5) -> bytes:
    """A report in which no two bytes of the free fields repeat a pattern that another field has."""
    changes: list[tuple[int, bytes | str]] = [
        (0x000, version.to_bytes(4, "little")),
        (0x008, (0x0000_0000_0253_371F).to_bytes(8, "little")),  # ABI 0x37.0x1f; bits 16, 17, 20, 22, 25
        (0x034, "01000000"),
        (0x048, "05000000"),  # AUTHOR_KEY_EN, SIGNING_KEY 1
    ]
    for number, (offset, size, name) in enumerate(REPORT_FIELDS):
        if version >= _SINCE.get(name, 0):
            changes.append((offset, bytes((31 * number + 7 * i + 1) % 256 for i in range(size))))
    return patched(bytes(1184), *changes)


def changed_fields(one: Any, other: Any) -> set[str]:
    """Names of the dataclass fields, of one type, in which two values differ."""
    names = [name for name, field in one.__dataclass_fields__.items() if field.compare]
    return {name for name in names if getattr(one, name) != getattr(other, name)}
