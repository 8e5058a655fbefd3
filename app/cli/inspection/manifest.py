"""What an SVSM vouches for: manifests of its services."""

from typing import Any

from app.cli.inspection.sheet import Row, Section, Sheet, hexadecimal, yes_no
from app.cli.inspection.tpm import public_document, public_rows, public_sheet
from app.errors import WireError
from app.wire import guid
from app.wire.manifest import EkManifest, KeyListManifest, Manifest, parse_manifest
from app.wire.services_manifest import ServicesManifest
from app.wire.uefi_mm import UefiMmManifest


def manifest_sheet(manifest: Manifest, size: int) -> Sheet:
    """Lay a manifest of any kind open."""
    match manifest:
        case EkManifest():
            sheet = public_sheet(manifest.ek, size=size)
            remarks = ("As a manifest: vTPM manifest version 0, exactly this key.",)
            return Sheet(
                kind="vtpm-manifest-0",
                title=sheet.title,
                size=size,
                remarks=remarks,
                sections=sheet.sections,
                document=sheet.document,
            )
        case KeyListManifest():
            return _key_list_sheet(manifest, size)
        case ServicesManifest():
            return _services_sheet(manifest, size)
    return _uefi_mm_sheet(manifest, size)


def _key_list_sheet(manifest: KeyListManifest, size: int) -> Sheet:
    sections = (Section(f"Key {n}", public_rows(key)) for n, key in enumerate(manifest.keys, 1))
    return Sheet(
        kind="vtpm-manifest-1",
        title=f"vTPM manifest version 1: {len(manifest.keys)} keys",
        size=size,
        sections=tuple(sections),
        document={"keys": [public_document(key) for key in manifest.keys]},
    )


def _services_sheet(manifest: ServicesManifest, size: int) -> Sheet:
    rows, parts = [], []
    listed: list[dict[str, Any]] = []
    for entry in manifest.entries:
        name = guid.NAMES.get(entry.guid, "unknown service")
        rows.append(
            Row(
                name=name, value=str(entry.guid), note=f"{len(entry.data)} bytes" if entry.data else "no data"
            )
        )
        listed.append({"guid": str(entry.guid), "name": name, "size": len(entry.data)})
        if entry.data:
            parts.append((name, _service_sheet(entry.data)))
    return Sheet(
        kind="services-manifest",
        title=f"SVSM services manifest: {len(manifest.entries)} services",
        size=size,
        sections=(Section("Services", tuple(rows)),) if rows else (),
        remarks=() if rows else ("No service is listed.",),
        parts=tuple(parts),
        document={"services": listed},
    )


def _service_sheet(data: bytes) -> Sheet:
    try:
        return manifest_sheet(parse_manifest(data), len(data))
    except WireError:  # an unknown service may say what it likes
        return Sheet(
            kind="unknown-service-data",
            title="Data of a service that is not known here",
            size=len(data),
            sections=(Section("Data", (Row(name="bytes", value=hexadecimal(data)),)),),
            document={"hex": data.hex()},
        )


def _uefi_mm_sheet(manifest: UefiMmManifest, size: int) -> Sheet:
    facts = {
        "persistent": (manifest.persistent, "variables survive a reboot"),
        "secure_boot": (manifest.secure_boot, "Secure Boot is on: a platform key is enrolled"),
        "updatable": (manifest.updatable, "the guest may update db and dbx"),
    }
    rows = [
        Row(place="0x000", name="version", value=str(manifest.encode()[0])),
        Row(place="0x004", name="flags", value=f"0x{manifest.flags:x}"),
        *(Row(name=name, value=yes_no(value), note=note) for name, (value, note) in facts.items()),
    ]
    return Sheet(
        kind="uefi-mm-manifest",
        title="UEFI MM manifest: how UEFI variables are kept",
        size=size,
        sections=(Section("UEFI variables", tuple(rows)),),
        document={
            "uefi_mm": {name: value for name, (value, _) in facts.items()} | {"raw": f"0x{manifest.flags:x}"}
        },
    )
