"""The two peers as functions from a case to a verdict.

Both are asked for what `genuine` means here and for nothing more: a report signed by a key
that AMD's roots vouch for, at the TCB it reports, on the chip it names.
"""

import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from app.wire import guid
from app.wire.certificate_table import CertificateEntry, CertificateTable
from tests.interop.peers.case import Case, Certificates
from tests.interop.peers.verdict import Answer, Verdict, execute

_PERMISSIVE_POLICY = 1 << 16 | 1 << 17 | 1 << 18 | 1 << 19 | 1 << 21  # SMT, must-be-one, MA, DEBUG, CXL
_CHECK_ANSWERS = {0: Answer.ACCEPTS, 1: Answer.REFUSES, 2: Answer.REFUSES, 5: Answer.REFUSES}
_SNPGUEST_ANSWERS = {0: Answer.ACCEPTS, 1: Answer.REFUSES}


class Peer(Protocol):
    """An independent verifier."""

    @property
    def name(self) -> str:
        """What differences.toml calls it."""

    @property
    def has_clock(self) -> bool:
        """Does it judge validity periods (always at the current time)?"""

    def judge(self, case: Case) -> Verdict | None:
        """Its verdict; None where it has no way to take the case's input."""


@dataclass(frozen=True, slots=True)
class Check:
    """go-sev-guest's `check`: AMD's VCEK roots embedded, others by file, certificates in a table.

    Its guest policy option is a ceiling, so every bit that allows something is set; provisional
    firmware is permitted; the network is off. Exit status: 2 verification, 5 validation (which
    compares TCB and HWID), 1 input it could not read (tools/check/README.md).
    """

    program: Path
    name: str = "check"
    has_clock: bool = True

    def judge(self, case: Case) -> Verdict:
        """Verify and validate report and table as `-inform bin` wants them: one after the other."""
        options = [
            "-network=false",
            "-provisional=true",
            f"-guest_policy={_PERMISSIVE_POLICY:#x}",
            f"-product={case.line}",
        ]
        if case.report_data is not None:
            options.append(f"-report_data={case.report_data.hex()}")
        with tempfile.TemporaryDirectory() as folder:
            if case.ca_bundle is not None:
                bundle = Path(folder, "bundle.pem")
                bundle.write_text("".join(ssl.DER_cert_to_PEM_cert(f.read_bytes()) for f in case.ca_bundle))
                options.append(f"-product_key_path={bundle}")
            evidence = Path(folder, "evidence.bin")
            evidence.write_bytes(case.report.read_bytes() + _table(case))
            return execute(self.program, *options, "-in", evidence).says(_CHECK_ANSWERS)


def _table(case: Case) -> bytes:
    if case.table is not None:
        return case.table.read_bytes()
    if case.offered is None:
        return b""
    leaf = guid.VLEK if case.offered.vlek else guid.VCEK
    files = ((leaf, case.offered.leaf), (guid.ASK, case.offered.intermediate), (guid.ARK, case.offered.root))
    return CertificateTable(tuple(CertificateEntry(name, f.read_bytes()) for name, f in files)).encode()


@dataclass(frozen=True, slots=True)
class Snpguest:
    """virtee's `snpguest`: certificates by name in a folder, whose ARK it takes as the root.

    It judges in two steps, the chain and then the report, and looks at no validity period.
    The processor model is told, as a version 2 report does not show it.
    """

    program: Path
    name: str = "snpguest"
    has_clock: bool = False

    def judge(self, case: Case) -> Verdict | None:
        """Accepts when both steps do; otherwise the answer of the first that does not."""
        if case.offered is None:
            return None
        report_data = () if case.report_data is None else ("--report-data", f"0x{case.report_data.hex()}")
        with tempfile.TemporaryDirectory() as folder:
            _name_certificates(case.offered, Path(folder))
            steps: tuple[tuple[str | Path, ...], ...] = (
                ("certs", folder),
                ("attestation", "--processor-model", case.line.lower(), *report_data, folder, case.report),
            )
            for step in steps:
                verdict = execute(self.program, "verify", *step).says(_SNPGUEST_ANSWERS)
                if verdict.answer is not Answer.ACCEPTS:
                    return verdict
        return Verdict(Answer.ACCEPTS)


def _name_certificates(offered: Certificates, folder: Path) -> None:
    leaf, intermediate = ("vlek", "asvk") if offered.vlek else ("vcek", "ask")
    for name, file in ((leaf, offered.leaf), (intermediate, offered.intermediate), ("ark", offered.root)):
        (folder / f"{name}.der").symlink_to(file.resolve())
