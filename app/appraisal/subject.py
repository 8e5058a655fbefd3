"""The subject of one appraisal: everything that checks look at, read once."""

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from app.appraisal.findings import Profile
from app.appraisal.policy import Policy
from app.appraisal.quote import NO_EXPECTATION, Quote, QuoteExpectation
from app.errors import WireError
from app.trust.chain import ChainStatus
from app.trust.crl import RevocationStatus
from app.trust.endorsements import Endorsements
from app.wire.manifest import EkManifest, KeyListManifest, Manifest, manifest_ek, vtpm_manifest
from app.wire.product import ProductLine
from app.wire.report import AttestationReport
from app.wire.session import Session
from app.wire.tcb import TcbVersion
from app.wire.tpm.public import TpmtPublic


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Evidence, endorsements, policy and time, with what follows from them."""

    report: AttestationReport
    manifest: Manifest | None
    manifest_bytes: bytes | None
    nonce: bytes | None  # 64 bytes; of a bare report: the expected REPORT_DATA
    endorsements: Endorsements
    chain: ChainStatus | None  # None where there is no leaf certificate
    revocation: RevocationStatus
    policy: Policy
    at: datetime
    quote: Quote | None = None
    expectation: QuoteExpectation = NO_EXPECTATION

    @property
    def profile(self) -> Profile:
        """SVSM evidence has a manifest, a bare report has none."""
        return Profile.SNP if self.manifest is None else Profile.SVSM

    @cached_property
    def session(self) -> Session | None:
        """The session of report and quote; None without a quote, and where no nonce is known."""
        if self.quote is None or self.nonce is None:
            return None
        return Session(self.nonce, self.quote.ak.name, self.expectation.channel)

    @property
    def report_nonce(self) -> bytes | None:
        """The 64 bytes that the SVSM was asked with, as far as the relying party knows."""
        return self.session.report_nonce if self.session else self.nonce

    @cached_property
    def certified_line(self) -> ProductLine | None:
        """The product line whose chain endorses the signing key."""
        return self.chain.vek.line if self.chain else None

    @cached_property
    def line(self) -> ProductLine | None:
        """The product line by CPUID; before report version 3 there is only the certificate's word."""
        return self.report.cpuid.product_line if self.report.cpuid else self.certified_line

    def tcb(self, raw: bytes) -> TcbVersion | None:
        """A TCB of the report, or None where the line is unknown or its layout does not fit."""
        if self.line is None:
            return None
        try:
            return TcbVersion.parse(raw, self.line.tcb_layout)
        except WireError:
            return None

    @cached_property
    def tcbs(self) -> dict[str, TcbVersion | None]:
        """The four TCBs by name."""
        report = self.report
        return {
            "current": self.tcb(report.current_tcb),
            "reported": self.tcb(report.reported_tcb),
            "committed": self.tcb(report.committed_tcb),
            "launch": self.tcb(report.launch_tcb),
        }

    @cached_property
    def vtpm(self) -> EkManifest | KeyListManifest | None:
        """The vTPM's part of the manifest."""
        return None if self.manifest is None else vtpm_manifest(self.manifest)

    @cached_property
    def ek(self) -> TpmtPublic | None:
        """The EK in the manifest, if there is one."""
        return None if self.manifest is None else manifest_ek(self.manifest)
