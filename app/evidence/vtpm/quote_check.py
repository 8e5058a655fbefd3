"""What an attester checks in its own quotes before it hands them out.

As with reports, this is no appraisal: it catches a TPM, or something in its place, that answers
another question than the one that was asked, which no verifier would take.
Source: TCG TPM 2.0 Library, Part 3, TPM2_Quote; Part 1, 17.6 (PCR selections and digests).
"""

import hmac

from app.errors import BackendError, WireError
from app.evidence.vtpm.refusal import VtpmCause
from app.trust.tpm_key import verify_attest
from app.wire.tpm.attest import Attest, QuoteInfo
from app.wire.tpm.pcr import PcrValues
from app.wire.tpm.public import TpmtPublic
from app.wire.tpm.signature import TpmtSignature, parse_signature


def is_own_quote(
    ak: TpmtPublic, attest: bytes, signature: bytes, *, qualifying: bytes, pcrs: PcrValues
) -> bool:
    """Does the quote say what `pcrs` say? False only where a register changed in between.

    Raises:
        BackendError: the quote is malformed, was not signed by `ak`, or is about other qualifying
            data or other registers.
    """
    statement, signed = _parse(attest, signature)
    if not verify_attest(ak, signed, attest):
        raise _unusable("its signature is not that of the attestation key")
    quoted = statement.attested
    if not isinstance(quoted, QuoteInfo):
        raise _unusable("it certifies a key")
    if not hmac.compare_digest(statement.extra_data, qualifying):
        raise _unusable("it is about other qualifying data")
    if quoted.selection != pcrs.selection:
        raise _unusable("it is about other registers")
    return hmac.compare_digest(quoted.pcr_digest, pcrs.digest(signed.hash_alg))


def _parse(attest: bytes, signature: bytes) -> tuple[Attest, TpmtSignature]:
    try:
        return Attest.parse(attest), parse_signature(signature)
    except WireError as error:
        raise _unusable(str(error)) from error


def _unusable(reason: str) -> BackendError:
    return BackendError(
        VtpmCause.QUOTE,
        f"the TPM's quote cannot be used: {reason}",
        "Ask again; if it stays, what answers is broken, or is not the TPM",
    )
