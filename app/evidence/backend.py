"""What every source of evidence offers, and the words in which it says why it has none."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from app.wire.evidence import Evidence, Service


class Cause(StrEnum):
    """Why a platform gave no evidence: the stable `cause` of every BackendError.

    Ordered as a diagnosis goes: from what is missing altogether to what one request met.
    """

    CONFIGFS_NOT_MOUNTED = "configfs-not-mounted"
    TSM_MISSING = "tsm-missing"  # no module registered the tsm directory
    NO_PROVIDER = "no-provider"  # nothing behind it, usually sev-guest not loaded
    WRONG_PROVIDER = "wrong-provider"  # something other than sev-guest behind it
    PERMISSION = "permission-denied"
    NO_SVSM = "no-svsm"  # or a kernel that cannot ask one
    PRIVILEGE_FLOOR = "privilege-floor"
    KEY_WIPED = "key-wiped"  # no report until the VM restarts
    ENDORSEMENT_AUTHORIZATION = "endorsement-authorization-set"
    ENDORSEMENT_DISABLED = "endorsement-hierarchy-disabled"
    VTPM_NOT_STARTED = "vtpm-not-started"
    SVSM_REFUSED = "svsm-refused"
    REPORT_REFUSED = "report-refused"  # by the security processor, without an SVSM between
    HOST_THROTTLED = "host-throttled"
    CERTIFICATES_TOO_LARGE = "certificates-too-large"
    BLOB_TOO_LARGE = "blob-too-large"
    INTERFERENCE = "interference"  # always a BackendBusyError
    TIMEOUT = "timeout"
    STALLED = "device-stalled"  # an earlier request timed out and has not come back
    CLOSED = "closed"
    PLATFORM = "platform-error"
    # What a platform answered, but no verifier would take:
    REPORT_MALFORMED = "report-malformed"
    REPORT_NOT_BOUND = "report-not-bound"
    REPORT_NOT_VMPL0 = "report-not-vmpl0"
    MANIFEST_MALFORMED = "manifest-malformed"
    MANIFEST_UNEXPECTED = "manifest-unexpected"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeCheck:
    """One line of a probe; `remedy` says what to do where `ok` is false, or something optional is missing."""

    name: str
    ok: bool
    detail: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """A backend's prerequisites, in the order in which one builds on the other."""

    backend: str
    simulated: bool
    checks: tuple[ProbeCheck, ...]

    @property
    def ready(self) -> bool:
        """Did every check report, and well? A probe without checks proves nothing."""
        return bool(self.checks) and all(check.ok for check in self.checks)


class EvidenceBackend(Protocol):
    """A source of evidence. It judges nothing."""

    @property
    def name(self) -> str:
        """What evidence and logs call this backend, such as `configfs`."""

    @property
    def simulated(self) -> bool:
        """True where no hardware stands behind the evidence."""

    async def collect(self, nonce: bytes, service: Service, manifest_version: int = 0) -> Evidence:
        """Ask the platform for a report bound to `nonce` and to the manifest of `service`.

        Args:
            nonce: exactly 64 bytes, passed through as is: the SVSM, not the caller, computes
                REPORT_DATA = SHA-512(nonce || manifest).
            service: what the SVSM shall vouch for.
            manifest_version: what to ask for (u32); what came back is in the evidence.

        Raises:
            NonceError: another length.
            BackendBusyError: another user of the platform interfered. Safe to repeat.
            BackendError: no evidence; `cause` is a member of Cause.
        """

    async def probe(self) -> ProbeReport:
        """Look at the prerequisites without asking the device for anything. Never raises BackendError."""

    async def aclose(self) -> None:
        """Take no more requests and wait, within bounds, for the one in flight."""
