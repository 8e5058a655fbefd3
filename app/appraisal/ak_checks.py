"""Checks of the attestation key: is it one that signs only what its TPM states, and of which TPM?

Source: TCG TPM 2.0 Library, Part 1 (attestation, credential protection), Part 2 (TPMA_OBJECT, 8.3).
"""

from app.appraisal.findings import CheckId, Finding, failed, passed
from app.appraisal.key_proof import NoKeyProof, ProofMethod
from app.appraisal.quote import Quote
from app.appraisal.subject import Subject
from app.wire.manifest import KeyListManifest
from app.wire.tpm import algorithms as alg
from app.wire.tpm.public import TpmtPublic

# Without `restricted` a guest can have any bytes signed, a made-up quote among them; without the
# others the key may also exist outside this TPM.
_SET = {1: "fixedTPM", 4: "fixedParent", 5: "sensitiveDataOrigin", 16: "restricted", 18: "sign"}
_CLEAR = {17: "decrypt"}
_SCHEMES = {alg.ECDSA: "ECDSA", alg.RSASSA: "RSASSA", alg.RSAPSS: "RSAPSS"}
_HOW = {
    ProofMethod.ACTIVATE: "TPM2_ActivateCredential opened a secret made for both keys",
    ProofMethod.IMPORT: "a key wrapped for the EK certified it",
    ProofMethod.MANIFEST: "the SVSM lists both",
}
_CHALLENGE = "Have the verifier challenge the key (POST /ak-challenges) and send the answer as `activation`."


def signing_scheme(scheme: int, hash_alg: int | None) -> str:
    """`ECDSA with sha256`, or what is there in its place."""
    named = _SCHEMES.get(scheme, f"scheme 0x{scheme:04x}" if scheme != alg.NULL else "no scheme")
    return named if hash_alg is None else f"{named} with {alg.HASH_NAMES[hash_alg]}"


def check_ak(quote: Quote) -> Finding:
    """Is this a restricted signing key that never leaves its TPM?

    Hash and key sizes are no question here: what is weaker than SHA-256, RSA-2048 and P-256 does not parse.
    """
    ak = quote.ak
    faults = [f"{name} is clear" for bit, name in _SET.items() if not ak.attributes >> bit & 1]
    faults += [f"{name} is set" for bit, name in _CLEAR.items() if ak.attributes >> bit & 1]
    if ak.symmetric_bits is not None:
        faults.append("it has a symmetric algorithm")
    if ak.scheme not in _SCHEMES:
        faults.append(f"it has {signing_scheme(ak.scheme, ak.scheme_hash)}, which does not sign")
    names = ", ".join(_SET.values())
    expected = f"{names} set, decrypt clear, a signing scheme"
    actual = f"0x{ak.attributes:08x}, {ak.algorithm}, {signing_scheme(ak.scheme, ak.scheme_hash)}"
    if faults:
        why = f"What this key signs need not be its TPM's own statement: {'; '.join(faults)}."
        return failed(CheckId.VTPM_AK, expected, actual, why, "Make an attestation key as POST /ak does.")
    return passed(CheckId.VTPM_AK, expected, actual, "The key signs its TPM's own statements only.")


def proof_method(subject: Subject, quote: Quote) -> ProofMethod | None:
    """By what the attestation key is tied to the EK that the SVSM vouches for; None where by nothing."""
    proof, ek = subject.expectation.key_proof, subject.ek
    if ek is None or isinstance(proof, NoKeyProof):
        return None
    if proof is not None:
        names = (proof.ek_name, proof.ak_name)
        return proof.method if names == (ek.name, quote.ak.name) else None
    return ProofMethod.MANIFEST if _is_listed(subject, quote.ak) else None


def check_ak_binding(subject: Subject, quote: Quote, *, bound: bool) -> Finding:
    """Is the attestation key in the TPM whose EK the SVSM vouches for?

    An answered challenge to both keys says so, or a manifest (version 1) that lists both, if the
    report binds that manifest (`bound`). A wrong answer is never made good by a manifest.
    """
    proof, ek, ak = subject.expectation.key_proof, subject.ek, quote.ak
    actual = f"AK {ak.name.hex()}"
    if ek is None:
        why = "The manifest names no EK that the key could be tied to."
        return failed(CheckId.VTPM_AK_BINDING, "an EK in the manifest", actual, why)
    expected = f"a key in the TPM of EK {ek.name.hex()}"
    method = proof_method(subject, quote)
    if method is ProofMethod.MANIFEST and not bound:
        why = "The manifest lists the key, but nothing shows that the SVSM wrote it."
        return failed(CheckId.VTPM_AK_BINDING, expected, actual, why)
    if method is not None:
        why = f"The key is in the TPM that has the EK: {_HOW[method]}."
        return passed(CheckId.VTPM_AK_BINDING, expected, actual, why)
    if proof is None:
        why = "Nothing shows that this key is in the TPM that has the EK."
        return failed(CheckId.VTPM_AK_BINDING, expected, actual, why, _CHALLENGE)
    if isinstance(proof, NoKeyProof):
        return failed(CheckId.VTPM_AK_BINDING, expected, actual, proof.why, _CHALLENGE)
    if proof.ek_name != ek.name:
        why, actual = "The answered challenge was made for another EK.", f"EK {proof.ek_name.hex()}"
    else:
        why, actual = "The answered challenge was about another key.", f"AK {proof.ak_name.hex()}"
        expected = f"AK {ak.name.hex()}"
    return failed(CheckId.VTPM_AK_BINDING, expected, actual, why, _CHALLENGE)


def _is_listed(subject: Subject, ak: TpmtPublic) -> bool:
    return isinstance(subject.vtpm, KeyListManifest) and ak in subject.vtpm.keys
