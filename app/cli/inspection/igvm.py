"""An IGVM file: what it is for, what SEV-SNP would load of it, and the launch digest of that."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from app.cli.inspection.report import guest_policy_rows
from app.cli.inspection.sheet import Row, Section, Sheet, hexadecimal
from app.errors import WireError
from app.trust.id_block import id_block_problems
from app.wire.bits import GuestPolicy
from app.wire.igvm.file import IgvmFile
from app.wire.igvm.headers import VpContext
from app.wire.igvm.id_block import SnpIdBlock
from app.wire.igvm.snp import SnpLaunch
from app.wire.launch_digest import depends_on_zero_pages, launch_digest, page_counts

_ZEROS = "pages without data as pages of zeros: QEMU, Hyper-V"
_NATIVE = "pages without data as native zero pages: Vanadium"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A launch, and the digest for each way to load pages without data."""

    launch: SnpLaunch
    normal: bytes
    native: bytes  # the same where no page lacks data

    @classmethod
    def of(cls, launch: SnpLaunch) -> "Measurement":
        """Compute both."""
        normal = launch_digest(launch)
        native = launch_digest(launch, native_zero=True) if depends_on_zero_pages(launch) else normal
        return cls(launch=launch, normal=normal, native=native)

    def digest(self, *, native_zero: bool) -> bytes:
        """The digest for one way."""
        return self.native if native_zero else self.normal

    def id_block_problems(self, *, native_zero: bool) -> tuple[str, ...]:
        """Why the firmware would refuse to launch under the file's own ID block; none without a block."""
        block, policy = self.launch.id_block, self.launch.guest_policy
        if block is None:
            return ()
        problems = id_block_problems(block, policy.policy if policy is not None else 0)
        if block.launch_digest != self.digest(native_zero=native_zero):
            other = block.launch_digest == self.digest(native_zero=not native_zero)
            hint = f" (it is the digest with {_ZEROS if native_zero else _NATIVE})" if other else ""
            problems = (f"the ID block is for another launch digest{hint}", *problems)
        return problems


def igvm_sheet(raw: bytes) -> Sheet:
    """Lay a file open.

    Raises:
        WireError: it is not an IGVM file. One that is not for SEV-SNP, or whose digest is not
            settled, is laid open all the same, and the sheet says why there is no digest.
    """
    file = IgvmFile.parse(raw)
    try:
        return measurement_sheet(Measurement.of(SnpLaunch.of(file)))
    except WireError as error:
        return _sheet(file, (f"No launch digest of SEV-SNP: {error.reason}.",), (), {"snp": None})


def measurement_sheet(found: Measurement) -> Sheet:
    """A file for SEV-SNP with its digest."""
    return _sheet(found.launch.file, (), _sections(found), {"snp": measurement_document(found)})


def measurement_document(found: Measurement) -> dict[str, Any]:
    """What SEV-SNP makes of a file, for programs."""
    launch = found.launch
    policy, block = launch.guest_policy, launch.id_block
    return {
        "launch_digest": {"normal_zero": found.normal.hex(), "native_zero": found.native.hex()},
        "pages": {kind.name.lower(): count for kind, count in page_counts(launch).items()},
        "guest_policy": None if policy is None else _policy_document(policy.policy),
        "vmsas": [_vmsa_document(launch, context) for context in launch.contexts],
        "id_block": None if block is None else _id_block_document(block),
    }


def _sheet(file: IgvmFile, remarks: tuple[str, ...], sections: tuple[Section, ...], document: Any) -> Sheet:
    rows = tuple(
        Row(name=one.type.name, value=f"mask 0x{one.mask:x}", note=_boundary(one.shared_gpa_boundary))
        for one in file.platforms
    )
    named = "" if file.version is None else f", {file.version}"
    return Sheet(
        kind="igvm",
        title=f"IGVM file, format version {file.fixed.version}{named}: {len(file.headers)} headers",
        size=len(file.raw),
        remarks=remarks,
        sections=(*sections, Section("Platforms", rows)),
        document={
            "format_version": file.fixed.version,
            "version": file.version,
            "headers": len(file.headers),
            "platforms": [{"type": one.type.name, "mask": one.mask} for one in file.platforms],
            **document,
        },
    )


def _boundary(value: int) -> str:
    return f"memory from 0x{value:x} on is shared" if value else ""


def _sections(found: Measurement) -> tuple[Section, ...]:
    launch = found.launch
    rows = [Row(name="digest", value=found.normal.hex(), note=_ZEROS if found.native != found.normal else "")]
    if found.native != found.normal:
        rows.append(Row(name="digest", value=found.native.hex(), note=_NATIVE))
    counts = sorted(page_counts(launch).items())
    rows += [Row(name=f"{kind.name.lower()} pages", value=str(count)) for kind, count in counts]
    sections = [Section("SEV-SNP launch", tuple(rows))]
    if launch.guest_policy is not None:
        sections.append(Section("Guest policy", _policy_rows(launch.guest_policy.policy)))
    sections += [Section("VMSA", _vmsa_rows(launch, context)) for context in launch.contexts]
    if launch.id_block is not None:
        sections.append(Section("ID block", _id_block_rows(launch.id_block)))
    return tuple(sections)


def _policy_rows(value: int) -> tuple[Row, ...]:
    try:
        return guest_policy_rows(GuestPolicy.parse(value))
    except WireError as error:
        return (Row(name="POLICY", value=f"0x{value:x}", note=error.reason, alarming=True),)


def _policy_document(value: int) -> dict[str, Any]:
    try:
        return {"raw": f"0x{value:x}", **dataclasses.asdict(GuestPolicy.parse(value))}
    except WireError as error:
        return {"raw": f"0x{value:x}", "fault": error.reason}


def _vmsa_rows(launch: SnpLaunch, context: VpContext) -> tuple[Row, ...]:
    vmsa = launch.vmsa(context)
    numbers = ("rip", "rsp", "cr0", "cr3", "cr4", "efer", "xcr0", "virtual_tom")
    return (
        Row(name="processor", value=str(context.vp_index), note=f"at 0x{context.gpa:x}"),
        Row(name="VMPL", value=str(vmsa.vmpl), alarming=vmsa.vmpl != 0),
        *(Row(name=name.upper(), value=f"0x{getattr(vmsa, name):x}") for name in numbers),
        Row(name="SEV_FEATURES", value=f"0x{vmsa.sev_features:x}", note=", ".join(vmsa.features)),
    )


def _vmsa_document(launch: SnpLaunch, context: VpContext) -> dict[str, Any]:
    vmsa = launch.vmsa(context)
    values = {name: f"0x{value:x}" for name, value in dataclasses.asdict(vmsa).items() if name != "vmpl"}
    return {
        "processor": context.vp_index,
        "gpa": f"0x{context.gpa:x}",
        "vmpl": vmsa.vmpl,
        **values,
        "features": list(vmsa.features),
    }


def _id_block_rows(block: SnpIdBlock) -> tuple[Row, ...]:
    author = block.author_key.digest.hex() if block.author_key_enabled else "none"
    return (
        Row(name="launch digest", value=block.launch_digest.hex()),
        Row(name="FAMILY_ID", value=hexadecimal(block.family_id)),
        Row(name="IMAGE_ID", value=hexadecimal(block.image_id)),
        Row(name="GUEST_SVN", value=str(block.guest_svn)),
        Row(name="ID_KEY_DIGEST", value=block.id_key.digest.hex()),
        Row(name="AUTHOR_KEY_DIGEST", value=author),
    )


def _id_block_document(block: SnpIdBlock) -> dict[str, Any]:
    return {
        "launch_digest": block.launch_digest.hex(),
        "family_id": block.family_id.hex(),
        "image_id": block.image_id.hex(),
        "version": block.version,
        "guest_svn": block.guest_svn,
        "id_key_digest": block.id_key.digest.hex(),
        "author_key_digest": block.author_key.digest.hex() if block.author_key_enabled else None,
    }
