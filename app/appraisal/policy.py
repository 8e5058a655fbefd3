"""The appraisal policy and its reference values: one strict document.

Plain data, no language: every key is known and every length checked when it is loaded. Names
follow go-sev-guest's policy where it has one. `guest_policy` states the most that a guest may
allow, except the ABI and the demands (single socket and the later bits), which state the least.
Figures of the built-in policy: AMD security bulletins 3020 and 3023 as quoted by several
projects in 2026; they warn, they do not refuse, and an operator dates his own.
"""

import hashlib
import json
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.appraisal.policy_fields import (
    U32,
    U64,
    Byte,
    ChipId,
    CpuKey,
    Date,
    Hex16,
    Hex32,
    Hex48,
    KnownPcrs,
    Line,
    PcrBanks,
    ShortText,
    Version,
    Wish,
)
from app.wire.product import ProductLine
from app.wire.tcb import TcbVersion
from app.wire.tpm.pcr import PCR_COUNT, PcrSelection

MAX_LIST = 4096
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class RootOfTrust(_Section):
    """Whose certificates count, and what happens when a revocation list cannot be had."""

    product_lines: tuple[Line, ...] = Field(
        default=tuple(ProductLine), strict=False, max_length=len(ProductLine)
    )
    # Roots are the deployment's business (settings, command line), never a document's.
    cabundle_paths: tuple[str, ...] = Field(default=(), strict=False, max_length=0)
    check_crl: bool = True
    crl_unavailable: Literal["warn", "deny", "ignore"] = "warn"
    disallow_network: bool = False
    # None: as the operator decided by trusting the simulator's root or not. False refuses it even then.
    allow_simulator: bool | None = None
    allow_masked_chip_id: bool = False


class GuestPolicyWish(_Section):
    """What GUEST_POLICY may allow at most, and must demand at least."""

    debug: bool = False
    migrate_ma: bool = False
    smt: bool = True
    cxl: bool = False
    abi_major: Byte = 0
    abi_minor: Byte = 0
    single_socket: bool = False
    mem_aes_256_xts: bool = False
    rapl_dis: bool = False
    ciphertext_hiding: bool = False
    page_swap_disable: bool = False


class PlatformInfoWish(_Section):
    """PLATFORM_INFO: `any`, or the value that a bit must have; masks reach the unnamed bits."""

    smt: Wish = "any"
    tsme: Wish = "any"
    ecc: Wish = "any"
    rapl_disabled: Wish = "any"
    ciphertext_hiding: Wish = "any"
    alias_check_complete: Wish = True  # BadRAM, AMD-SB-3015
    tio: Wish = "any"
    required_set: U64 = 0
    required_clear: U64 = 0


class TcbFloor(_Section):
    """The least security version number per component; one that is left out is not asked for."""

    fmc: Byte | None = None
    bootloader: Byte = 0
    tee: Byte = 0
    snp: Byte = 0
    microcode: Byte = 0

    def tcb(self) -> TcbVersion:
        """The floor as a TCB_VERSION."""
        return TcbVersion(
            bootloader=self.bootloader, tee=self.tee, snp=self.snp, microcode=self.microcode, fmc=self.fmc
        )


class MitigationFloor(_Section):
    """Bits that the mitigation vectors of a version 5 report must have."""

    launch: U64 = 0
    current: U64 = 0


class VtpmWish(_Section):
    """What is asked of the quote of the vTPM."""

    require_quote: bool = False
    # What is to be quoted, unless the request says otherwise: exactly these registers.
    pcrs: PcrBanks = {"sha256": tuple(range(PCR_COUNT))}
    require_event_log: bool = False
    secure_boot: Wish = "any"

    @property
    def selection(self) -> PcrSelection:
        """`pcrs`, as a TPM has it."""
        return PcrSelection.of(self.pcrs)


TcbFloors = dict[Line, TcbFloor]
MicrocodeFloors = dict[CpuKey, Byte]


class Checks(_Section):
    """What is asked of a report."""

    minimum_report_version: Literal[2, 3, 4, 5] = 2
    minimum_guest_svn: U32 = 0
    guest_policy: GuestPolicyWish = GuestPolicyWish()
    vmpl: Annotated[int, Field(ge=0, le=3)] | None = None  # of a bare report; SVSM evidence is VMPL 0 always
    minimum_tcb: TcbFloors = {}
    minimum_launch_tcb: TcbFloors = {}  # a line that is missing here has its minimum_tcb
    recommended_tcb: TcbFloors = {}
    # The microcode byte compares only within one family/model/stepping.
    minimum_microcode: MicrocodeFloors = {}
    recommended_microcode: MicrocodeFloors = {}
    minimum_version: Version | None = None
    minimum_build: Byte = 0
    permit_provisional_firmware: bool = False
    platform_info: PlatformInfoWish = PlatformInfoWish()
    mitigation_vectors: dict[CpuKey, MitigationFloor] = {}
    require_author_key: bool = False
    require_id_block: bool = False
    trusted_id_key_hashes: tuple[Hex48, ...] = Field(default=(), strict=False, max_length=MAX_LIST)
    trusted_author_key_hashes: tuple[Hex48, ...] = Field(default=(), strict=False, max_length=MAX_LIST)
    host_data: tuple[Hex32, ...] = Field(default=(), strict=False, max_length=MAX_LIST)
    family_id: Hex16 | None = None
    image_id: Hex16 | None = None
    chip_ids: tuple[ChipId, ...] = Field(default=(), strict=False, max_length=MAX_LIST)
    csp_ids: tuple[ShortText, ...] = Field(default=(), strict=False, max_length=MAX_LIST)
    vtpm: VtpmWish = VtpmWish()
    required_claims: tuple[
        Literal[
            "instance-identity",
            "configuration",
            "executables",
            "file-system",
            "hardware",
            "runtime-opaque",
            "storage-opaque",
            "sourced-data",
        ],
        ...,
    ] = Field(default=("hardware", "configuration", "executables", "runtime-opaque"), strict=False)


class ReferenceMeasurement(_Section):
    """A launch digest that the operator knows."""

    value: Hex48
    name: ShortText
    not_after: Date | None = None
    state: Literal["allowed", "deprecated", "denied"] = "allowed"
    # An SVSM built with the `attest` feature signs bytes that the host chooses; None: not known.
    attest_feature: bool | None = None


class VtpmReference(_Section):
    """What the vTPM may look like."""

    manifest_versions: tuple[Literal["0", "1"], ...] = Field(default=("0",), strict=False)
    ek_templates: tuple[Literal["L-1", "L-2", "H-1", "H-2", "H-3", "H-6"], ...] = Field(
        default=(), strict=False
    )
    ek_sha256: tuple[Hex32, ...] = Field(default=(), strict=False, max_length=MAX_LIST)
    # Bank, register, values: a register with values must be quoted and hold one of them.
    pcrs: KnownPcrs = {}


class ReferenceValues(_Section):
    """What is known to be good."""

    measurements: tuple[ReferenceMeasurement, ...] = Field(default=(), strict=False, max_length=MAX_LIST)
    vtpm: VtpmReference = VtpmReference()


class Policy(_Section):
    """An appraisal policy with its reference values."""

    version: Annotated[int, Field(ge=1, le=1)]
    id: Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
    root_of_trust: RootOfTrust = RootOfTrust()
    policy: Checks = Checks()
    reference_values: ReferenceValues = ReferenceValues()

    @cached_property
    def digest(self) -> str:
        """`sha256:` over the canonical JSON of the whole document, defaults written out."""
        document = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return f"sha256:{hashlib.sha256(document.encode()).hexdigest()}"


def default_policy() -> Policy:
    """The safe built-in: no debugging, no migration, no measurement known, so never affirming."""
    recommended = {
        ProductLine.MILAN: TcbFloor(snp=0x1B),
        ProductLine.GENOA: TcbFloor(snp=0x1B),
        ProductLine.TURIN: TcbFloor(snp=0x04),
    }
    return Policy(version=1, id="default", policy=Checks(recommended_tcb=recommended))
