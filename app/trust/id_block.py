"""The signatures of an ID block: would the firmware launch under it?

The firmware verifies both before the first instruction runs, and refuses to launch otherwise; a
report that shows a digest of an ID key was signed for by that key.
Source: AMD 56860 (SEV-SNP Firmware ABI), SNP_LAUNCH_FINISH, ID block and ID authentication information.
"""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from app.wire.igvm.id_block import CURVE_P384, ECDSA_P384_SHA384, EcdsaKey, EcdsaSignature, SnpIdBlock


def id_block_problems(block: SnpIdBlock, policy: int) -> tuple[str, ...]:
    """Why the firmware would refuse the block under this guest policy: phrases, none where it takes it.

    The launch digest itself is not compared: that takes the pages.
    """
    problems = []
    if block.id_key_algorithm != ECDSA_P384_SHA384 or block.id_key.curve != CURVE_P384:
        problems.append("the ID key is not one for ECDSA on P-384")
    elif not _verifies(block.id_key, block.id_key_signature, block.signed_bytes(policy)):
        problems.append(f"the ID key did not sign this block under guest policy 0x{policy:x}")
    if block.author_key_enabled:
        if block.author_key_algorithm != ECDSA_P384_SHA384 or block.author_key.curve != CURVE_P384:
            problems.append("the author key is not one for ECDSA on P-384")
        elif not _verifies(block.author_key, block.author_key_signature, block.id_key.encode()):
            problems.append("the author key did not sign the ID key")
    return tuple(problems)


def _verifies(key: EcdsaKey, signature: EcdsaSignature, message: bytes) -> bool:
    try:
        public = ec.EllipticCurvePublicNumbers(key.x, key.y, ec.SECP384R1()).public_key()
        public.verify(
            utils.encode_dss_signature(signature.r, signature.s), message, ec.ECDSA(hashes.SHA384())
        )
    except (ValueError, InvalidSignature):  # the first for a point that is not on the curve
        return False
    return True
