"""What a software TPM signed, as it put it; and statements written down field by field."""

from tests.wire.samples import sized

# An attestation key below the EK of tests.wire.samples (P-256), a quote over 16 bytes of nonce, its signature
# and the registers that are not zero among 0, 1, 2, 7 and 16.
QUOTE_AK = bytes.fromhex(
    "0023000b00050072000000100018000b0003001000202906bbffb7a939db1c1f9f7f32769228066a1267129c3dfc8194"
    "c9557596c420002026e69eb871ec3438deed08c59e97cbe7abb620e2adab9557d42bb5067b1c47cc"
)
QUOTE_NONCE = bytes.fromhex("00112233445566778899aabbccddeeff")
QUOTE = bytes.fromhex(
    "ff54434780180022000b6852c7a060dd572ab0ebfc9bda17630493796aa01465e085225f8ff5678551f6001000112233"
    "445566778899aabbccddeeff00000000001cba3c000000010000000001201910230016363600000001000b0387000100"
    "208c308a59c52722e69ee32c04e0a427afdcbb4751bd0209fcab390109b0f14fe1"
)
QUOTE_SIGNATURE = bytes.fromhex(
    "0018000b0020498340473cd7e41a6208ab608b82af77d8bf6b4ade0094748b349d7a1e209c9a0020e394076ad69bd3e9"
    "517cddb7c5b9955557792e9263da2ec9149029cd89d4f5df"
)
QUOTE_PCRS = {
    0: bytes.fromhex("69d08f02c8d6ed21b8c321a6b8911fd620e1d0e0d1cea3839f27a8362f60467c"),
    1: bytes(32),
    2: bytes(32),
    7: bytes.fromhex("7db112f1de035e8910fcce0d08478a418df4744e9027a1cb30cb2810767727b0"),
    16: bytes.fromhex("4e9419cc6ed17f8b8558bb0c0c7713e30940629c2852b3bab2c462e3fb42e000"),
}

NAME = bytes.fromhex("000b") + bytes(range(32))
LONG_NAME = bytes.fromhex("000d") + bytes(range(64))
CLOCK = bytes.fromhex("0000000000000102 00000003 00000004 01 1122334455667788")


def statement(kind: str, body: bytes, *, signer: bytes = NAME, extra: bytes = b"") -> bytes:
    """A TPMS_ATTEST of this type (hex)."""
    return bytes.fromhex("ff544347" + kind) + sized(signer) + sized(extra) + CLOCK + body


CERTIFY = statement("8017", sized(NAME) + sized(LONG_NAME), extra=bytes(66))
LARGEST_QUOTE = statement(
    "8018",
    bytes.fromhex("00000003 000b03ffffff 000d03800000 000c03000001") + sized(bytes(64)),
    signer=LONG_NAME,
    extra=bytes(66),
)

RSASSA = bytes.fromhex("0014000b") + sized(bytes(range(256)))
RSAPSS = bytes.fromhex("0016000c") + sized(bytes(384))
ECDSA = bytes.fromhex("0018000d") + sized(bytes(range(1, 49))) + sized(b"\x07")
HMAC = bytes.fromhex("0005000b") + bytes(range(32))

# A credential whose seed was 00..1f and whose secret says so, for the EK of tests.wire.samples.
CREDENTIAL_NAME = bytes.fromhex("000b1cf12e1d494d27994f25fba58f911d9cb6c0c0715e98f24c621ef2bd705e4f7a")
CREDENTIAL_SEED = bytes(range(32))
CREDENTIAL_SECRET = b"0123456789abcdef" * 2
CREDENTIAL_KEYS = (
    "ebbcd401c6acedbd3ab45860bf05d1b1",
    "bacf689f634ece301e1f1b15b072d9c87db6a69585db42b1a0cb8f73ebe2692e",
)
ID_OBJECT = bytes.fromhex(
    "0020fa43727a80134d38f09871bc1f03752b67b94adfd954a6d1514026ab1eadb6be13b95acba0a3dd13f25082142725"
    "467368d774d1ed6e35933f14c444f9e4e2a4482c"
)
POINT = sized(bytes(31) + b"\x01") + sized(bytes(range(32)))
TOOLS_HEAD = bytes.fromhex("badcc0de00000001")

HMAC_KEY = bytes.fromhex("0008000b 00050440 0000 0005000b 0020") + bytes(range(32))
DUPLICATE = sized(bytes(32)) + bytes(74)
