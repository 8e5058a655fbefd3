"""Faults to choose from: at least one for every appraisal check, so that each can be watched failing.

A fault is named after its check; what follows a colon tells several ways of failing apart. A
faulty report is still signed by the right key, unless the fault is about the signature. Where a
check compares with what a policy asks for, it fails only under a policy that asks.
"""

from enum import StrEnum
from typing import Self

from app.evidence.simulator import changes as to
from app.evidence.simulator.effect import NO_EFFECT, Effect
from app.evidence.simulator.launch import simulated_digest
from app.evidence.simulator.measured_boot import Boot
from app.wire.product import Cpuid
from app.wire.report import CPUID_SINCE, MITIGATION_SINCE, SIGNING_KEY_NONE, VMPL_HOST, FirmwareVersion

_OLD_FIRMWARE = FirmwareVersion(major=1, minor=49, build=3)
_VENICE = Cpuid(family=0x1A, model=0x50, stepping=0)  # no chain is published for this line
_REPORT_ID, _S = 0x140, 0x2E8  # offsets into the report
_TOO_MANY_REQUESTS, _NOT_FOUND = 429, 404
_BINDING = ("vtpm.binding",)
_QUOTED = ("vtpm.pcrs", "vtpm.event_log", "vtpm.secure_boot", "vtpm.boot_counters")


class Fault(StrEnum):
    """What shall be wrong."""

    effect: Effect

    def __new__(cls, name: str, effect: Effect = NO_EFFECT) -> Self:
        """A member whose value is its name; to look one up, the name is enough."""
        fault = str.__new__(cls, name)
        fault._value_ = name
        fault.effect = effect
        return fault

    @property
    def checks(self) -> tuple[str, ...]:
        """The appraisal checks that no longer pass; none where no appraisal can take place."""
        about = self.value.partition(":")[0]
        return () if self.effect.kds_status else (about, *self.effect.also)

    # Signature and endorsement of the key
    SIGNATURE = "snp.signature", Effect("one bit of S is wrong", signed_report=to.flipping(_S))
    SIGNATURE_BODY = (
        "snp.signature:body",
        Effect("one signed bit is wrong", signed_report=to.flipping(_REPORT_ID)),
    )
    SIGNATURE_MASKED = (
        "snp.signature:masked",
        Effect(
            "the host masks the chip's key: zeros instead of a signature",
            also=("snp.vek.hwid",),
            report=to.key_info(mask_chip_key=True),
            signed_report=to.without_signature,
            vcek_only=True,
        ),
    )
    CHAIN = "snp.chain", Effect("the chain ends in another root of the same name", impostor=True)
    CHAIN_SIGNATURE = (
        "snp.chain:signature",
        Effect("one bit of the leaf's signature is wrong", leaf_der=to.flipping(-1)),
    )
    CHAIN_ALGORITHM = "snp.chain:algorithm", Effect("the leaf is signed with PKCS #1 v1.5", leaf=to.pkcs1)
    CHAIN_EXPIRED = "snp.chain:expired", Effect("the leaf has expired", leaf=to.expired)
    CHAIN_NOT_YET_VALID = (
        "snp.chain:not_yet_valid",
        Effect("the leaf is not valid yet", leaf=to.not_yet_valid),
    )
    CHAIN_PROFILE = (
        "snp.chain:profile",
        Effect("the leaf names both a chip and a provider", also=("snp.vek.hwid",), leaf=to.two_owners),
    )
    VEK_KIND = (
        "snp.vek.kind",
        Effect(
            "the report names the other kind of key than signed it",
            report=to.other_signing_key,
            leaf_mislabelled=True,
        ),
    )
    VEK_KIND_NONE = (
        "snp.vek.kind:none",
        Effect(
            "the report names no key and is not signed",
            also=("snp.signature",),
            report=to.key_info(signing_key=SIGNING_KEY_NONE),
            signed_report=to.without_signature,
        ),
    )
    VEK_TCB = "snp.vek.tcb", Effect("the leaf is for another TCB", leaf=to.other_tcb)
    VEK_HWID = (
        "snp.vek.hwid",
        Effect("the leaf is for another chip, or another provider", leaf=to.other_owner),
    )
    VEK_HWID_MASKED = (
        "snp.vek.hwid:masked",
        Effect("the host masks CHIP_ID", report=to.setting(chip_id=bytes(64)), vcek_only=True),
    )
    REVOCATION = "snp.revocation", Effect("the CRL lists the intermediates", revoked=True)
    REVOCATION_STALE = "snp.revocation:stale", Effect("the CRL's successor is overdue", crl=to.stale)
    REVOCATION_SIGNATURE = (
        "snp.revocation:signature",
        Effect("one bit of the CRL's signature is wrong", crl_der=to.flipping(-1)),
    )
    REVOCATION_MISSING = "snp.revocation:missing", Effect("there is no CRL anywhere", crl_withheld=True)

    # The platform
    PRODUCT = (
        "snp.product",
        Effect(
            "the report's CPUID is of a line without a chain",
            also=("snp.vek.tcb", "snp.tcb.relations"),
            report=to.setting(cpuid=_VENICE),
            since_version=CPUID_SINCE,
        ),
    )
    PRODUCT_LINE = (
        "snp.product:line",
        Effect(
            "the report's CPUID is of another line than the leaf's",
            also=("snp.vek.tcb",),
            report=to.other_line,
            since_version=CPUID_SINCE,
        ),
    )
    REPORT_VERSION = (
        "snp.report_version",
        Effect("the report has version 2", report=to.version_2, since_version=CPUID_SINCE),
    )
    TCB_RELATIONS = (
        "snp.tcb.relations",
        Effect("REPORTED_TCB exceeds COMMITTED_TCB and CURRENT_TCB", report=to.advancing("reported_tcb")),
    )
    TCB_MINIMUM = (
        "snp.tcb.minimum",
        Effect(
            "every TCB is of long ago",
            report=to.ageing("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"),
        ),
    )
    TCB_MINIMUM_REPORTED = (
        "snp.tcb.minimum:reported",
        Effect("REPORTED_TCB is of long ago", report=to.ageing("reported_tcb")),
    )
    TCB_MINIMUM_LAUNCH = (
        "snp.tcb.minimum:launch",
        Effect("LAUNCH_TCB is of long ago", report=to.ageing("launch_tcb")),
    )
    FIRMWARE = (
        "snp.firmware",
        Effect(
            "the firmware is old",
            report=to.setting(current_version=_OLD_FIRMWARE, committed_version=_OLD_FIRMWARE),
        ),
    )
    FIRMWARE_PROVISIONAL = (
        "snp.firmware:provisional",
        Effect("newer firmware runs and is not committed", report=to.provisional),
    )
    MIT_VECTOR = (
        "snp.mit_vector",
        Effect(
            "no mitigation is in force",
            report=to.setting(launch_mit_vector=0, current_mit_vector=0),
            since_version=MITIGATION_SINCE,
        ),
    )
    MIT_VECTOR_LAUNCH = (
        "snp.mit_vector:launch",
        Effect(
            "no mitigation was in force at launch",
            report=to.setting(launch_mit_vector=0),
            since_version=MITIGATION_SINCE,
        ),
    )
    PLATFORM_INFO = (
        "snp.platform_info",
        Effect("ALIAS_CHECK_COMPLETE is the other way", report=to.toggling_platform("alias_check_complete")),
    )
    PLATFORM_INFO_SMT = (
        "snp.platform_info:smt",
        Effect("SMT_EN is the other way", report=to.toggling_platform("smt")),
    )
    PLATFORM_INFO_TSME = (
        "snp.platform_info:tsme",
        Effect("TSME_EN is the other way", report=to.toggling_platform("tsme")),
    )
    PLATFORM_INFO_ECC = (
        "snp.platform_info:ecc",
        Effect("ECC_EN is the other way", report=to.toggling_platform("ecc")),
    )
    PLATFORM_INFO_RAPL = (
        "snp.platform_info:rapl_disabled",
        Effect("the platform's RAPL_DIS is the other way", report=to.toggling_platform("rapl_disabled")),
    )
    PLATFORM_INFO_CIPHERTEXT = (
        "snp.platform_info:ciphertext_hiding",
        Effect(
            "CIPHERTEXT_HIDING_DRAM_EN is the other way", report=to.toggling_platform("ciphertext_hiding")
        ),
    )
    PLATFORM_INFO_TIO = (
        "snp.platform_info:tio",
        Effect("TIO_EN is the other way", report=to.toggling_platform("tio")),
    )
    CHIP_ALLOWED = (
        "snp.chip_allowed",
        Effect("another chip signs, with a chain of its own", other_chip=True, vcek_only=True),
    )

    # The guest. A demand of the guest policy can only go missing where the guest was launched with it.
    POLICY_DEBUG = "snp.policy.debug", Effect("DEBUG is the other way", report=to.toggling_policy("debug"))
    POLICY_MIGRATE_MA = (
        "snp.policy.migrate_ma",
        Effect("MIGRATE_MA is the other way", report=to.toggling_policy("migrate_ma")),
    )
    POLICY_SMT = "snp.policy.smt", Effect("SMT is the other way", report=to.toggling_policy("smt"))
    POLICY_CXL = "snp.policy.cxl", Effect("CXL_ALLOW is the other way", report=to.toggling_policy("cxl"))
    POLICY_ABI = (
        "snp.policy.abi",
        Effect("the least ABI is gone, or 0.31 where there was none", report=to.toggling_abi),
    )
    POLICY_SINGLE_SOCKET = (
        "snp.policy.single_socket",
        Effect("SINGLE_SOCKET is the other way", report=to.toggling_policy("single_socket")),
    )
    POLICY_MEM_AES_256_XTS = (
        "snp.policy.mem_aes_256_xts",
        Effect("MEM_AES_256_XTS is the other way", report=to.toggling_policy("mem_aes_256_xts")),
    )
    POLICY_RAPL_DIS = (
        "snp.policy.rapl_dis",
        Effect("RAPL_DIS is the other way", report=to.toggling_policy("rapl_dis")),
    )
    POLICY_CIPHERTEXT_HIDING = (
        "snp.policy.ciphertext_hiding",
        Effect("CIPHERTEXT_HIDING is the other way", report=to.toggling_policy("ciphertext_hiding")),
    )
    POLICY_PAGE_SWAP_DISABLE = (
        "snp.policy.page_swap_disable",
        Effect("PAGE_SWAP_DISABLE is the other way", report=to.toggling_policy("page_swap_disable")),
    )
    ID_BLOCK = "snp.id_block", Effect("another ID key", report=to.inverting("id_key_digest"))
    ID_BLOCK_AUTHOR = (
        "snp.id_block:author_key",
        Effect("another author key", report=to.inverting("author_key_digest")),
    )
    ID_BLOCK_GUEST_SVN = "snp.id_block:guest_svn", Effect("GUEST_SVN is 0", report=to.setting(guest_svn=0))
    ID_BLOCK_FAMILY_ID = (
        "snp.id_block:family_id",
        Effect("another FAMILY_ID", report=to.inverting("family_id")),
    )
    ID_BLOCK_IMAGE_ID = "snp.id_block:image_id", Effect("another IMAGE_ID", report=to.inverting("image_id"))
    ID_BLOCK_HOST_DATA = (
        "snp.id_block:host_data",
        Effect("another HOST_DATA", report=to.inverting("host_data")),
    )
    MEASUREMENT = (
        "snp.measurement",
        Effect(
            "another image was launched", report=to.setting(measurement=simulated_digest("unknown image"))
        ),
    )

    # The SVSM and its vTPM
    VMPL = "snp.vmpl", Effect("the guest's own report, at VMPL 2", also=_BINDING, report=to.setting(vmpl=2))
    VMPL_1 = "snp.vmpl:1", Effect("a report at VMPL 1", also=_BINDING, report=to.setting(vmpl=1))
    VMPL_3 = "snp.vmpl:3", Effect("a report at VMPL 3", also=_BINDING, report=to.setting(vmpl=3))
    VMPL_BY_HOST = (
        "snp.vmpl:host",
        Effect("the host asked for the report", also=_BINDING, report=to.setting(vmpl=VMPL_HOST)),
    )
    REPORT_DATA = (
        "snp.report_data",
        Effect("the report answers another nonce", also=_BINDING, bind=to.bind_other_nonce),
    )
    REPORT_DATA_SWAPPED = (
        "snp.report_data:swapped",
        Effect("the manifest is hashed before the nonce", also=_BINDING, bind=to.bind_swapped),
    )
    REPORT_DATA_NONCE = (
        "snp.report_data:nonce",
        Effect("the nonce alone is reported", also=_BINDING, bind=to.bind_nonce_alone),
    )
    VTPM_BINDING = (
        "vtpm.binding",
        Effect(
            "the report is about another manifest", also=("snp.report_data",), bind=to.bind_other_manifest
        ),
    )
    VTPM_MANIFEST_VERSION = (
        "vtpm.manifest_version",
        Effect("a manifest of version 1, which lists two keys", vtpm_manifest=to.key_list),
    )
    VTPM_EK_TEMPLATE = "vtpm.ek_template", Effect("the EK lacks fixedTPM", vtpm_manifest=to.movable_ek)
    VTPM_EK_ENROLLED = "vtpm.ek_enrolled", Effect("a vTPM with another EK", other_ek=True)

    # The vTPM's quotes. One that does not hold leaves everything unknown that is read from it.
    VTPM_AK = (
        "vtpm.ak",
        Effect("the attestation key signs anything", also=_QUOTED, command=to.unrestricted, needs_tpm=True),
    )
    VTPM_AK_BINDING = (
        "vtpm.ak_binding",
        Effect("a challenge is answered wrongly", also=_QUOTED, proof=to.flipping(-1), needs_tpm=True),
    )
    QUOTE_SIGNATURE = (
        "vtpm.quote.signature",
        Effect("one bit of it is wrong", also=_QUOTED, quote=to.quote_signature, needs_tpm=True),
    )
    QUOTE_NONCE = (
        "vtpm.quote.nonce",
        Effect("the quote answers another nonce", also=_QUOTED, qualifying=to.inverted, needs_tpm=True),
    )
    QUOTE_SELECTION = (
        "vtpm.quote.selection",
        Effect("one register is not quoted", also=_QUOTED, selection=to.fewer, needs_tpm=True),
    )
    QUOTE_DIGEST = (
        "vtpm.quote.digest",
        Effect(
            "a register's value is not the quoted one", also=_QUOTED, quote=to.quoted_value, needs_tpm=True
        ),
    )
    VTPM_PCRS = (
        "vtpm.pcrs",
        Effect("another kernel was booted", boot=Boot(kernel="6.1.0-simulated"), needs_tpm=True),
    )
    VTPM_EVENT_LOG = (
        "vtpm.event_log",
        Effect(
            "the event log lacks an event",
            also=("vtpm.secure_boot",),
            event_log=to.forgetful,
            needs_tpm=True,
        ),
    )
    VTPM_SECURE_BOOT = (
        "vtpm.secure_boot",
        Effect(
            "the VM was booted without Secure Boot",
            also=("vtpm.pcrs",),
            boot=Boot(secure_boot=False),
            needs_tpm=True,
        ),
    )
    VTPM_BOOT_COUNTERS = (
        "vtpm.boot_counters",
        Effect("the VM boots again after every quote", reboots=True, needs_tpm=True),
    )

    # The key distribution service. No verdict can come of it: the evidence carries no certificates.
    KDS_THROTTLED = "kds:throttled", Effect("the KDS answers 429", kds_status=_TOO_MANY_REQUESTS)
    KDS_NOT_FOUND = "kds:not_found", Effect("the KDS knows nothing", kds_status=_NOT_FOUND)
