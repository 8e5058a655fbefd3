"""A TPM's quote as it is appraised, and what a relying party expects of one."""

from dataclasses import dataclass
from typing import Self

from app.appraisal.key_proof import KeyProof, NoKeyProof
from app.errors import WireError, member
from app.wire.event_log import EventLog
from app.wire.evidence import QuoteEvidence
from app.wire.session import NO_CHANNEL, Channel
from app.wire.tpm.attest import STRUCTURE, TYPE_OFFSET, Attest, QuoteInfo
from app.wire.tpm.pcr import PcrSelection, PcrValues
from app.wire.tpm.public import TpmtPublic
from app.wire.tpm.signature import TpmtSignature, parse_signature


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """The parts of a quote, read."""

    ak: TpmtPublic
    attest: Attest
    attest_bytes: bytes  # what is signed
    info: QuoteInfo  # of `attest`: what was quoted
    signature: TpmtSignature
    pcrs: PcrValues
    event_log: EventLog | None

    @classmethod
    def parse(cls, evidence: QuoteEvidence) -> Self:
        """Read every part.

        Raises:
            WireError: a malformed part, or a TPM's statement about something else than PCRs; names
                the member of the evidence.
        """
        with member("/evidence/quote/ak_public"):
            ak = TpmtPublic.parse(evidence.ak_public)
        with member("/evidence/quote/attest"):
            attest = Attest.parse(evidence.attest)
            if not isinstance(attest.attested, QuoteInfo):
                raise WireError(STRUCTURE, TYPE_OFFSET, "a certification, want a quote")
        with member("/evidence/quote/signature"):
            signature = parse_signature(evidence.signature)
        with member("/evidence/quote/event_log"):
            event_log = EventLog.parse(evidence.event_log) if evidence.event_log is not None else None
        return cls(
            ak=ak,
            attest=attest,
            attest_bytes=evidence.attest,
            info=attest.attested,
            signature=signature,
            pcrs=evidence.pcrs,
            event_log=event_log,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BootCounters:
    """Where a relying party saw a TPM last; of which TPM, if it says so."""

    reset_count: int  # 32 bit, as every count here
    restart_count: int
    ek_name: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteExpectation:
    """What only the relying party knows of the quote that it asked for; the policy knows the rest."""

    pcrs: PcrSelection | None = None  # None: the policy's
    channel: Channel = NO_CHANNEL  # as the relying party saw it, never as the evidence says
    key_proof: KeyProof | NoKeyProof | None = None  # None: no challenge was answered
    last_boot: BootCounters | None = None


NO_EXPECTATION = QuoteExpectation()
