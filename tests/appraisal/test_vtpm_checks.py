import hashlib
from typing import Any

import pytest

from app.appraisal.findings import CheckId, Finding, Outcome
from app.appraisal.vtpm_checks import check_vtpm
from app.wire import guid
from app.wire.manifest import KeyListManifest, parse_manifest
from app.wire.services_manifest import ServiceEntry, ServicesManifest
from app.wire.tpm.public import TpmtPublic
from app.wire.tpm.template import PREFIXES
from app.wire.uefi_mm import UefiMmManifest
from tests.appraisal.subjects import EK, policy, subject

# An attestation key: restricted, signing, RSASSA with SHA-256. No TCG EK template has this.
AK = bytes.fromhex("0001000b00050072000000100014000b0800000000000100") + EK[-256:]
EK_SHA256 = hashlib.sha256(EK).hexdigest()


def manifest(raw: bytes) -> dict[str, Any]:
    return {"manifest": parse_manifest(raw), "manifest_bytes": raw}


def reference(**vtpm: Any) -> dict[str, Any]:
    return {"policy": policy(reference_values={"vtpm": vtpm})}


TWO_KEYS = manifest(KeyListManifest((TpmtPublic.parse(AK), TpmtPublic.parse(EK))).encode())
AK_ONLY = manifest(AK)
MM_ONLY = manifest(UefiMmManifest(2).encode())
SERVICES = manifest(
    ServicesManifest(
        (
            ServiceEntry(guid.SERVICE_VTPM, EK),
            ServiceEntry(guid.SERVICE_UEFI_MM, UefiMmManifest(2).encode()),
        )
    ).encode()
)
NO_SERVICES = manifest(ServicesManifest(()).encode())
NO_EK = manifest(KeyListManifest((TpmtPublic.parse(AK), TpmtPublic.parse(AK[:-1] + b"\x03"))).encode())


def run(*, fresh: bool = True, at_vmpl_0: bool = True, **changes: Any) -> dict[CheckId, Finding]:
    found = check_vtpm(subject(**changes), fresh=fresh, at_vmpl_0=at_vmpl_0)
    return {finding.check: finding for finding in found}


CASES: list[tuple[CheckId, dict[str, Any], Outcome, str]] = [
    (CheckId.VTPM_BINDING, {}, Outcome.PASSED, "vouches for this EK"),
    (CheckId.VTPM_BINDING, {"nonce": None}, Outcome.NOT_REQUESTED, "Without a nonce"),
    (CheckId.VTPM_BINDING, {"fresh": False}, Outcome.FAILED, "REPORT_DATA"),
    (CheckId.VTPM_BINDING, {"at_vmpl_0": False}, Outcome.FAILED, "VMPL"),
    (CheckId.VTPM_BINDING, MM_ONLY, Outcome.WARNED, "nothing of a vTPM"),
    (CheckId.VTPM_BINDING, NO_SERVICES, Outcome.WARNED, "nothing of a vTPM"),
    (CheckId.VTPM_BINDING, SERVICES, Outcome.PASSED, "vouches for this EK"),
    (CheckId.VTPM_MANIFEST_VERSION, {}, Outcome.PASSED, "version 0"),
    (CheckId.VTPM_MANIFEST_VERSION, TWO_KEYS, Outcome.FAILED, "version 1"),
    (
        CheckId.VTPM_MANIFEST_VERSION,
        {**TWO_KEYS, **reference(manifest_versions=["0", "1"])},
        Outcome.PASSED,
        "version 1",
    ),
    (CheckId.VTPM_MANIFEST_VERSION, MM_ONLY, Outcome.NOT_REQUESTED, "nothing of a vTPM"),
    (CheckId.VTPM_MANIFEST_VERSION, SERVICES, Outcome.PASSED, "version 0"),
    (CheckId.VTPM_EK_TEMPLATE, {}, Outcome.PASSED, "L-1"),
    (CheckId.VTPM_EK_TEMPLATE, TWO_KEYS, Outcome.PASSED, "L-1"),
    (CheckId.VTPM_EK_TEMPLATE, AK_ONLY, Outcome.FAILED, "no TCG EK template"),
    (CheckId.VTPM_EK_TEMPLATE, NO_EK, Outcome.FAILED, "no TCG EK template"),
    (CheckId.VTPM_EK_TEMPLATE, reference(ek_templates=["L-1", "L-2"]), Outcome.PASSED, "L-1"),
    (CheckId.VTPM_EK_TEMPLATE, reference(ek_templates=["L-2"]), Outcome.FAILED, "does not accept"),
    (CheckId.VTPM_EK_TEMPLATE, MM_ONLY, Outcome.NOT_REQUESTED, "nothing of a vTPM"),
    (CheckId.VTPM_EK_ENROLLED, {}, Outcome.NOT_REQUESTED, "enrols no EK"),
    (CheckId.VTPM_EK_ENROLLED, reference(ek_sha256=[EK_SHA256]), Outcome.PASSED, "enrolled"),
    (CheckId.VTPM_EK_ENROLLED, reference(ek_sha256=["00" * 32]), Outcome.FAILED, "does not list"),
    (
        CheckId.VTPM_EK_ENROLLED,
        {**NO_EK, **reference(ek_sha256=["00" * 32])},
        Outcome.FAILED,
        "does not list",
    ),
    (CheckId.VTPM_EK_ENROLLED, MM_ONLY, Outcome.NOT_REQUESTED, "nothing of a vTPM"),
    (CheckId.VTPM_PCRS, {}, Outcome.NOT_REQUESTED, "knows no values"),
]


@pytest.mark.parametrize(("check", "changes", "outcome", "word"), CASES)
def test_vtpm_check(check: CheckId, changes: dict[str, Any], outcome: Outcome, word: str) -> None:
    finding = run(**changes)[check]
    assert (finding.outcome, word in finding.why) == (outcome, True), finding


@pytest.mark.parametrize("bit", range(32))
def test_an_ek_with_one_attribute_bit_changed_is_no_ek(bit: int) -> None:
    attributes = int.from_bytes(EK[4:8], "big") ^ 1 << bit
    changed = EK[:4] + attributes.to_bytes(4, "big") + EK[8:]
    assert not changed.startswith(PREFIXES["L-1"])
    if not 1 << bit & 0x000F0CF6:
        return  # an undefined bit does not even parse: tests/wire
    assert run(**manifest(changed))[CheckId.VTPM_EK_TEMPLATE].outcome is Outcome.FAILED
