"""A first appraisal policy, written from observed evidence.

What was observed becomes the reference value or the floor; what would make the guest or its
platform weaker than the built-in policy allows is never written down as allowed.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from app.appraisal.policy import PlatformInfoWish, TcbFloor, default_policy
from app.errors import WireError
from app.trust.names import VekKind
from app.trust.vek import Vek
from app.wire.manifest import EkManifest, KeyListManifest
from app.wire.product import ProductLine
from app.wire.report import AttestationReport
from app.wire.tcb import TcbVersion
from app.wire.tpm.pcr import PcrValues
from app.wire.tpm.public import TpmtPublic

_FIRMWARE_PCRS = range(8)  # TCG PC Client Platform Firmware Profile, PCR usage
_DEMANDS = ("single_socket", "mem_aes_256_xts", "rapl_dis", "ciphertext_hiding", "page_swap_disable")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the policy is written from.

    Args:
        source: the file.
        standing: one line on whether it was verified, for the head of the policy.
        vek: the leaf certificate, if one is at hand.
        vtpm: the vTPM's manifest, if there is one.
        ek: the EK in it.
        pcrs: the registers of a quote that holds, if there was one.
    """

    source: str
    standing: str
    at: datetime
    report: AttestationReport
    line: ProductLine | None
    vek: Vek | None
    vtpm: EkManifest | KeyListManifest | None
    ek: TpmtPublic | None
    ek_sha256: str | None
    has_manifest: bool
    pcrs: PcrValues | None = None


def draft_policy(seen: Observation, *, policy_id: str, name: str, enrol_ek: bool) -> str:
    """The policy as commented YAML.

    Args:
        seen: the observation.
        policy_id: the policy's id.
        name: of the launch digest.
        enrol_ek: demand this very EK.
    """
    lines = [
        *_head(seen),
        "version: 1",
        f"id: {policy_id}",
        *_root_of_trust(seen),
        "policy:",
        f"  minimum_report_version: {seen.report.version}",
        *_guest_policy(seen.report),
        *_vmpl(seen),
        *_floors(seen),
        *_firmware(seen.report),
        *_platform_info(seen.report),
        *_identity(seen.report),
        *_quote(seen.pcrs),
        *_reference_values(seen, name=name, enrol_ek=enrol_ek),
    ]
    return "\n".join(lines) + "\n"


def _head(seen: Observation) -> Iterator[str]:
    report = seen.report
    part = f"{seen.line or 'a product line that was not told'}, CPUID {report.cpuid or 'not told'}"
    yield "# Appraisal policy of svsm-attest, written from observed evidence."
    yield "#"
    yield "# IT TRUSTS WHAT WAS OBSERVED. Nothing here says that what was observed was right: compare the"
    yield "# launch digest with that of the image you meant to start, and read every line before use."
    yield "#"
    yield f"# Observed: {_comment(seen.source)} ({part}), at {seen.at:%Y-%m-%dT%H:%M:%SZ}"
    yield f"# {_comment(seen.standing)}"
    yield ""


def _root_of_trust(seen: Observation) -> Iterator[str]:
    masked = not any(seen.report.chip_id) and (seen.vek is None or seen.vek.kind is not VekKind.VLEK)
    yield "root_of_trust:"
    if seen.line is not None:
        yield f"  product_lines: [{seen.line}]"
    yield "  check_crl: true"
    yield "  crl_unavailable: warn  # deny: no verdict without a current CRL"
    if masked:
        yield "  # OBSERVED: the host masks CHIP_ID, so the certificate cannot be held against the chip."
        yield "  allow_masked_chip_id: false"


def _guest_policy(report: AttestationReport) -> Iterator[str]:
    policy = report.policy
    yield "  guest_policy:"
    for flag, harm in (
        ("debug", "the host may read the guest's memory"),
        ("migrate_ma", "a migration agent may move the guest"),
        ("cxl", "memory may lie on CXL devices"),
    ):
        observed = f"  # OBSERVED: allowed ({harm}); refused here" if getattr(policy, flag) else ""
        yield f"    {flag}: false{observed}"
    yield f"    smt: {_bool(policy.smt)}"
    yield f"    abi_major: {policy.abi_major}"
    yield f"    abi_minor: {policy.abi_minor}"
    yield "    # Demands that the guest makes of its platform:"
    for flag in _DEMANDS:
        yield f"    {flag}: {_bool(getattr(policy, flag))}"


def _vmpl(seen: Observation) -> Iterator[str]:
    if not seen.has_manifest:
        yield f"  vmpl: {seen.report.vmpl}  # of a report without a manifest"


def _floors(seen: Observation) -> Iterator[str]:
    report, line = seen.report, seen.line
    if line is None:
        yield "  # No TCB floor: the report does not tell its product line, so its TCBs cannot be read."
        return
    try:
        general = _least(line, report.reported_tcb, report.committed_tcb)
        launch = _least(line, report.launch_tcb, report.launch_tcb)
    except WireError as error:
        yield f"  # No TCB floor: a TCB of this report is none of {line} ({_comment(str(error))})."
        return
    yield "  # The least of REPORTED_TCB and COMMITTED_TCB. Raise it when AMD publishes a bulletin."
    yield "  minimum_tcb:"
    yield f"    {line}: {_levels(general)}"
    if launch != general:
        yield "  minimum_launch_tcb:"
        yield f"    {line}: {_levels(launch)}"
    recommended = default_policy().policy.recommended_tcb.get(line)
    if recommended is not None:
        short = not TcbVersion(**general).covers(recommended.tcb())
        yield f"  # As in the built-in policy; less warns.{' OBSERVED: less.' if short else ''}"
        yield "  recommended_tcb:"
        yield f"    {line}: {{{_asked(recommended)}}}"
    if report.cpuid is not None:
        yield "  # The microcode level compares only within one family/model/stepping: add your other parts."
        yield "  minimum_microcode:"
        yield f'    "{report.cpuid}": {min(general["microcode"], launch["microcode"])}'


def _least(line: ProductLine, one: bytes, other: bytes) -> dict[str, int]:
    first = TcbVersion.parse(one, line.tcb_layout).components()
    second = TcbVersion.parse(other, line.tcb_layout).components()
    return {name: min(first[name], second[name]) for name in first}


def _levels(levels: dict[str, int]) -> str:
    return "{" + ", ".join(f"{name}: {level}" for name, level in levels.items() if name != "microcode") + "}"


def _asked(floor: TcbFloor) -> str:
    levels = floor.tcb().components()
    return ", ".join(f"{name}: {level}" for name, level in levels.items() if level)


def _firmware(report: AttestationReport) -> Iterator[str]:
    committed = report.committed_version
    yield f'  minimum_version: "{committed.major}.{committed.minor}"'
    yield f"  minimum_build: {committed.build}"
    if committed != report.current_version or report.committed_tcb != report.current_tcb:
        yield "  # OBSERVED: provisional firmware, which the host can roll back; it warns."
        yield "  permit_provisional_firmware: false"


def _platform_info(report: AttestationReport) -> Iterator[str]:
    flags = report.platform_info.flags()
    wishes = {name for name, wish in PlatformInfoWish() if wish is True}
    yield f"  platform_info:  # observed: 0x{report.platform_info.raw:x}"
    for name, observed in flags.items():
        if name in wishes:
            yield f"    {name}: true" + ("" if observed else "  # OBSERVED: false; it warns")
        else:
            yield f"    {name}: any  # observed: {_bool(observed)}"


def _identity(report: AttestationReport) -> Iterator[str]:
    yield f"  minimum_guest_svn: {report.guest_svn}"
    yield "  # Observed as well; take the # away to demand it."
    if any(report.id_key_digest):
        yield f'  # trusted_id_key_hashes: ["{report.id_key_digest.hex()}"]'
    if report.key_info.author_key_en:
        yield f'  # trusted_author_key_hashes: ["{report.author_key_digest.hex()}"]'
    yield f'  # host_data: ["{report.host_data.hex()}"]'
    yield f'  # family_id: "{report.family_id.hex()}"'
    yield f'  # image_id: "{report.image_id.hex()}"'
    if any(report.chip_id):
        yield f'  # chip_ids: ["{report.chip_id.hex()}"]'


def _quote(pcrs: PcrValues | None) -> Iterator[str]:
    if pcrs is not None:
        yield "  vtpm:"
        yield "    require_quote: true"
        yield f"    pcrs: {json.dumps(pcrs.selection.names())}"
        yield "    # Both need the event log:"
        yield "    # require_event_log: true"
        yield "    # secure_boot: true"


def _known_pcrs(pcrs: PcrValues) -> Iterator[str]:
    yield "    # Registers that firmware alone writes. They change with it and with its settings; take the"
    yield "    # others with care: boot loader, kernel and operating system change them more often."
    yield "    pcrs:"
    for bank, registers in pcrs.names().items():
        firmware = {pcr: value for pcr, value in registers.items() if pcr in _FIRMWARE_PCRS}
        if firmware:
            yield f"      {bank}:"
            yield from (f'        "{pcr}": ["{value.hex()}"]' for pcr, value in firmware.items())


def _reference_values(seen: Observation, *, name: str, enrol_ek: bool) -> Iterator[str]:
    yield "reference_values:"
    yield "  measurements:"
    yield f'    - value: "{seen.report.measurement.hex()}"'
    yield f"      name: {json.dumps(name)}"
    yield "      state: allowed"
    if not seen.has_manifest:
        return
    yield "      # false once you know that this SVSM was built without its `attest` feature:"
    yield "      # attest_feature: false"
    yield "  vtpm:"
    version = seen.vtpm.version if seen.vtpm is not None else 0
    yield f'    manifest_versions: ["{version}"]'
    if seen.ek is not None and seen.ek.template is not None:
        yield f"    ek_templates: [{seen.ek.template}]"
    if seen.ek_sha256 is not None:
        mark = "" if enrol_ek else "# "
        yield "    # Only an SVSM that keeps its vTPM's state has the same EK after a restart."
        yield f'    {mark}ek_sha256: ["{seen.ek_sha256}"]'
    if seen.pcrs is not None and any(
        pcr in _FIRMWARE_PCRS for bank in seen.pcrs.selection.banks for pcr in bank.pcrs
    ):
        yield from _known_pcrs(seen.pcrs)


def _bool(value: object) -> str:
    return "true" if value else "false"


def _comment(text: str) -> str:
    """Text that cannot leave its comment line."""
    return "".join(char if char.isprintable() else "?" for char in text)
