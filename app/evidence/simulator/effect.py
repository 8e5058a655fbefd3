"""What a fault can do: one seam for each part of the simulator."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import TypeVar

from app.evidence.simulator.authority import CrlRequest
from app.evidence.simulator.ek import EkSource
from app.evidence.simulator.measured_boot import USUAL_BOOT, Boot
from app.evidence.simulator.vault import Vault
from app.evidence.simulator.vek_profile import VekRequest
from app.wire.binding import expected_report_data
from app.wire.event_log import EventLog
from app.wire.evidence import QuoteEvidence
from app.wire.report import AttestationReport
from app.wire.tpm.pcr import PcrSelection

T = TypeVar("T")


def same(value: T) -> T:
    """No change."""
    return value


def ek_alone(ek: EkSource, _vault: Vault) -> bytes:
    """The vTPM's manifest of version 0: nothing but the EK."""
    return ek.public()


@dataclass(frozen=True, slots=True)
class Effect:
    """How a simulator with this fault departs from one without; the defaults depart in nothing.

    `also` are the checks that fail beside the one that the fault is named after.
    """

    what: str
    _: KW_ONLY
    also: tuple[str, ...] = ()
    report: Callable[[AttestationReport], AttestationReport] = same  # before it is signed
    signed_report: Callable[[bytes], bytes] = same
    leaf: Callable[[VekRequest], VekRequest] = same
    leaf_der: Callable[[bytes], bytes] = same
    leaf_mislabelled: bool = False  # listed as the other kind in the certificate table
    crl: Callable[[CrlRequest], CrlRequest] = same
    crl_der: Callable[[bytes], bytes] = same
    revoked: bool = False  # the CRL lists both intermediates
    crl_withheld: bool = False
    impostor: bool = False  # an authority that bears the same names vouches for everything
    other_chip: bool = False
    bind: Callable[[bytes, bytes], bytes] = expected_report_data
    vtpm_manifest: Callable[[EkSource, Vault], bytes] = ek_alone
    other_ek: bool = False  # the vTPM has another seed than it always had
    boot: Boot = USUAL_BOOT  # and measures
    event_log: Callable[[EventLog], EventLog] = same
    command: Callable[[bytes], bytes] = same  # of the guest, before it reaches the TPM
    reboots: bool = False  # the VM boots again after every quote
    qualifying: Callable[[bytes], bytes] = same  # of a quote
    selection: Callable[[PcrSelection], PcrSelection] = same  # of a quote
    quote: Callable[[QuoteEvidence], QuoteEvidence] = same  # once the TPM has made it
    proof: Callable[[bytes], bytes] = same  # that the attestation key is in the same TPM as the EK
    kds_status: int | None = None  # the KDS answers this to everything, and evidence has no certificates
    vcek_only: bool = False  # about the chip's own key or id, which a VLEK's report has not
    since_version: int = 0  # about fields that older reports have not
    needs_tpm: bool = False  # about quotes, which a software key has not


NO_EFFECT = Effect("nothing is wrong")
