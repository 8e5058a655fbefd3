"""Published reports: what their index says of them, and what two other parsers read in them."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from omne_attest import snp as omne
from omne_attest import vectors as omne_vectors

from app.errors import UnsupportedVersionError, WireError
from app.wire.product import ProductLine
from app.wire.report import AttestationReport
from app.wire.tcb import TcbLayout, TcbVersion
from tests.wire.other_parsers import tinfoil_reports
from tests.wire.samples import changed_fields

INDEX_NAMES = {"bl": "bootloader", "tee": "tee", "snp": "snp", "ucode": "microcode", "fmc": "fmc"}


@pytest.fixture(scope="module")
def index(vectors: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((vectors / "vectors.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def tinfoil() -> ModuleType:
    return tinfoil_reports()


def reports(index: dict[str, Any], vectors: Path, *kinds: str) -> Iterator[tuple[str, dict[str, Any], bytes]]:
    """Each case of these kinds that has a report of its own."""
    for kind in kinds:
        for case in index[kind]:
            path = case["files"].get("report")
            if path is not None and not (kind == "negatives" and not path.startswith("negative/")):
                yield case["id"], case, (vectors / path).read_bytes()


def check_against_omne(raw: bytes, line: ProductLine) -> None:
    ours, theirs = AttestationReport.parse(raw), omne.Report.parse(raw)
    same = "version guest_svn family_id image_id vmpl signature_algo report_data measurement host_data"
    for name in (*same.split(), "id_key_digest", "author_key_digest", "report_id", "chip_id"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.policy.encode() == theirs.policy
    assert ours.platform_info.raw == theirs.platform_info
    assert ours.signature.r.to_bytes(72, "big")[24:] == theirs.sig_r
    assert ours.signature.s.to_bytes(72, "big")[24:] == theirs.sig_s
    if line is ProductLine.TURIN:
        return  # it reads every TCB in the layout before Turin
    for name in ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"):
        tcb, other = TcbVersion.parse(getattr(ours, name), TcbLayout.PRE_TURIN), getattr(theirs, name)
        numbers = (other.boot_loader, other.tee, other.snp, other.microcode)
        assert (tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode) == numbers, name


def check_against_tinfoil(raw: bytes, tinfoil: ModuleType) -> None:
    ours, theirs = AttestationReport.parse(raw), tinfoil.Report(raw)
    same = "version guest_svn family_id image_id vmpl signature_algo report_data measurement host_data"
    also = ("id_key_digest", "author_key_digest", "report_id", "report_id_ma", "chip_id")
    for name in (*same.split(), *also):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"):
        assert int.from_bytes(getattr(ours, name), "little") == getattr(theirs, name), name
        parts = tinfoil.TCBParts.from_int(getattr(theirs, name))
        tcb = TcbVersion.parse(getattr(ours, name), TcbLayout.PRE_TURIN)
        numbers = (parts.bl_spl, parts.tee_spl, parts.snp_spl, parts.ucode_spl)
        assert (tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode) == numbers, name
    for which in ("current", "committed"):
        version = getattr(ours, f"{which}_version")
        for part in ("major", "minor", "build"):
            assert getattr(version, part) == getattr(theirs, f"{which}_{part}")
    policy = theirs.policy_parsed
    for our_name, their_name in {
        "abi_major": "abi_major",
        "abi_minor": "abi_minor",
        "smt": "smt",
        "migrate_ma": "migrate_ma",
        "debug": "debug",
        "single_socket": "single_socket",
        "cxl": "cxl_allowed",
        "mem_aes_256_xts": "mem_aes256_xts",
        "rapl_dis": "rapl_dis",
        "ciphertext_hiding": "ciphertext_hiding_dram",
        "page_swap_disable": "page_swap_disabled",
    }.items():
        assert getattr(ours.policy, our_name) == getattr(policy, their_name), our_name
    info = theirs.platform_info_parsed
    assert ours.platform_info.flags() == {
        "smt": info.smt_enabled,
        "tsme": info.tsme_enabled,
        "ecc": info.ecc_enabled,
        "rapl_disabled": info.rapl_disabled,
        "ciphertext_hiding": info.ciphertext_hiding_dram_enabled,
        "alias_check_complete": info.alias_check_complete,
        "tio": info.tio_enabled,
    }
    signer = theirs.signer_info_parsed
    key = (ours.key_info.author_key_en, ours.key_info.mask_chip_key, ours.key_info.signing_key)
    assert key == (signer.authorKeyEn, signer.maskChipKey, signer.signingKey)
    if ours.cpuid is not None:
        assert (ours.cpuid.family, ours.cpuid.model, ours.cpuid.stepping) == theirs.get_fms()
    assert ours.signed_bytes == theirs.signed_data


def test_the_report_that_travels_with_omne(tinfoil: ModuleType) -> None:
    raw = omne_vectors.attestation()
    check_against_omne(raw, ProductLine.MILAN)
    check_against_tinfoil(raw, tinfoil)
    report = AttestationReport.parse(raw)
    assert (report.version, report.vmpl, report.policy.debug, report.cpuid) == (2, 0, True, None)
    # The VCEK of the same package was issued for these numbers (extensions 1.3.6.1.4.1.3704.1.3.*).
    tcb = TcbVersion.parse(report.reported_tcb, TcbLayout.PRE_TURIN)
    assert tcb == TcbVersion(bootloader=2, tee=0, snp=5, microcode=68)
    assert report.encode() == raw


def test_real_reports_say_what_the_index_says(
    vectors: Path, index: dict[str, Any], subtests: pytest.Subtests
) -> None:
    for name, case, raw in reports(index, vectors, "real"):
        if case["report_version"] == 1:
            continue
        with subtests.test(name):
            report = AttestationReport.parse(raw)
            assert report.version == case["report_version"]
            assert report.vmpl == case["vmpl"]
            assert report.policy.encode() == int(case["guest_policy"], 16)
            assert report.platform_info.raw == int(case["platform_info"], 16)
            assert report.key_info.encode() == int(case["key_info"], 16)
            assert report.report_data.hex() == case["report_data"]
            assert report.measurement.hex() == case["measurement"]
            assert report.chip_id.hex().startswith(case["chip_id_prefix"])
            assert report.reported_tcb.hex() == case["reported_tcb"]
            line = ProductLine(case["product_line"])
            tcb = TcbVersion.parse(report.reported_tcb, line.tcb_layout)
            said = {INDEX_NAMES[key]: value for key, value in case["reported_tcb_fields"].items()}
            assert tcb.components() == said
            if case["cpuid_fms"] is None:
                assert report.cpuid is None
            else:
                assert report.cpuid is not None
                assert str(report.cpuid).replace("/", "") == case["cpuid_fms"]
                assert report.cpuid.product_line is line
            assert not any(report.chip_id[line.hwid_size :])
            assert report.encode() == raw
            assert report.signed_bytes == raw[:0x2A0]


def test_known_facts_of_single_reports(vectors: Path) -> None:
    gcp = AttestationReport.parse((vectors / "milan-v5-gcp" / "report.bin").read_bytes())
    assert (gcp.launch_mit_vector, gcp.current_mit_vector) == (0x0B, 0x0B)
    aws = AttestationReport.parse((vectors / "milan-vlek-v3-aws-us-east-2" / "report.bin").read_bytes())
    assert (aws.key_info.signing_key, aws.chip_id) == (1, bytes(64))
    azure = AttestationReport.parse((vectors / "milan-v2-azure-hcl" / "report.bin").read_bytes())
    runtime_data = (vectors / "milan-v2-azure-hcl" / "runtimedata.bin").read_bytes()
    assert azure.report_data == hashlib.sha256(runtime_data).digest() + bytes(32)


def test_a_report_in_another_wrapping_is_refused(vectors: Path) -> None:
    padded = (vectors / "milan-v2-azure-hcl" / "report-1204-bytes.bin").read_bytes()
    with pytest.raises(WireError, match="1204 bytes, want 1184"):
        AttestationReport.parse(padded)


def test_version_1_is_an_unsupported_version(vectors: Path) -> None:
    with pytest.raises(UnsupportedVersionError, match=r"version 1 is not supported"):
        AttestationReport.parse((vectors / "v1-azure-old" / "report.bin").read_bytes())


def test_omne_reads_the_same(vectors: Path, index: dict[str, Any], subtests: pytest.Subtests) -> None:
    for name, case, raw in reports(index, vectors, "real", "synthetic", "negatives"):
        with subtests.test(name):
            try:
                AttestationReport.parse(raw)
            except WireError:
                continue  # it checks no reserved byte, so it reads more than we do
            check_against_omne(raw, ProductLine(case["product_line"]))


def test_tinfoil_reads_the_same(
    vectors: Path, index: dict[str, Any], tinfoil: ModuleType, subtests: pytest.Subtests
) -> None:
    # It demands a VCEK, and reads every TCB in the layout before Turin.
    beyond_it = {"turin-v5-oak", "milan-vlek-v3-aws-us-east-2"}
    for name, case, raw in reports(index, vectors, "real"):
        with subtests.test(name):
            if name in beyond_it:
                with pytest.raises(ValueError, match=r"VCEK|tcb not correctly formed"):
                    tinfoil.Report(raw)
                AttestationReport.parse(raw)
            elif case["report_version"] == 1:
                with pytest.raises(ValueError, match="Unknown report version"):
                    tinfoil.Report(raw)
            else:
                check_against_tinfoil(raw, tinfoil)


# What becomes of each kind of negative: the one field that differs from the genuine report, or the
# place and reason of the refusal.
NEGATIVES: dict[str, str | tuple[int, str]] = {
    "measurement-bitflip": "measurement",
    "report_data-bitflip": "report_data",
    "sig-r-bitflip": "signature",
    "sig-s-bitflip": "signature",
    "sig-r-high-pad": "signature",
    "sig-zero": "signature",
    "sig-s-negated": "signature",
    "big-endian-sig": "signature",
    "cpuid-says-genoa": "cpuid",
    "cpuid-says-milan": "cpuid",
    "reported-tcb-raised": "reported_tcb",
    "last-signed-byte-bitflip": (0x29F, "reserved byte must be zero"),
    "sig-tail-nonzero": (0x337, "reserved byte after the signature must be zero"),
    "version-1": (0x000, "version 1 is not supported (known: 2, 3, 4, 5)"),
    "version-6": (0x000, "version 6 is not supported (known: 2, 3, 4, 5)"),
    "sigalgo-2": (0x034, "SIGNATURE_ALGO is 2, want 1"),
    "truncated-0": (0, "0 bytes, want 1184"),
    "truncated-1": (1, "1 bytes, want 1184"),
    "truncated-671": (671, "671 bytes, want 1184"),
    "truncated-672": (672, "672 bytes, want 1184"),
    "truncated-1183": (1183, "1183 bytes, want 1184"),
    "trailing-1": (1184, "1185 bytes, want 1184"),
    "trailing-816": (1184, "2000 bytes, want 1184"),
    "guest-response-header": (1184, "1216 bytes, want 1184"),
}


def test_negatives_differ_or_fail_where_they_should(
    vectors: Path, index: dict[str, Any], subtests: pytest.Subtests
) -> None:
    seen = set()
    for name, case, raw in reports(index, vectors, "negatives"):
        kind = name.removeprefix(case["base"] + "--")
        seen.add(kind)
        with subtests.test(name):
            outcome = NEGATIVES[kind]
            if isinstance(outcome, str):
                genuine = AttestationReport.parse((vectors / case["base"] / "report.bin").read_bytes())
                assert changed_fields(genuine, AttestationReport.parse(raw)) == {outcome}
            else:
                with pytest.raises(WireError) as caught:
                    AttestationReport.parse(raw)
                assert caught.value.structure == "ATTESTATION_REPORT"
                assert (caught.value.offset, caught.value.reason) == outcome
                assert isinstance(caught.value, UnsupportedVersionError) is kind.startswith("version-")
    assert seen == set(NEGATIVES)


SYNTHETIC_REFUSED: dict[str, tuple[str, int, str]] = {
    "policy-bit17-zero": ("GUEST_POLICY", 0x08, "reserved bit 17 must be one (0x10000)"),
    "policy-bit26": ("GUEST_POLICY", 0x08, "bits from 26 must be zero (0x4030000)"),
    "sigalgo-0": ("ATTESTATION_REPORT", 0x34, "SIGNATURE_ALGO is 0, want 1"),
    "keyinfo-bit5": ("ATTESTATION_REPORT", 0x48, "KEY_INFO bits 5..31 must be zero (0x20)"),
    "reserved-4c": ("ATTESTATION_REPORT", 0x4C, "reserved byte must be zero"),
    "reserved-18b": ("ATTESTATION_REPORT", 0x18B, "reserved byte must be zero"),
    "reserved-1eb": ("ATTESTATION_REPORT", 0x1EB, "byte after CURRENT_VERSION must be zero"),
    "reserved-208": ("ATTESTATION_REPORT", 0x208, "reserved byte must be zero"),
    "v3-with-mit-bytes": (
        "ATTESTATION_REPORT",
        0x1F8,
        "LAUNCH_MIT_VECTOR (reserved before version 5) must be zero",
    ),
    "version-6": ("ATTESTATION_REPORT", 0, "version 6 is not supported (known: 2, 3, 4, 5)"),
}


def test_synthetic_reports(vectors: Path, index: dict[str, Any], subtests: pytest.Subtests) -> None:
    refused = set()
    for name, case, raw in reports(index, vectors, "synthetic"):
        with subtests.test(name):
            kind = name.removeprefix("synthetic-genoa-")
            if kind not in SYNTHETIC_REFUSED:
                assert AttestationReport.parse(raw).encode() == raw
                continue
            refused.add(kind)
            with pytest.raises(WireError) as caught:
                AttestationReport.parse(raw)
            error = caught.value
            assert (error.structure, error.offset, error.reason) == SYNTHETIC_REFUSED[kind]
            assert case["expected"].startswith("invalid")
    assert refused == set(SYNTHETIC_REFUSED)
