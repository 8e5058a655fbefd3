"""The GUIDs of SVSM services and of certificate-table entries.

A GUID has two byte orders on the wire: the SVSM stores the mixed-endian form
(`UUID.bytes_le`), the GHCB certificate table the text order (`UUID.bytes`).
Sources: SVSM specification 58019 section 7; GHCB 56421; svsm kernel/src/protocols/attest.rs.
"""

from uuid import UUID

SIZE = 16

NULL = UUID(int=0)

# SVSM services
SERVICES_MANIFEST = UUID("63849ebb-3d92-4670-a1ff-58f9c94b87bb")
SERVICE_VTPM = UUID("c476f1eb-0123-45a5-9641-b4e7dde5bfe3")
SERVICE_UEFI_MM = UUID("a4453a59-9e1b-4787-a033-1986d6adbe55")

# Certificate table
VCEK = UUID("63da758d-e664-4564-adc5-f4b93be8accd")
VLEK = UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1")
ASK = UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782")  # carries the ASVK of a VLEK chain too
ARK = UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae")
CRL = UUID("92f81bc3-5811-4d3d-97ff-d19f88dc67ea")
EXTRA_PLATFORM_INFO = UUID("ecae0c0f-9502-43b1-afa2-0ae2e0d565b6")

NAMES: dict[UUID, str] = {
    SERVICES_MANIFEST: "SVSM services manifest",
    SERVICE_VTPM: "vTPM",
    SERVICE_UEFI_MM: "UEFI MM",
    VCEK: "VCEK",
    VLEK: "VLEK",
    ASK: "ASK or ASVK",
    ARK: "ARK",
    CRL: "CRL",
    EXTRA_PLATFORM_INFO: "extra platform information",
}
