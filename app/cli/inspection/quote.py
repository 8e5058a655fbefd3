"""What a TPM signed: TPMS_ATTEST, its signature, and a quote with all that belongs to it.

Source: TCG TPM 2.0 Library, Part 2, TPMS_ATTEST (10.12.12) and TPMT_SIGNATURE (11.3.4).
"""

from typing import Any

from app.cli.inspection.event_log import event_log_sheet
from app.cli.inspection.sheet import Row, Section, Sheet, hexadecimal, yes_no
from app.cli.inspection.tpm import SCHEMES, public_sheet
from app.wire.event_log import EventLog
from app.wire.evidence import QuoteEvidence
from app.wire.tpm import algorithms as alg
from app.wire.tpm import attest as attestation
from app.wire.tpm.attest import Attest, QuoteInfo
from app.wire.tpm.pcr import PcrValues
from app.wire.tpm.public import TpmtPublic
from app.wire.tpm.signature import EcdsaSignature, RsaSignature, TpmtSignature, parse_signature

ATTEST_MAGIC = attestation.MAGIC.to_bytes(4, "big")
_OTHER_TYPES = {
    0x8014: "TPM_ST_ATTEST_NV",
    0x8015: "TPM_ST_ATTEST_COMMAND_AUDIT",
    0x8016: "TPM_ST_ATTEST_SESSION_AUDIT",
    0x8019: "TPM_ST_ATTEST_TIME",
    0x801A: "TPM_ST_ATTEST_CREATION",
    0x801C: "TPM_ST_ATTEST_NV_DIGEST",
}


def attest_sheet(raw: bytes) -> Sheet:
    """A TPMS_ATTEST: quotes and certifications in full, of other statements the kind.

    Raises:
        WireError: the bytes stop to fit.
    """
    kind = int.from_bytes(raw[4:6], "big")
    if kind in _OTHER_TYPES:
        name = _OTHER_TYPES[kind]
        return Sheet(
            kind="tpms-attest",
            title="TPMS_ATTEST: what a TPM signed",
            size=len(raw),
            remarks=("Decoded are quotes and certifications; of this only the kind is said.",),
            sections=(Section("Head", (Row(name="type", value=f"0x{kind:04x}", note=name),)),),
            document={"attest": {"type": f"0x{kind:04x}", "type_name": name}},
        )
    attest = Attest.parse(raw)
    attested = attest.attested
    quoted = isinstance(attested, QuoteInfo)
    return Sheet(
        kind="tpms-attest",
        title="TPMS_ATTEST: what a TPM signed, " + ("a quote" if quoted else "a certification of a key"),
        size=len(raw),
        remarks=("It counts with the signature over it, by a key that is known.",),
        sections=(Section("Statement", _statement_rows(attest)), _attested_section(attest)),
        document={"attest": _attest_document(attest)},
    )


def signature_sheet(raw: bytes) -> Sheet:
    """A TPMT_SIGNATURE.

    Raises:
        WireError: the bytes stop to fit.
    """
    signature = parse_signature(raw)
    scheme = SCHEMES[signature.scheme]
    name = alg.HASH_NAMES[signature.hash_alg].upper()
    return Sheet(
        kind="tpmt-signature",
        title=f"TPMT_SIGNATURE: {scheme} with {name}",
        size=len(raw),
        sections=(Section("Signature", _signature_rows(signature)),),
        document={"signature": {"scheme": scheme, "hash": alg.HASH_NAMES[signature.hash_alg]}},
    )


def quote_sheet(quote: QuoteEvidence) -> Sheet:
    """A quote with key, signature, registers and event log.

    Raises:
        WireError: one of them is not well formed.
    """
    log = None if quote.event_log is None else EventLog.parse(quote.event_log)
    key = public_sheet(TpmtPublic.parse(quote.ak_public), size=len(quote.ak_public))
    parts = [
        ("attestation key", key),
        ("statement", attest_sheet(quote.attest)),
        ("signature", signature_sheet(quote.signature)),
    ]
    if log is not None and quote.event_log is not None:
        parts.append(("event log", event_log_sheet(log, len(quote.event_log))))
    sections = (Section(f"Registers, {name}", rows) for name, rows in _register_rows(quote.pcrs, log).items())
    return Sheet(
        kind="quote",
        title=f"Quote of a TPM over {_selection(quote.pcrs.selection.names())}",
        size=len(quote.attest),
        remarks=("Nothing here is judged: `verify` does that.",),
        sections=tuple(sections),
        parts=tuple(parts),
        document={
            "pcrs": {
                name: {str(pcr): value.hex() for pcr, value in values.items()}
                for name, values in quote.pcrs.names().items()
            }
        },
    )


def _statement_rows(attest: Attest) -> tuple[Row, ...]:
    clock = attest.clock
    return (
        Row(name="magic", value=ATTEST_MAGIC.hex(), note="TPM_GENERATED_VALUE"),
        Row(name="type", value=f"0x{attest.attested.type:04x}", note=_type_name(attest)),
        Row(name="qualifiedSigner", value=attest.qualified_signer.hex(), note="not the signing key's Name"),
        Row(name="extraData", value=hexadecimal(attest.extra_data) or "empty", note="the nonce of a quote"),
        Row(name="clock", value=f"{clock.clock_ms / 1000:.3f} s", note=f"safe: {yes_no(clock.safe)}"),
        Row(
            name="resetCount", value=str(clock.reset_count), note="plain only for keys of the EK's hierarchy"
        ),
        Row(name="restartCount", value=str(clock.restart_count)),
        Row(name="firmwareVersion", value=f"0x{attest.firmware_version:016x}"),
    )


def _attested_section(attest: Attest) -> Section:
    attested = attest.attested
    if isinstance(attested, QuoteInfo):
        rows = (
            Row(name="PCRs", value=_selection(attested.selection.names())),
            Row(name="pcrDigest", value=attested.pcr_digest.hex(), note="of the values, joined"),
        )
        return Section("Quoted", rows)
    rows = (
        Row(name="name", value=attested.name.hex(), note="of the certified key"),
        Row(name="qualifiedName", value=attested.qualified_name.hex()),
    )
    return Section("Certified", rows)


def _attest_document(attest: Attest) -> dict[str, Any]:
    attested = attest.attested
    document: dict[str, Any] = {
        "type": f"0x{attested.type:04x}",
        "type_name": _type_name(attest),
        "qualified_signer": attest.qualified_signer.hex(),
        "extra_data": attest.extra_data.hex(),
        "clock_ms": attest.clock.clock_ms,
        "reset_count": attest.clock.reset_count,
        "restart_count": attest.clock.restart_count,
        "safe": attest.clock.safe,
        "firmware_version": f"0x{attest.firmware_version:016x}",
    }
    if isinstance(attested, QuoteInfo):
        return document | {"pcrs": attested.selection.names(), "pcr_digest": attested.pcr_digest.hex()}
    return document | {"name": attested.name.hex(), "qualified_name": attested.qualified_name.hex()}


def _type_name(attest: Attest) -> str:
    quoted = isinstance(attest.attested, QuoteInfo)
    return "TPM_ST_ATTEST_QUOTE" if quoted else "TPM_ST_ATTEST_CERTIFY"


def _signature_rows(signature: TpmtSignature) -> tuple[Row, ...]:
    if isinstance(signature, EcdsaSignature):
        return (Row(name="r", value=signature.r.hex()), Row(name="s", value=signature.s.hex()))
    if isinstance(signature, RsaSignature):
        return (Row(name="signature", value=signature.signature.hex()),)
    return (Row(name="HMAC", value=signature.digest.hex()),)


def _register_rows(values: PcrValues, log: EventLog | None) -> dict[str, tuple[Row, ...]]:
    rows = {}
    for bank, digests in zip(values.selection.banks, values.values, strict=True):
        known = log is not None and bank.hash_alg in log.hash_algs
        replay = log.replay(bank.hash_alg) if log is not None and known else None
        rows[bank.name] = tuple(
            Row(name=f"PCR {pcr}", value=value.hex(), note=_replay_note(value, pcr, replay))
            for pcr, value in zip(bank.pcrs, digests, strict=True)
        )
    return rows


def _replay_note(value: bytes, pcr: int, replay: tuple[bytes, ...] | None) -> str:
    if replay is None:
        return ""
    return "as the log replays" if replay[pcr] == value else "the log replays to another value"


def _selection(names: dict[str, list[int]]) -> str:
    return "; ".join(f"{name} {', '.join(map(str, pcrs))}" for name, pcrs in names.items())
