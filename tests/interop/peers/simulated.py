"""Simulated evidence as cases: every shape the simulator has, and every fault.

Simulated certificates say SIMULATED where AMD's name an organisation. `check` demands AMD's
names, so it would judge nothing else: everything is made a second time, under AMD's names.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from unittest.mock import patch

from cryptography import x509
from cryptography.x509.oid import NameOID

from app.evidence.simulator import authority
from app.evidence.simulator.backend import SimulatorBackend
from app.evidence.simulator.faults import Fault
from app.evidence.simulator.processor import REPORT_VERSIONS
from app.evidence.simulator.software_tpm import VtpmChoice
from app.trust.certificates import der
from app.trust.names import VekKind
from app.wire import guid
from app.wire.binding import NONCE_SIZE, expected_report_data
from app.wire.certificate_table import CertificateTable
from app.wire.evidence import Service
from app.wire.product import ProductLine
from tests.interop.peers.case import Case, Certificates
from tests.interop.peers.ours import GENUINE, REPORT_DATA_CHECK

NONCE = bytes(range(NONCE_SIZE))


@dataclass(frozen=True, slots=True)
class Shape:
    """What a simulator without a fault looks like."""

    line: ProductLine
    key: VekKind
    version: int

    def __str__(self) -> str:
        return f"{self.line.lower()}-{self.key}-v{self.version}"


SHAPES = tuple(Shape(*parts) for parts in product(ProductLine, VekKind, REPORT_VERSIONS))
FAULTY = Shape(ProductLine.GENOA, VekKind.VCEK, 5)  # the one on which every fault changes something


def simulated_cases(folder: Path, keys: Path) -> Iterator[Case]:
    """Cases whose files are in `folder`, by simulators whose keys are kept below `keys`.

    `simulated/` is sound evidence as it is; `renamed/sound/` is the same under AMD's names;
    `renamed/forged/` has a fault that leaves the report not genuine or not fresh, `renamed/other/`
    one that only a policy may mind: all with the simulator's root trusted. `untrusted/` is renamed
    sound evidence whose root nobody trusts.
    """
    for shape in SHAPES:
        yield _case(folder, keys, f"simulated/{shape}", shape)
    with patch.object(authority, "_name", _amd_name):
        for shape in SHAPES:
            case = _case(folder, keys, f"renamed/sound/{shape}", shape)
            yield case
            if shape.version == max(REPORT_VERSIONS):
                yield replace(case, name=f"untrusted/{shape}", trusted=None, ca_bundle=None)
        for fault in Fault:
            # Otherwise there are no certificates to judge, or the fault is in a quote and not in a report.
            if fault.effect.kds_status is None and not fault.effect.needs_tpm:
                kind = "forged" if {*GENUINE, REPORT_DATA_CHECK} & set(fault.checks) else "other"
                yield _case(folder, keys, f"renamed/{kind}/{fault}", FAULTY, fault)


def _case(parent: Path, keys: Path, name: str, shape: Shape, fault: Fault | None = None) -> Case:
    backend = SimulatorBackend(
        line=shape.line,
        report_version=shape.version,
        signing_key=shape.key,
        fault=fault,
        state_dir=keys / name.partition("/")[0],
        vtpm=VtpmChoice.NONE,
    )
    evidence = asyncio.run(backend.collect(NONCE, Service.VTPM))
    table = CertificateTable.parse(evidence.certificates or b"")
    vlek = table.get(guid.VLEK)
    folder = parent / name
    folder.mkdir(parents=True)
    files = {
        "report.bin": evidence.report,
        "table.bin": evidence.certificates,
        "leaf.der": vlek or table.get(guid.VCEK),
        "intermediate.der": table.get(guid.ASK),
        "ark.der": table.get(guid.ARK),
        "trusted.der": der(backend.authority.ark),
    }
    for file, content in files.items():
        (folder / file).write_bytes(content or b"")
    return Case(
        name=name,
        line=shape.line,
        report=folder / "report.bin",
        offered=Certificates(
            leaf=folder / "leaf.der",
            intermediate=folder / "intermediate.der",
            root=folder / "ark.der",
            vlek=vlek is not None,
        ),
        table=folder / "table.bin",
        trusted=folder / "trusted.der",
        ca_bundle=(folder / "intermediate.der", folder / "trusted.der"),
        report_data=expected_report_data(NONCE, evidence.manifest or b""),
    )


def _amd_name(common_name: str) -> x509.Name:
    attributes = {
        NameOID.ORGANIZATIONAL_UNIT_NAME: "Engineering",
        NameOID.COUNTRY_NAME: "US",
        NameOID.LOCALITY_NAME: "Santa Clara",
        NameOID.STATE_OR_PROVINCE_NAME: "CA",
        NameOID.ORGANIZATION_NAME: "Advanced Micro Devices",
        NameOID.COMMON_NAME: common_name,
    }
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes.items()])
