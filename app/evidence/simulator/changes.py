"""The changes that faults are made of, each to one thing."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from app.evidence.simulator.authority import CrlRequest
from app.evidence.simulator.ek import EkSource
from app.evidence.simulator.processor import CSP_ID, PARTS
from app.evidence.simulator.vault import Vault
from app.evidence.simulator.vek_profile import VekRequest
from app.evidence.vtpm.ak_kind import ATTRIBUTES
from app.wire.binding import expected_report_data
from app.wire.bits import PlatformInfo
from app.wire.event_log import EventLog
from app.wire.evidence import QuoteEvidence
from app.wire.manifest import KeyListManifest
from app.wire.product import ProductLine
from app.wire.report import REPORT_SIZE, SIGNED_SIZE, AttestationReport
from app.wire.tpm import algorithms as alg
from app.wire.tpm.pcr import PcrSelection, PcrValues
from app.wire.tpm.public import EccKey, TpmtPublic

ReportChange = Callable[[AttestationReport], AttestationReport]

_OTHER_CSP_ID = "CN=other.simulated.invalid"
_AZURE_ABI_MINOR = 31
_FIXED_TPM = 0x00000002
_RESTRICTED = 0x00010000
_CODE = slice(6, 10)  # of a TPM command
_CREATE_PRIMARY = bytes.fromhex("00000131")
_TWO_YEARS = timedelta(days=2 * 365)


def flipping(offset: int) -> Callable[[bytes], bytes]:
    """One bit of the byte at `offset` is the other one; a negative offset counts from the end."""

    def flip(raw: bytes) -> bytes:
        changed = bytearray(raw)
        changed[offset] ^= 1
        return bytes(changed)

    return flip


def inverted(raw: bytes) -> bytes:
    """Every bit is the other one."""
    return bytes(byte ^ 0xFF for byte in raw)


def without_signature(report: bytes) -> bytes:
    """Zeros where the signature would be."""
    return report[:SIGNED_SIZE].ljust(REPORT_SIZE, b"\0")


def setting(**fields: Any) -> ReportChange:
    """These fields of the report have these values."""
    return lambda report: replace(report, **fields)


def inverting(*names: str) -> ReportChange:
    """Every bit of these fields is the other one."""
    return _mapping(inverted, names)


def ageing(*names: str) -> ReportChange:
    """These TCBs are of long ago: every component is half of what it was."""
    return _mapping(lambda tcb: bytes(component // 2 for component in tcb), names)


def advancing(*names: str) -> ReportChange:
    """These TCBs have one more microcode patch than the others; it is the last byte in both layouts."""
    return _mapping(lambda tcb: tcb[:-1] + bytes([tcb[-1] + 1]), names)


def _mapping(change: Callable[[bytes], bytes], names: tuple[str, ...]) -> ReportChange:
    def apply(report: AttestationReport) -> AttestationReport:
        fields: dict[str, Any] = {name: change(getattr(report, name)) for name in names}
        return replace(report, **fields)

    return apply


def provisional(report: AttestationReport) -> AttestationReport:
    """Newer firmware runs, and is not committed yet."""
    version = report.current_version
    report = replace(report, current_version=replace(version, build=version.build + 1))
    return advancing("current_tcb")(report)


def toggling_policy(name: str) -> ReportChange:
    """That bit of the guest policy is the other one."""

    def toggle(report: AttestationReport) -> AttestationReport:
        policy = report.policy
        return replace(report, policy=replace(policy, **{name: not getattr(policy, name)}))

    return toggle


def toggling_abi(report: AttestationReport) -> AttestationReport:
    """The guest policy asks for no least ABI where it asked for one, and the other way round."""
    asks = report.policy.abi_major or report.policy.abi_minor
    minor = 0 if asks else _AZURE_ABI_MINOR
    return replace(report, policy=replace(report.policy, abi_major=0, abi_minor=minor))


def toggling_platform(name: str) -> ReportChange:
    """That bit of PLATFORM_INFO is the other one."""
    bit = next(bit for bit in (1 << number for number in range(64)) if PlatformInfo(bit).flags()[name])
    return lambda report: replace(report, platform_info=PlatformInfo(report.platform_info.raw ^ bit))


def key_info(*, signing_key: int | None = None, mask_chip_key: bool = False) -> ReportChange:
    """KEY_INFO names that key, or says that the key is masked."""

    def change(report: AttestationReport) -> AttestationReport:
        info = replace(report.key_info, mask_chip_key=mask_chip_key)
        return replace(
            report, key_info=info if signing_key is None else replace(info, signing_key=signing_key)
        )

    return change


def other_signing_key(report: AttestationReport) -> AttestationReport:
    """KEY_INFO names a VLEK where a VCEK signs, and the other way round."""
    return key_info(signing_key=1 - report.key_info.signing_key)(report)


def other_line(report: AttestationReport) -> AttestationReport:
    """CPUID fields of a Genoa part, or of a Milan part where it is a Genoa part."""
    line = ProductLine.GENOA
    if report.cpuid is not None and report.cpuid.product_line is line:
        line = ProductLine.MILAN
    return replace(report, cpuid=PARTS[line].cpuid)


def version_2(report: AttestationReport) -> AttestationReport:
    """The report as older firmware writes it: no CPUID, no mitigation vectors."""
    return replace(report, version=2, cpuid=None, launch_mit_vector=None, current_mit_vector=None)


def other_tcb(leaf: VekRequest) -> VekRequest:
    """A certificate for another version of the SNP firmware."""
    return replace(leaf, tcb=replace(leaf.tcb, snp=leaf.tcb.snp ^ 1))


def other_owner(leaf: VekRequest) -> VekRequest:
    """A certificate for another chip, or for another provider."""
    if leaf.hwid is None:
        return replace(leaf, csp_id=_OTHER_CSP_ID)
    return replace(leaf, hwid=inverted(leaf.hwid))


def two_owners(leaf: VekRequest) -> VekRequest:
    """A certificate that names both a chip and a provider, which AMD never issues."""
    return replace(leaf, hwid=leaf.hwid or bytes(64), csp_id=leaf.csp_id or CSP_ID)


def expired(leaf: VekRequest) -> VekRequest:
    """A certificate whose time is over since the day on which a good one would begin."""
    return replace(leaf, not_before=leaf.not_before - _TWO_YEARS, not_after=leaf.not_before)


def not_yet_valid(leaf: VekRequest) -> VekRequest:
    """A certificate that begins in two years."""
    return replace(leaf, not_before=leaf.not_before + _TWO_YEARS, not_after=leaf.not_after + _TWO_YEARS)


def pkcs1(leaf: VekRequest) -> VekRequest:
    """A certificate signed with PKCS #1 v1.5, which AMD never does."""
    return replace(leaf, pss=False)


def stale(crl: CrlRequest) -> CrlRequest:
    """A CRL whose successor is overdue."""
    return replace(crl, this_update=crl.this_update - _TWO_YEARS, next_update=crl.this_update)


def bind_other_nonce(nonce: bytes, manifest: bytes) -> bytes:
    """REPORT_DATA as if the report had been asked for with another nonce."""
    return expected_report_data(inverted(nonce), manifest)


def bind_other_manifest(nonce: bytes, manifest: bytes) -> bytes:
    """REPORT_DATA as if the vTPM had another key."""
    return expected_report_data(nonce, inverted(manifest))


def bind_swapped(nonce: bytes, manifest: bytes) -> bytes:
    """REPORT_DATA with the manifest hashed before the nonce."""
    return hashlib.sha512(manifest + nonce).digest()


def bind_nonce_alone(nonce: bytes, _manifest: bytes) -> bytes:
    """REPORT_DATA that says nothing of the manifest."""
    return nonce


def key_list(ek: EkSource, vault: Vault) -> bytes:
    """A manifest of version 1: the EK and an attestation key."""
    point = vault.ec_key("AK", ec.SECP256R1()).public_key().public_numbers()
    ak = TpmtPublic(
        name_alg=alg.SHA256,
        attributes=ATTRIBUTES,
        auth_policy=b"",
        symmetric_bits=None,
        scheme=alg.ECDSA,
        scheme_hash=alg.SHA256,
        key=EccKey(curve=alg.P256, x=point.x, y=point.y),
    )
    return KeyListManifest((TpmtPublic.parse(ek.public()), ak)).encode()


def movable_ek(ek: EkSource, _vault: Vault) -> bytes:
    """An EK that lacks fixedTPM: it could be anywhere."""
    public = TpmtPublic.parse(ek.public())
    return replace(public, attributes=public.attributes & ~_FIXED_TPM).encode()


def unrestricted(command: bytes) -> bytes:
    """A key that signs whatever it is given is made where the guest asked for an attestation key."""
    template = command.find(ATTRIBUTES.to_bytes(4, "big"))
    if command[_CODE] != _CREATE_PRIMARY or template < 0:
        return command
    attributes = (ATTRIBUTES & ~_RESTRICTED).to_bytes(4, "big")
    return command[:template] + attributes + command[template + len(attributes) :]


def fewer(selection: PcrSelection) -> PcrSelection:
    """The last register is left out; where it is the only one of its bank, another one is quoted."""
    *others, last = selection.banks
    return PcrSelection((*others, replace(last, pcrs=last.pcrs[:-1] or (last.pcrs[0] ^ 1,))))


def quote_signature(quote: QuoteEvidence) -> QuoteEvidence:
    """One bit of the quote's signature is wrong."""
    return replace(quote, signature=flipping(-1)(quote.signature))


def quoted_value(quote: QuoteEvidence) -> QuoteEvidence:
    """One bit of the first register's value is wrong."""
    banks = quote.pcrs.names()
    registers = next(iter(banks.values()))
    pcr = next(iter(registers))
    registers[pcr] = flipping(0)(registers[pcr])
    return replace(quote, pcrs=PcrValues.of(banks))


def forgetful(log: EventLog) -> EventLog:
    """The log leaves out the last that was measured."""
    return replace(log, events=log.events[:-1])
