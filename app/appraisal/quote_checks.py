"""Checks of a TPM's quote, in the order in which each leans on those before it.

Source: TCG TPM 2.0 Library, Part 3, TPM2_Quote; Part 2, TPMS_ATTEST and TPMS_QUOTE_INFO.
"""

import hmac

from app.appraisal.ak_checks import check_ak, check_ak_binding, signing_scheme
from app.appraisal.boot_checks import check_boot
from app.appraisal.findings import QUOTE, CheckId, Finding, Outcome, failed, not_requested, passed
from app.appraisal.quote import NO_EXPECTATION, Quote
from app.appraisal.subject import Subject
from app.trust.tpm_key import verify_attest
from app.wire.tpm import algorithms as alg
from app.wire.tpm.pcr import PcrSelection, PcrValues

_NO_QUOTE = "The evidence carries no quote over PCRs."
_ASK = "Ask the attester for a quote in the same request (POST /attest with `quote`)."


def is_quote_wanted(subject: Subject) -> bool:
    """Does the policy, or what the relying party sent along, make sense only beside a quote?"""
    return subject.policy.policy.vtpm.require_quote or subject.expectation != NO_EXPECTATION


def check_quote(subject: Subject, *, bound: bool) -> list[Finding]:
    """Every check of the quote, and of what is read from it; `bound`: the report binds the manifest."""
    quote = subject.quote
    if quote is None:
        return _without_quote(subject) + check_boot(subject, _NO_QUOTE)
    findings = [
        check_ak(quote),
        check_ak_binding(subject, quote, bound=bound),
        _check_signature(quote),
        _check_nonce(subject, quote),
        _check_selection(subject, quote),
        _check_digest(quote),
    ]
    # Without a nonce there will be no verdict, but what the quote says can still be held against the policy.
    broken = [finding.check.value for finding in findings if finding.outcome is Outcome.FAILED]
    unknown = f"The quote proves nothing while {broken[0]} fails." if broken else None
    return findings + check_boot(subject, unknown)


def _without_quote(subject: Subject) -> list[Finding]:
    findings = [not_requested(check, None, _NO_QUOTE) for check in CheckId if check in QUOTE]
    if is_quote_wanted(subject):
        absent = failed(
            CheckId.QUOTE_SIGNATURE, "a quote", "none", f"{_NO_QUOTE[:-1]}, but one is due.", _ASK
        )
        findings = [absent if finding.check is absent.check else finding for finding in findings]
    return findings


def _check_signature(quote: Quote) -> Finding:
    """Did the attestation key sign exactly this statement, in its own scheme?"""
    own = signing_scheme(quote.ak.scheme, quote.ak.scheme_hash)
    used = signing_scheme(quote.signature.scheme, quote.signature.hash_alg)
    expected = f"{own} by the attestation key"
    if verify_attest(quote.ak, quote.signature, quote.attest_bytes):
        return passed(CheckId.QUOTE_SIGNATURE, expected, "valid", "The attestation key signed this quote.")
    if own != used:
        why = "The signature is of another scheme than the key's own."
        return failed(CheckId.QUOTE_SIGNATURE, expected, used, why)
    why = "The quote was changed, or another key signed it."
    return failed(CheckId.QUOTE_SIGNATURE, expected, "invalid", why)


def _check_nonce(subject: Subject, quote: Quote) -> Finding:
    """Was the quote made for this nonce, in this session, beside this report?"""
    actual = quote.attest.extra_data
    if subject.session is None:
        why = "No nonce was given, so nothing tells a fresh quote from a replayed one."
        return not_requested(CheckId.QUOTE_NONCE, actual.hex(), why)
    expected = subject.session.qualifying_data(subject.report.encode())
    if hmac.compare_digest(actual, expected):
        why = "The quote was made for this nonce, this key and this very report."
        return passed(CheckId.QUOTE_NONCE, expected.hex(), actual.hex(), why)
    why = "The quote was made for another nonce, report or channel, or is a replay."
    if hmac.compare_digest(actual, subject.session.qualifying_data(None)):
        why = "The quote was made alone and not in one session with a report."
    return failed(CheckId.QUOTE_NONCE, expected.hex(), actual.hex(), why, _ASK)


def _check_selection(subject: Subject, quote: Quote) -> Finding:
    """Are exactly the registers quoted that were asked for, bank by bank in the same order?"""
    actual = quote.info.selection
    expected = subject.expectation.pcrs or subject.policy.policy.vtpm.selection
    if actual == expected:
        why = "Exactly the registers that were asked for are quoted."
        return passed(CheckId.QUOTE_SELECTION, expected, actual, why)
    why = f"Other registers are quoted than were asked for: {_difference(expected, actual)}."
    remedy = "Ask attester and verifier for the same `pcrs`."
    return failed(CheckId.QUOTE_SELECTION, expected, actual, why, remedy)


def _difference(expected: PcrSelection, actual: PcrSelection) -> str:
    want, have = ({bank.name: set(bank.pcrs) for bank in one.banks} for one in (expected, actual))
    differences = [f"bank {name} is missing" for name in want if name not in have]
    differences += [f"bank {name} is too many" for name in have if name not in want]
    for name in want.keys() & have.keys():
        for registers, what in ((want[name] - have[name], "missing"), (have[name] - want[name], "too many")):
            if registers:
                differences.append(f"{PcrSelection.of({name: registers})} {what}")
    return "; ".join(differences) or "the banks come in another order"


def _check_digest(quote: Quote) -> Finding:
    """Do the values that came along hash to what was signed?"""
    signed = quote.info.pcr_digest
    hash_alg = quote.ak.scheme_hash
    expected = signed.hex()
    values, quoted = quote.pcrs.names(), quote.info.selection.names()
    if {name: list(registers) for name, registers in values.items()} != quoted:
        why = "The values that came along are not of the registers that were quoted."
        return failed(CheckId.QUOTE_DIGEST, quote.info.selection, quote.pcrs.selection, why)
    if hash_alg is None:
        why = "The key names no hash, so no digest can be recomputed."
        return failed(CheckId.QUOTE_DIGEST, expected, "none", why)
    in_order = PcrValues.of({name: values[name] for name in quoted})  # as signed, not as written down
    actual = in_order.digest(hash_alg)
    if hmac.compare_digest(actual, signed):
        why = "The values that came along are the ones that the TPM quoted."
        return passed(CheckId.QUOTE_DIGEST, expected, actual.hex(), why)
    why = f"The values that came along are not the ones that the TPM quoted ({alg.HASH_NAMES[hash_alg]})."
    return failed(CheckId.QUOTE_DIGEST, expected, actual.hex(), why)
