from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.appraisal import platform_checks as checks
from app.appraisal.findings import Outcome
from app.trust.vek import VekKind
from app.wire.bits import PlatformInfo
from app.wire.product import Cpuid
from app.wire.report import FirmwareVersion
from tests.appraisal.subjects import CHIP, policy, subject, tcb_bytes

V2: dict[str, Any] = {
    "version": 2,
    "cpuid": None,
    "launch_mit_vector": None,
    "current_mit_vector": None,
}
UNKNOWN_PART = {"cpuid": Cpuid(family=0x1A, model=0x50, stepping=0), "vek_line": None}
FLOOR = {"Milan": {"snp": 27}}
HIGH = {"Milan": {"snp": 28}}


def firmware(minor: int, build: int) -> FirmwareVersion:
    return FirmwareVersion(major=1, minor=minor, build=build)


def vectors(**floor: int) -> dict[str, Any]:
    return {"policy": policy({"mitigation_vectors": {"19/01/01": floor}})}


def wishes(**checks_: Any) -> dict[str, Any]:
    return {"policy": policy(checks_)}


CASES: list[tuple[str, dict[str, Any], Outcome, str]] = [
    ("report_version", {}, Outcome.PASSED, "recent enough"),
    ("report_version", {**V2, **wishes(minimum_report_version=3)}, Outcome.FAILED, "older report"),
    ("tcb_relations", {}, Outcome.PASSED, "in order"),
    ("tcb_relations", {"reported_tcb": tcb_bytes(snp=28)}, Outcome.FAILED, "reported TCB exceeds"),
    ("tcb_relations", {"committed_tcb": tcb_bytes(tee=1)}, Outcome.FAILED, "committed TCB exceeds"),
    ("tcb_relations", {"launch_tcb": tcb_bytes(microcode=0xDF)}, Outcome.FAILED, "launch TCB exceeds"),
    ("tcb_relations", {"current_tcb": tcb_bytes(snp=28)}, Outcome.PASSED, "in order"),
    # Component by component: a higher bootloader does not make up for a lower microcode.
    (
        "tcb_relations",
        {"current_tcb": tcb_bytes(bootloader=9, microcode=0xDD)},
        Outcome.FAILED,
        "committed TCB exceeds",
    ),
    ("tcb_relations", {"launch_tcb": b"\0\0\1\0\0\0\0\0"}, Outcome.FAILED, "layout of launch"),
    ("tcb_relations", UNKNOWN_PART, Outcome.FAILED, "does not fit the product line"),
    ("tcb_minimum", {}, Outcome.NOT_REQUESTED, "no TCB floor"),
    ("tcb_minimum", wishes(minimum_tcb=FLOOR), Outcome.PASSED, "Every TCB"),
    ("tcb_minimum", wishes(minimum_tcb=HIGH), Outcome.FAILED, "below the policy's floor"),
    ("tcb_minimum", wishes(minimum_tcb={"Genoa": {"snp": 99}}), Outcome.PASSED, "Every TCB"),
    ("tcb_minimum", wishes(minimum_tcb={"Milan": {"fmc": 1}}), Outcome.FAILED, "below"),
    ("tcb_minimum", wishes(minimum_launch_tcb=HIGH), Outcome.FAILED, "below"),
    (
        "tcb_minimum",
        {"launch_tcb": tcb_bytes(snp=20), **wishes(minimum_tcb=FLOOR)},
        Outcome.FAILED,
        "below",
    ),
    (
        "tcb_minimum",
        {
            "launch_tcb": tcb_bytes(snp=20),
            **wishes(minimum_tcb=FLOOR, minimum_launch_tcb={"Milan": {"snp": 20}}),
        },
        Outcome.PASSED,
        "Every TCB",
    ),
    (
        "tcb_minimum",
        {"committed_tcb": tcb_bytes(snp=26), **wishes(minimum_tcb=FLOOR)},
        Outcome.FAILED,
        "below",
    ),
    ("tcb_minimum", wishes(recommended_tcb=HIGH), Outcome.WARNED, "recommended"),
    ("tcb_minimum", wishes(minimum_tcb=FLOOR, recommended_tcb=HIGH), Outcome.WARNED, "recommended"),
    ("tcb_minimum", {**UNKNOWN_PART, **wishes(minimum_tcb=FLOOR)}, Outcome.FAILED, "below"),
    (
        "tcb_minimum",
        {"launch_tcb": b"\0\0\1\0\0\0\0\0", **wishes(minimum_tcb=FLOOR)},
        Outcome.FAILED,
        "below",
    ),
    ("tcb_minimum", wishes(minimum_microcode={"19/01/01": 0xDE}), Outcome.PASSED, "Every TCB"),
    ("tcb_minimum", wishes(minimum_microcode={"19/01/01": 0xDF}), Outcome.FAILED, "below"),
    ("tcb_minimum", wishes(minimum_microcode={"19/01/02": 0x01}), Outcome.FAILED, "below"),
    ("tcb_minimum", {**V2, **wishes(minimum_microcode={"19/01/01": 0x01})}, Outcome.FAILED, "below"),
    ("tcb_minimum", wishes(recommended_microcode={"19/01/01": 0xDF}), Outcome.WARNED, "recommended"),
    ("tcb_minimum", wishes(recommended_microcode={"19/01/02": 0xFF}), Outcome.PASSED, "Every TCB"),
    ("firmware", {}, Outcome.PASSED, "as the policy asks"),
    ("firmware", wishes(minimum_version="1.55", minimum_build=40), Outcome.PASSED, "as the policy asks"),
    ("firmware", wishes(minimum_version="1.55", minimum_build=41), Outcome.WARNED, "older"),
    ("firmware", wishes(minimum_version="1.56"), Outcome.WARNED, "older"),
    ("firmware", wishes(minimum_version="1.54", minimum_build=99), Outcome.PASSED, "as the policy asks"),
    ("firmware", wishes(minimum_build=41), Outcome.WARNED, "older"),
    ("firmware", wishes(minimum_build=40), Outcome.PASSED, "as the policy asks"),
    ("firmware", {"current_version": firmware(56, 1)}, Outcome.WARNED, "provisional"),
    ("firmware", {"current_tcb": tcb_bytes(snp=28)}, Outcome.WARNED, "provisional"),
    (
        "firmware",
        {"current_version": firmware(56, 1), **wishes(permit_provisional_firmware=True)},
        Outcome.PASSED,
        "as the policy asks",
    ),
    (
        "firmware",
        {"current_version": firmware(55, 39), **wishes(permit_provisional_firmware=True)},
        Outcome.WARNED,
        "newer than the running",
    ),
    ("mitigation_vectors", {}, Outcome.NOT_REQUESTED, "no mitigation bit"),
    ("mitigation_vectors", vectors(launch=0x0B, current=0x03), Outcome.PASSED, "in force"),
    ("mitigation_vectors", vectors(current=0x04), Outcome.FAILED, "not in force"),
    ("mitigation_vectors", vectors(launch=0x10), Outcome.FAILED, "not in force"),
    ("mitigation_vectors", {**V2, **vectors(launch=1)}, Outcome.FAILED, "states none for this part"),
    (
        "mitigation_vectors",
        {"version": 3, "launch_mit_vector": None, "current_mit_vector": None, **vectors(launch=1)},
        Outcome.FAILED,
        "has no mitigation vectors",
    ),
    (
        "mitigation_vectors",
        wishes(mitigation_vectors={"19/11/01": {"launch": 1}}),
        Outcome.FAILED,
        "states none for this part",
    ),
    ("platform_info", {}, Outcome.PASSED, "as wished"),
    ("platform_info", {"platform_info": PlatformInfo(0x05)}, Outcome.WARNED, "alias_check_complete"),
    (
        "platform_info",
        wishes(platform_info={"alias_check_complete": "any"}),
        Outcome.NOT_REQUESTED,
        "asks nothing",
    ),
    ("platform_info", wishes(platform_info={"smt": False}), Outcome.WARNED, "smt"),
    ("platform_info", wishes(platform_info={"smt": True, "tsme": False}), Outcome.PASSED, "as wished"),
    ("platform_info", wishes(platform_info={"required_set": 0x40}), Outcome.WARNED, "masked bits"),
    ("platform_info", wishes(platform_info={"required_clear": 0x01}), Outcome.WARNED, "masked bits"),
    (
        "platform_info",
        {"platform_info": PlatformInfo(0x65), **wishes(platform_info={"required_set": 0x40})},
        Outcome.PASSED,
        "as wished",
    ),
    ("chip_allowed", {}, Outcome.NOT_REQUESTED, "enrols no chip"),
    ("chip_allowed", wishes(chip_ids=[CHIP.hex()]), Outcome.PASSED, "is enrolled"),
    ("chip_allowed", wishes(chip_ids=["00" * 63 + "01"]), Outcome.FAILED, "does not list"),
    (
        "chip_allowed",
        {"chip_id": CHIP[:8] + bytes(56), **wishes(chip_ids=[CHIP[:8].hex()])},
        Outcome.PASSED,
        "is enrolled",
    ),
    # A masked chip is no chip, whatever a policy lists.
    (
        "chip_allowed",
        {"chip_id": bytes(64), "vek_kind": VekKind.VLEK, **wishes(chip_ids=["00" * 64])},
        Outcome.FAILED,
        "does not list",
    ),
]


@pytest.mark.parametrize(("check", "changes", "outcome", "word"), CASES)
def test_platform_check(check: str, changes: dict[str, Any], outcome: Outcome, word: str) -> None:
    finding = getattr(checks, f"check_{check}")(subject(**changes))
    assert (finding.outcome, word in finding.why) == (outcome, True), finding


BYTE = st.integers(0, 255)


@given(snp=BYTE, floor=BYTE, which=st.sampled_from(["reported_tcb", "committed_tcb", "launch_tcb"]))
def test_a_floor_holds_for_each_tcb_alone(snp: int, floor: int, which: str) -> None:
    wished = policy({"minimum_tcb": {"Milan": {"snp": floor}}})
    high = {"reported_tcb": 255, "committed_tcb": 255, "launch_tcb": 255, which: snp}
    finding = checks.check_tcb_minimum(
        subject(policy=wished, **{name: tcb_bytes(snp=value) for name, value in high.items()})
    )
    assert (finding.outcome is Outcome.PASSED) == (snp >= floor)
