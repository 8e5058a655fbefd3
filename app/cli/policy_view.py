"""What a policy asks for, in words."""

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from app.appraisal.policy import Policy, TcbFloors
from app.cli.terminal import BAD, CAUTION, FAINT, GOOD, STRONG, columns, joined, styled
from app.wire.tpm.pcr import PcrSelection

_STATES = {"allowed": GOOD, "deprecated": CAUTION, "denied": BAD}
_UNQUOTED = "Values are known of PCRs that are quoted only where a request asks for them: {}."
_NO_MEASUREMENT = "No launch digest is allowed: no verdict under this policy is affirming."


def policy_document(policy: Policy) -> dict[str, Any]:
    """The policy with its digest and every default written out."""
    return {
        "id": policy.id,
        "digest": policy.digest,
        "remarks": _remarks(policy),
        "policy": policy.model_dump(mode="json"),
    }


def render_policy(policy: Policy, name: str) -> Iterator[RenderableType]:
    """Name, digest and demands."""
    yield joined((name, FAINT), (": ", FAINT), ("appraisal policy ", STRONG), (policy.id, STRONG))
    yield styled(policy.digest, FAINT)
    yield Text()
    yield columns([(styled(what, FAINT), styled(asked)) for what, asked in _demands(policy)], indent=2)
    measurements = policy.reference_values.measurements
    if measurements:
        yield Text()
        yield styled("Launch digests", STRONG)
        yield columns(
            [
                (
                    styled(known.state, _STATES[known.state]),
                    styled(known.name),
                    styled(known.value.hex()),
                    styled(f"until {known.not_after}" if known.not_after else "", FAINT),
                )
                for known in measurements
            ],
            indent=2,
        )
    for remark in _remarks(policy):
        yield Text()
        yield styled(remark, CAUTION)


def _remarks(policy: Policy) -> list[str]:
    allowed = [known for known in policy.reference_values.measurements if known.state == "allowed"]
    remarks = [] if allowed else [_NO_MEASUREMENT]
    quoted = policy.policy.vtpm.pcrs
    unquoted = {
        bank: sorted(rest)
        for bank, registers in policy.reference_values.vtpm.pcrs.items()
        if (rest := set(registers) - set(quoted.get(bank, ())))
    }
    if unquoted:
        remarks.append(_UNQUOTED.format(PcrSelection.of(unquoted)))
    return remarks


def _demands(policy: Policy) -> Iterator[tuple[str, str]]:
    root, asked, vtpm = policy.root_of_trust, policy.policy, policy.reference_values.vtpm
    yield "product lines", ", ".join(root.product_lines) or "none"
    yield "revocation", _revocation(policy)
    if root.disallow_network:
        yield "network", "not used"
    if root.allow_masked_chip_id:
        yield "masked CHIP_ID", "accepted"
    if root.allow_simulator is False:
        yield "simulator", "refused, even where its root is trusted"
    yield "report version", f"at least {asked.minimum_report_version}"
    if asked.vmpl is not None:
        yield "VMPL", f"{asked.vmpl} (of SVSM evidence always 0)"
    flags = asked.guest_policy.model_dump()
    permissions = ("debug", "migrate_ma", "smt", "cxl")
    yield "guest may allow", ", ".join(flag for flag in permissions if flags[flag]) or "nothing"
    demands = [flag for flag, on in flags.items() if on is True and flag not in permissions]
    yield "guest must demand", ", ".join(demands) or "nothing"
    if asked.guest_policy.abi_major or asked.guest_policy.abi_minor:
        yield "firmware ABI", f"at least {asked.guest_policy.abi_major}.{asked.guest_policy.abi_minor}"
    yield from _floors("TCB, at least", asked.minimum_tcb)
    yield from _floors("launch TCB, at least", asked.minimum_launch_tcb)
    yield from _floors("TCB, recommended", asked.recommended_tcb)
    for what, floors in (
        ("microcode, at least", asked.minimum_microcode),
        ("microcode, recommended", asked.recommended_microcode),
    ):
        if floors:
            yield what, ", ".join(f"{part}: {level}" for part, level in floors.items())
    yield "firmware", _firmware(policy)
    wishes = {name: wish for name, wish in asked.platform_info if wish not in {"any", 0} or wish is False}
    wished = [f"{name}={_shown(wish)}" for name, wish in wishes.items() if not name.startswith("required")]
    wished += [
        f"{name} 0x{mask:x}"
        for name, mask in (
            ("required_set", asked.platform_info.required_set),
            ("required_clear", asked.platform_info.required_clear),
        )
        if mask
    ]
    yield "platform", ", ".join(wished) or "anything"
    for part, floor in asked.mitigation_vectors.items():
        yield f"mitigations, {part}", f"launch 0x{floor.launch:x}, current 0x{floor.current:x}"
    yield "identity", _identity(policy)
    yield "claims required", ", ".join(asked.required_claims) or "none"
    yield "vTPM manifest", "version " + " or ".join(vtpm.manifest_versions)
    yield "EK template", " or ".join(vtpm.ek_templates) or "any of the TCG's"
    yield "EKs enrolled", str(len(vtpm.ek_sha256)) if vtpm.ek_sha256 else "any"
    yield "quote", "required" if asked.vtpm.require_quote else "judged where there is one"
    yield "PCRs to quote", str(asked.vtpm.selection)
    yield "PCR values known", str(PcrSelection.of(vtpm.pcrs)) if vtpm.pcrs else "of none"
    yield "event log", "required" if asked.vtpm.require_event_log else "judged where there is one"
    wish = asked.vtpm.secure_boot
    yield "Secure Boot", "on or off" if wish == "any" else "must be on" if wish else "must be off"


def _revocation(policy: Policy) -> str:
    root = policy.root_of_trust
    if not root.check_crl:
        return "no CRL is looked for"
    without = {"warn": "warns", "deny": "gives no verdict", "ignore": "is ignored"}[root.crl_unavailable]
    return f"by CRL; a missing or stale one {without}"


def _floors(what: str, floors: TcbFloors) -> Iterator[tuple[str, str]]:
    for line, floor in floors.items():
        levels = {name: level for name, level in floor.tcb().components().items() if level}
        yield f"{what}, {line}", "  ".join(f"{name} {level}" for name, level in levels.items()) or "nothing"


def _firmware(policy: Policy) -> str:
    asked = policy.policy
    parts = []
    if asked.minimum_version is not None:
        parts.append(f"at least {asked.minimum_version}.{asked.minimum_build}")
    elif asked.minimum_build:
        parts.append(f"at least build {asked.minimum_build}")
    parts.append("provisional accepted" if asked.permit_provisional_firmware else "committed")
    return ", ".join(parts)


def _identity(policy: Policy) -> str:
    asked = policy.policy
    parts = {
        "an ID block": asked.require_id_block,
        "an author key": asked.require_author_key,
        f"one of {len(asked.trusted_id_key_hashes)} ID keys": asked.trusted_id_key_hashes,
        f"one of {len(asked.trusted_author_key_hashes)} author keys": asked.trusted_author_key_hashes,
        f"one of {len(asked.host_data)} HOST_DATA": asked.host_data,
        "FAMILY_ID": asked.family_id is not None,
        "IMAGE_ID": asked.image_id is not None,
        f"GUEST_SVN at least {asked.minimum_guest_svn}": asked.minimum_guest_svn,
        f"one of {len(asked.chip_ids)} chips": asked.chip_ids,
        f"one of {len(asked.csp_ids)} providers": asked.csp_ids,
    }
    return ", ".join(name for name, wanted in parts.items() if wanted) or "any"


def _shown(wish: object) -> str:
    return str(wish).lower()
