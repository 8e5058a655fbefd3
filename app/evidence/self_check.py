"""What an attester checks in its own evidence before it hands it out.

This is no appraisal: it trusts the platform, and catches a request that went to the wrong
place. A refused GUID that leaves the services table behind, a provider that is not the SVSM,
a report that answers somebody else's nonce: all of them look like success to the caller.
"""

import hmac

from app.errors import BackendError, WireError
from app.evidence.backend import Cause
from app.wire.binding import SVSM_VMPL, expected_report_data
from app.wire.evidence import Service
from app.wire.manifest import KIND_NAMES, EkManifest, KeyListManifest, Manifest, parse_manifest
from app.wire.report import AttestationReport
from app.wire.services_manifest import ServicesManifest
from app.wire.uefi_mm import UefiMmManifest

_EXPECTED: dict[Service, tuple[type[Manifest], ...]] = {
    # Which version of a vTPM manifest an SVSM gives is its own choice: old ones ignore the request.
    Service.VTPM: (EkManifest, KeyListManifest),
    Service.UEFI_MM: (UefiMmManifest,),
    Service.ALL: (ServicesManifest,),
}


def check_own_evidence(
    report: bytes, manifest: bytes, *, nonce: bytes, service: Service
) -> tuple[AttestationReport, Manifest]:
    """The parsed report and manifest, if they are what was asked for.

    Raises:
        BackendError: the report does not parse, was not made at VMPL 0, or does not carry
            SHA-512(nonce || manifest); or the manifest does not parse or is of another kind.
    """
    parsed = _parse_report(report)
    if parsed.vmpl != SVSM_VMPL:
        raise BackendError(
            Cause.REPORT_NOT_VMPL0,
            f"the report was made at VMPL 0x{parsed.vmpl:x}, not 0: no SVSM vouches for it",
            "Check that the request reaches the SVSM: the VM must have booted through one, and the kernel "
            "must route reports to it",
        )
    if not hmac.compare_digest(parsed.report_data, expected_report_data(nonce, manifest)):
        raise BackendError(
            Cause.REPORT_NOT_BOUND,
            "REPORT_DATA is not SHA-512(nonce || manifest): the report answers another request",
            "Make sure that nothing else writes to this service's report entries, then ask again",
        )
    return parsed, _parse_manifest(manifest, service)


def _parse_report(raw: bytes) -> AttestationReport:
    try:
        return AttestationReport.parse(raw)
    except WireError as error:
        raise BackendError(
            Cause.REPORT_MALFORMED,
            f"the platform's report is not one ({error})",
            "Look for firmware and kernel updates: an all-zero or unknown report means that the request "
            "failed below the kernel",
        ) from error


def _parse_manifest(raw: bytes, service: Service) -> Manifest:
    try:
        manifest = parse_manifest(raw)
    except WireError as error:
        raise BackendError(
            Cause.MANIFEST_MALFORMED,
            f"the SVSM's manifest is not one that this version knows ({error})",
            "Check the SVSM's version: `svsm-attest inspect` on the manifest says what is known",
        ) from error
    if not isinstance(manifest, _EXPECTED[service]):
        wanted = " or ".join(KIND_NAMES[kind] for kind in _EXPECTED[service])
        raise BackendError(
            Cause.MANIFEST_UNEXPECTED,
            f"asked for {service.value}, the SVSM answered with a {KIND_NAMES[type(manifest)]}, not {wanted}",
            "Make sure that nothing else writes to this service's report entries, then ask again",
        )
    return manifest
