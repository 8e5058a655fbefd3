"""Checks of the platform: firmware, TCB, mitigations, platform information, chip.

TCBs compare component by component; the microcode byte compares only within one CPU stepping.
"""

from app.appraisal.findings import CheckId, Finding, failed, not_requested, passed, warned
from app.appraisal.policy import MitigationFloor, TcbFloor, TcbFloors
from app.appraisal.subject import Subject
from app.wire.report import MITIGATION_SINCE, FirmwareVersion

_UPDATE = "Update the host's firmware and commit it."


def check_report_version(subject: Subject) -> Finding:
    """Is the report's version at least the one that the policy asks for?"""
    version, least = subject.report.version, subject.policy.policy.minimum_report_version
    if version >= least:
        return passed(CheckId.REPORT_VERSION, f"at least {least}", version, "The report is recent enough.")
    why = "An older report leaves out fields that the policy relies on."
    return failed(CheckId.REPORT_VERSION, f"at least {least}", version, why, _UPDATE)


def check_tcb_relations(subject: Subject) -> Finding:
    """Is REPORTED within COMMITTED, COMMITTED within CURRENT, and LAUNCH within CURRENT?"""
    expected = "reported <= committed <= current and launch <= current"
    tcbs = subject.tcbs
    missing = [name for name, tcb in tcbs.items() if tcb is None]
    if missing:
        why = f"The layout of {', '.join(missing)} TCB does not fit the product line."
        return failed(CheckId.TCB_RELATIONS, expected, "unreadable", why)
    actual = "; ".join(f"{name} {tcb}" for name, tcb in tcbs.items())
    for low, high in (("reported", "committed"), ("committed", "current"), ("launch", "current")):
        lower, upper = tcbs[low], tcbs[high]
        if lower is not None and upper is not None and not upper.covers(lower):
            why = f"The {low} TCB exceeds the {high} TCB, which no firmware in order reports."
            return failed(CheckId.TCB_RELATIONS, expected, actual, why)
    return passed(CheckId.TCB_RELATIONS, expected, actual, "The four TCBs are in order.")


def check_tcb_minimum(subject: Subject) -> Finding:
    """Do REPORTED, COMMITTED and LAUNCH reach the floors; do they reach what is recommended?"""
    wish = subject.policy.policy
    launch_floors = {**wish.minimum_tcb, **wish.minimum_launch_tcb}
    floors = {"reported": wish.minimum_tcb, "committed": wish.minimum_tcb, "launch": launch_floors}
    advice = dict.fromkeys(floors, wish.recommended_tcb)
    asked = [*floors.values(), *advice.values(), wish.minimum_microcode, wish.recommended_microcode]
    actual = "; ".join(f"{name} {subject.tcbs[name]}" for name in floors)
    if not any(asked):
        return not_requested(CheckId.TCB_MINIMUM, actual, "The policy states no TCB floor.")
    below = [*_below(subject, floors), *_below_microcode(subject, wish.minimum_microcode)]
    if below:
        why = "A TCB is below the policy's floor."
        return failed(CheckId.TCB_MINIMUM, "; ".join(below), actual, why, _UPDATE)
    short = [*_below(subject, advice), *_below_microcode(subject, wish.recommended_microcode, strict=False)]
    if short:
        why = "A TCB reaches the floor but not what is recommended: known vulnerabilities are open."
        return warned(CheckId.TCB_MINIMUM, "; ".join(short), actual, why, _UPDATE)
    expected = f"floors of {subject.line}"
    return passed(CheckId.TCB_MINIMUM, expected, actual, "Every TCB reaches floor and recommendation.")


def _below(subject: Subject, floors: dict[str, TcbFloors]) -> list[str]:
    """What is missing; a line without a floor of its own has nothing asked of it."""
    missing: list[str] = []
    for name, per_line in floors.items():
        floor: TcbFloor | None = per_line.get(subject.line) if subject.line else None
        if per_line and subject.line is None:
            missing.append(f"{name}: no product line, so no floor can be met")
        tcb = subject.tcbs[name]
        if floor is not None and (tcb is None or not tcb.covers(floor.tcb())):
            missing.append(f"{name} at least {floor.tcb()}")
    return missing


def _below_microcode(subject: Subject, floors: dict[str, int], *, strict: bool = True) -> list[str]:
    """Microcode short of the floor of its stepping; a part without one fails where `strict`."""
    if not floors:
        return []
    cpuid = subject.report.cpuid
    floor = floors.get(str(cpuid)) if cpuid else None
    if floor is None:
        part = str(cpuid) if cpuid else "a report without CPUID"
        return [f"a microcode floor for {part}"] if strict else []
    low = [
        name
        for name in ("reported", "committed", "launch")
        if (tcb := subject.tcbs[name]) is None or tcb.microcode < floor
    ]
    return [f"{name} microcode at least {floor} on {cpuid}" for name in low]


def check_firmware(subject: Subject) -> Finding:
    """Is the firmware committed, not provisional, and new enough?"""
    report, wish = subject.report, subject.policy.policy
    committed, current = report.committed_version, report.current_version
    actual = f"current {current}, committed {committed}"
    expected = f"at least {wish.minimum_version or 'any'} build {wish.minimum_build}, committed"
    if wish.minimum_version is None:
        old = committed.build < wish.minimum_build
    else:
        major, minor = (int(part) for part in wish.minimum_version.split("."))
        old = committed < FirmwareVersion(major=major, minor=minor, build=wish.minimum_build)
    if old:
        why = "The committed firmware is older than the policy asks for."
        return warned(CheckId.FIRMWARE, expected, actual, why, _UPDATE)
    provisional = committed != current or report.committed_tcb != report.current_tcb
    if provisional and not wish.permit_provisional_firmware:
        why = "The running firmware is provisional: the host can still roll it back."
        remedy = "Commit the firmware on the host, or set permit_provisional_firmware."
        return warned(CheckId.FIRMWARE, expected, actual, why, remedy)
    if committed > current:
        why = "The committed firmware is newer than the running one, which no firmware in order reports."
        return warned(CheckId.FIRMWARE, expected, actual, why)
    return passed(CheckId.FIRMWARE, expected, actual, "The firmware is as the policy asks.")


def check_mitigation_vectors(subject: Subject) -> Finding:
    """Do the mitigation vectors of a version 5 report have the bits asked for this part?"""
    report, floors = subject.report, subject.policy.policy.mitigation_vectors
    vectors = (report.launch_mit_vector, report.current_mit_vector)
    actual = (
        "none"
        if None in vectors
        else " ".join(
            f"{name}=0x{value or 0:x}" for name, value in zip(("launch", "current"), vectors, strict=True)
        )
    )
    if not floors:
        return not_requested(CheckId.MITIGATION_VECTOR, actual, "The policy asks for no mitigation bit.")
    floor: MitigationFloor | None = floors.get(str(report.cpuid)) if report.cpuid else None
    if floor is None:
        why = "The policy asks for mitigation bits but states none for this part."
        remedy = f"Add {report.cpuid or 'family/model/stepping'} to policy.mitigation_vectors."
        return failed(CheckId.MITIGATION_VECTOR, "bits for this part", actual, why, remedy)
    expected = f"launch=0x{floor.launch:x} current=0x{floor.current:x}"
    launch, current = (value or 0 for value in vectors)
    if floor.launch & ~launch or floor.current & ~current:
        why = "A mitigation that the policy asks for is not in force."
        if report.version < MITIGATION_SINCE:
            why = f"A report before version {MITIGATION_SINCE} has no mitigation vectors."
        return failed(CheckId.MITIGATION_VECTOR, expected, actual, why, _UPDATE)
    return passed(CheckId.MITIGATION_VECTOR, expected, actual, "Every mitigation asked for is in force.")


def check_platform_info(subject: Subject) -> Finding:
    """Does PLATFORM_INFO have the bits that the policy wishes for?"""
    info, wish = subject.report.platform_info, subject.policy.policy.platform_info
    flags = info.flags()
    wished = {name: value for name in flags if (value := getattr(wish, name)) != "any"}
    actual = f"0x{info.raw:x} ({', '.join(name for name, on in flags.items() if on) or 'nothing'})"
    if not wished and not wish.required_set and not wish.required_clear:
        return not_requested(CheckId.PLATFORM_INFO, actual, "The policy asks nothing of the platform.")
    masks = [
        f"{word} 0x{mask:x}"
        for word, mask in (("set", wish.required_set), ("clear", wish.required_clear))
        if mask
    ]
    expected = ", ".join([*(f"{name}={str(value).lower()}" for name, value in wished.items()), *masks])
    wrong = [name for name, value in wished.items() if flags[name] != value]
    if wish.required_set & ~info.raw or wish.required_clear & info.raw:
        wrong.append("masked bits")
    if wrong:
        why = f"The platform is not as wished: {', '.join(wrong)}."
        remedy = "Change the host's settings or firmware, or the policy's platform_info."
        return warned(CheckId.PLATFORM_INFO, expected, actual, why, remedy)
    return passed(CheckId.PLATFORM_INFO, expected, actual, "The platform is as wished.")


def check_chip_allowed(subject: Subject) -> Finding:
    """Is the chip one of the enrolled ones?"""
    allowed, chip_id = subject.policy.policy.chip_ids, subject.report.chip_id
    if not allowed:
        return not_requested(CheckId.CHIP_ALLOWED, chip_id.hex(), "The policy enrols no chip.")
    if chip_id in allowed and any(chip_id):
        why = "The chip is enrolled."
        return passed(CheckId.CHIP_ALLOWED, "an enrolled chip", chip_id.hex(), why)
    why = "The policy does not list this chip."
    return failed(CheckId.CHIP_ALLOWED, "an enrolled chip", chip_id.hex(), why, "Add it to policy.chip_ids.")
