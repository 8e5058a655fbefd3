"""Challenges that only the TPM with a given EK can answer: credentials, and HMAC keys to import.

Both protect something for an EK in one way ("outer wrap"): a seed, encrypted for the EK, gives a key
to encrypt with and a key for an HMAC that also covers a Name. The TPM opens a credential only beside
an object of that Name; an imported key it uses like its own, and what it certifies with it comes from
the TPM that holds the EK.
Sources: TCG TPM 2.0 Library, Part 1, 22 (protected storage), 24 (credentials), B.10 (RSA secrets) and
C.6 (ECC secrets); TCG EK-Based Key Attestation with TPM Firmware Version.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from app.errors import WireError
from app.trust.kdf import kdfa, kdfe
from app.trust.tpm_key import HASHES, public_key
from app.wire.tpm import algorithms as alg
from app.wire.tpm import duplicate, fields
from app.wire.tpm.credential import CredentialBlob, IdObject
from app.wire.tpm.duplicate import ImportBlob
from app.wire.tpm.public import STRUCTURE, TpmtPublic
from app.wire.tpm.signature import HmacSignature, TpmtSignature

_IDENTITY = b"IDENTITY"
_DUPLICATE = b"DUPLICATE"
_STORAGE = b"STORAGE"
_INTEGRITY = b"INTEGRITY"
_AES_BLOCK = 16


def make_credential(ek: TpmtPublic, name: bytes, secret: bytes) -> CredentialBlob:
    """Hide `secret` so that only the TPM with this EK, holding an object of this Name, can read it.

    Args:
        ek: RSA or ECC; its template is for the caller to judge.
        name: of the attestation key, as TpmtPublic.name.
        secret: 1 byte up to the size of the EK's nameAlg.

    Raises:
        WireError: the key is not a storage key, so no TPM could open anything made for it.
        ValueError: the secret is empty or too long.
    """
    if not 0 < len(secret) <= alg.HASH_SIZES[ek.name_alg]:
        raise ValueError(f"a secret of {len(secret)} bytes does not fit this EK")
    seed, encrypted_seed = _make_seed(ek, _IDENTITY)
    return CredentialBlob(IdObject(*wrap(ek, seed, name, fields.to_tpm2b(secret))), encrypted_seed)


@dataclass(frozen=True, slots=True)
class ImportChallenge:
    """An HMAC key for a TPM to import; it is good for one answer, since `key` is its only freshness."""

    blob: ImportBlob
    key: bytes = field(repr=False)  # 32, to be kept from everybody
    name: bytes  # 34: of the HMAC key


def make_import(ek: TpmtPublic) -> ImportChallenge:
    """A fresh HMAC key, wrapped so that only the TPM with this EK can use it.

    Raises:
        WireError: the key is not a storage key.
    """
    key, obfuscation = secrets.token_bytes(duplicate.KEY_SIZE), secrets.token_bytes(duplicate.UNIQUE_SIZE)
    public_area = duplicate.encode_public(hashlib.sha256(obfuscation + key).digest())
    name = duplicate.public_name(public_area)
    seed, encrypted_seed = _make_seed(ek, _DUPLICATE)
    integrity, sensitive = wrap(ek, seed, name, duplicate.encode_sensitive(obfuscation, key))
    blob = ImportBlob(public_area, fields.to_tpm2b(integrity) + sensitive, encrypted_seed)
    return ImportChallenge(blob, key, name)


def verify_certify_mac(key: bytes, certify_info: bytes, signature: TpmtSignature) -> bool:
    """Did a TPM that imported `key` make this TPMS_ATTEST? Compared in constant time.

    A TPM's restricted HMAC key signs the SHA-256 of the statement and not the statement itself.
    """
    if not isinstance(signature, HmacSignature) or signature.hash_alg != alg.SHA256:
        return False
    expected = hmac.digest(key, hashlib.sha256(certify_info).digest(), "sha256")
    return hmac.compare_digest(expected, signature.digest)


def wrap(ek: TpmtPublic, seed: bytes, name: bytes, plain: bytes) -> tuple[bytes, bytes]:
    """Protect `plain` under a seed; returns the HMAC and the cipher text, which is as long as `plain`.

    AES-CFB with the EK's symmetric key size, its IV zero: the key is used for this text alone.
    """
    hash_alg = ek.name_alg
    key = kdfa(hash_alg, seed, _STORAGE, name, b"", _storage_bits(ek))
    encryptor = Cipher(AES(key), CFB(bytes(_AES_BLOCK))).encryptor()
    encrypted = encryptor.update(plain) + encryptor.finalize()
    mac_key = kdfa(hash_alg, seed, _INTEGRITY, b"", b"", 8 * alg.HASH_SIZES[hash_alg])
    return hmac.digest(mac_key, encrypted + name, alg.HASH_NAMES[hash_alg]), encrypted


def _make_seed(ek: TpmtPublic, label: bytes) -> tuple[bytes, bytes]:
    """A fresh seed, and the same encrypted for the EK."""
    _storage_bits(ek)
    size = alg.HASH_SIZES[ek.name_alg]
    public = public_key(ek)
    if isinstance(public, rsa.RSAPublicKey):
        seed = secrets.token_bytes(size)
        hashed = HASHES[ek.name_alg]
        return seed, public.encrypt(seed, padding.OAEP(padding.MGF1(hashed), hashed, label + b"\0"))
    ephemeral = ec.generate_private_key(public.curve)
    shared = ephemeral.exchange(ec.ECDH(), public)
    ours, theirs = ephemeral.public_key().public_numbers(), public.public_numbers()
    width = len(shared)
    x, y, ek_x = (number.to_bytes(width, "big") for number in (ours.x, ours.y, theirs.x))
    seed = kdfe(ek.name_alg, shared, label, x, ek_x, 8 * size)
    return seed, fields.to_tpm2b(x) + fields.to_tpm2b(y)


def _storage_bits(ek: TpmtPublic) -> int:
    if ek.symmetric_bits is None or ek.scheme != alg.NULL:
        raise WireError(STRUCTURE, 0, "not a storage key: nothing can be encrypted for its TPM")
    return ek.symmetric_bits
