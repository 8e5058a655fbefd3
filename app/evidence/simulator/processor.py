"""A security processor in software: it derives its keys like AMD's and signs reports with them.

Source: AMD 56860 (SEV-SNP Firmware ABI), MSG_REPORT_REQ; AMD 57230, VCEK and VLEK.
"""

import secrets
from dataclasses import dataclass, replace
from functools import lru_cache

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.evidence.simulator.effect import NO_EFFECT, Effect
from app.evidence.simulator.launch import Launch
from app.trust.names import VekKind
from app.wire.bits import PlatformInfo
from app.wire.product import Cpuid, ProductLine
from app.wire.report import (
    CHIP_ID_SIZE,
    CPUID_SINCE,
    MITIGATION_SINCE,
    REPORT_DATA_SIZE,
    SIGNING_KEY_VCEK,
    SIGNING_KEY_VLEK,
    AttestationReport,
    FirmwareVersion,
    KeyInfo,
    Signature,
)
from app.wire.tcb import TcbVersion

REPORT_VERSIONS = (2, 3, 5)  # 4 has no public field list
CSP_ID = "CN=cc.simulated.invalid"
SIGNING_KEYS = {VekKind.VCEK: SIGNING_KEY_VCEK, VekKind.VLEK: SIGNING_KEY_VLEK}

_NO_SIGNATURE = Signature(r=0, s=0)
_SMT_AND_ECC = 0x05
_ALIAS_CHECK_COMPLETE = 0x20  # exists from report version 3
_MITIGATIONS = 0x3F


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A processor with its firmware, current enough for every bulletin known in 2026."""

    cpuid: Cpuid
    tcb: TcbVersion
    firmware: FirmwareVersion


PARTS = {
    ProductLine.MILAN: Part(
        cpuid=Cpuid(family=0x19, model=0x01, stepping=0x01),
        tcb=TcbVersion(bootloader=4, tee=0, snp=0x1D, microcode=0xDE),
        firmware=FirmwareVersion(major=1, minor=55, build=37),
    ),
    ProductLine.GENOA: Part(
        cpuid=Cpuid(family=0x19, model=0x11, stepping=0x01),
        tcb=TcbVersion(bootloader=10, tee=0, snp=0x1D, microcode=0x58),
        firmware=FirmwareVersion(major=1, minor=55, build=51),
    ),
    ProductLine.TURIN: Part(
        cpuid=Cpuid(family=0x1A, model=0x02, stepping=0x01),
        tcb=TcbVersion(fmc=1, bootloader=1, tee=1, snp=5, microcode=0x52),
        firmware=FirmwareVersion(major=1, minor=55, build=67),
    ),
}


class SecurityProcessor:
    """One chip with one guest on it.

    Args:
        line: which part it is (see PARTS).
        secret: what chip id and keys are derived from; the same secret gives the same chip.
        report_version: 2, 3 or 5.
        signing_key: VCEK, or the VLEK of a provider that loaded one; then CHIP_ID is zero.
        launch: what was settled when the guest started.
        effect: what is wrong with its reports.

    Raises:
        ValueError: a report version that no firmware is known to write.
    """

    def __init__(
        self,
        line: ProductLine,
        secret: bytes,
        *,
        report_version: int = 5,
        signing_key: VekKind = VekKind.VCEK,
        launch: Launch | None = None,
        effect: Effect = NO_EFFECT,
    ) -> None:
        if report_version not in REPORT_VERSIONS:
            raise ValueError(f"report version {report_version} is none of {REPORT_VERSIONS}")
        self.line = line
        self.part = PARTS[line]
        self.report_version = report_version
        self.signing_key = signing_key
        self.launch = launch or Launch()
        self.hwid = _derive(secret, b"HWID", line.hwid_size)
        self._secret = secret
        self._effect = effect
        self._report_id = secrets.token_bytes(32)  # of this boot of the guest

    @property
    def current_tcb(self) -> TcbVersion:
        """The newest TCB that this chip has keys for."""
        return self.part.tcb

    @property
    def reported_tcb(self) -> TcbVersion:
        """The TCB whose key signs."""
        return TcbVersion.parse(self._filled(bytes(REPORT_DATA_SIZE), 0).reported_tcb, self.line.tcb_layout)

    def vek(self, tcb: TcbVersion) -> ec.EllipticCurvePrivateKey:
        """The signing key at that TCB: the chip's own, or the one that its provider loaded."""
        owner = self.hwid if self.signing_key is VekKind.VCEK else CSP_ID.encode()
        return _derive_vek(self._secret, self.signing_key, owner, tcb.encode(self.line.tcb_layout))

    def report(self, report_data: bytes, vmpl: int) -> bytes:
        """A signed report of 1184 bytes.

        Args:
            report_data: 64 bytes, the requester's.
            vmpl: 0..3, the requester's.
        """
        report = self._filled(report_data, vmpl)
        key = self.vek(TcbVersion.parse(report.reported_tcb, self.line.tcb_layout))
        r, s = decode_dss_signature(key.sign(report.signed_bytes, ec.ECDSA(hashes.SHA384())))
        return self._effect.signed_report(replace(report, signature=Signature(r=r, s=s)).encode())

    def _filled(self, report_data: bytes, vmpl: int) -> AttestationReport:
        tcb = self.part.tcb.encode(self.line.tcb_layout)
        launch = self.launch
        mitigations = _MITIGATIONS if self.report_version >= MITIGATION_SINCE else None
        has_cpuid = self.report_version >= CPUID_SINCE
        chip_id = self.hwid if self.signing_key is VekKind.VCEK else b""
        return self._effect.report(
            AttestationReport(
                version=self.report_version,
                guest_svn=launch.guest_svn,
                policy=launch.policy,
                family_id=launch.family_id,
                image_id=launch.image_id,
                vmpl=vmpl,
                platform_info=PlatformInfo(_SMT_AND_ECC | (_ALIAS_CHECK_COMPLETE if has_cpuid else 0)),
                key_info=KeyInfo(
                    author_key_en=any(launch.author_key_digest),
                    mask_chip_key=False,
                    signing_key=SIGNING_KEYS[self.signing_key],
                ),
                report_data=report_data,
                measurement=launch.measurement,
                host_data=launch.host_data,
                id_key_digest=launch.id_key_digest,
                author_key_digest=launch.author_key_digest,
                report_id=self._report_id,
                report_id_ma=b"\xff" * 32,  # no migration agent
                current_tcb=tcb,
                reported_tcb=tcb,
                committed_tcb=tcb,
                launch_tcb=tcb,
                cpuid=self.part.cpuid if has_cpuid else None,
                chip_id=chip_id.ljust(CHIP_ID_SIZE, b"\0"),
                current_version=self.part.firmware,
                committed_version=self.part.firmware,
                launch_mit_vector=mitigations,
                current_mit_vector=mitigations,
                signature=_NO_SIGNATURE,
            )
        )


def _derive(secret: bytes, purpose: bytes, size: int) -> bytes:
    info = b"svsm-attest SIMULATED " + purpose
    return HKDF(algorithm=hashes.SHA384(), length=size, salt=None, info=info).derive(secret)


@lru_cache(maxsize=256)
def _derive_vek(secret: bytes, kind: VekKind, owner: bytes, tcb: bytes) -> ec.EllipticCurvePrivateKey:
    # 64 bytes for a 48-byte order: the reduction leaves no bias worth the name (FIPS 186-5 A.2.1)
    number = int.from_bytes(_derive(secret, kind.encode() + owner + tcb, 64), "big")
    return ec.derive_private_key(number % (ec.SECP384R1.group_order - 1) + 1, ec.SECP384R1())
