import dataclasses
from uuid import UUID

import pytest

from app.wire.evidence import Evidence, Service


@pytest.mark.parametrize(
    ("service", "name", "guid"),
    [
        (Service.VTPM, "vtpm", "c476f1eb-0123-45a5-9641-b4e7dde5bfe3"),
        (Service.UEFI_MM, "uefi-mm", "a4453a59-9e1b-4787-a033-1986d6adbe55"),
        (Service.ALL, "all", "63849ebb-3d92-4670-a1ff-58f9c94b87bb"),
    ],
)
def test_what_an_svsm_can_be_asked_for(service: Service, name: str, guid: str) -> None:
    assert service == name
    assert service.guid == UUID(guid)


def test_a_report_alone_is_evidence() -> None:
    evidence = Evidence(report=bytes(1184), manifest=None)
    others = (evidence.manifest, evidence.certificates, evidence.nonce, evidence.service)
    assert others == (None, None, None, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        evidence.report = b""  # type: ignore[misc]
