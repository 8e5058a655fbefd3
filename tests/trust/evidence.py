"""Published reports with their certificates, and reports signed with a key of the test's own."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from omne_attest import vectors as omne

from app.trust.certificates import load_certificate
from app.wire.product import ProductLine
from app.wire.report import AttestationReport, KeyInfo, Signature
from app.wire.tcb import TcbVersion
from tests.trust import pki


@dataclass(frozen=True)
class RealChain:
    """A real report and the chain of its key, as bytes."""

    report: bytes
    leaf: bytes
    intermediate: bytes
    root: bytes

    @property
    def parsed_report(self) -> AttestationReport:
        return AttestationReport.parse(self.report)

    @property
    def certificates(self) -> tuple[x509.Certificate, x509.Certificate, x509.Certificate]:
        leaf, intermediate, root = (
            load_certificate(raw, "sample") for raw in (self.leaf, self.intermediate, self.root)
        )
        return leaf, intermediate, root


@cache
def milan() -> RealChain:
    """A report of a real Milan machine (version 2, debug allowed), from the package omne-attest."""
    return RealChain(omne.attestation(), omne.vcek(), omne.ask(), omne.ark())


def chain_of(case: dict[str, Any], vectors: Path) -> RealChain:
    """The files of one case of vectors.json."""
    files = case["files"]
    names = (
        files["report"],
        files.get("vcek") or files["vlek"],
        files.get("ask") or files["asvk"],
        files["ark"],
    )
    return RealChain(*((vectors / name).read_bytes() for name in names))


def cases(index: dict[str, Any], *kinds: str) -> Iterator[dict[str, Any]]:
    """Every case of these kinds that has certificates."""
    for kind in kinds:
        yield from (case for case in index[kind] if "ark" in case["files"])


def signed_report(
    *,
    chip_id: bytes = pki.HWID,
    tcb: TcbVersion = pki.MILAN_TCB,
    line: ProductLine = ProductLine.MILAN,
    key: str = "vek",
    signing_key: int = 0,
    version: int = 2,
    **changes: Any,
) -> AttestationReport:
    """A report like Milan's real one, for another chip and TCB, signed with the named key."""
    raw_tcb = tcb.encode(line.tcb_layout)
    report = replace(
        milan().parsed_report,
        version=version,
        chip_id=chip_id.ljust(64, b"\0"),
        current_tcb=raw_tcb,
        reported_tcb=raw_tcb,
        committed_tcb=raw_tcb,
        launch_tcb=raw_tcb,
        key_info=KeyInfo(author_key_en=False, mask_chip_key=False, signing_key=signing_key),
        **changes,
    )
    signature = pki.ec_key(key).sign(report.signed_bytes, ec.ECDSA(hashes.SHA384()))
    r, s = utils.decode_dss_signature(signature)
    return replace(report, signature=Signature(r=r, s=s))
