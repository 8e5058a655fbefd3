"""OpenSSL's command line as a second opinion on what app.trust decides."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.errors import AttestError
from app.trust.chain import UNTIMELY, verify_chain
from app.trust.crl import crl_fault
from app.trust.roots import TrustRoots
from app.trust.signature import verify_report_signature
from app.wire.report import AttestationReport
from tests.trust import pki
from tests.trust.evidence import RealChain, cases, chain_of, milan

AMD = TrustRoots.amd()


def agrees(*arguments: str | Path, cwd: Path) -> bool:
    done = subprocess.run(["openssl", *arguments], cwd=cwd, capture_output=True, check=False)
    return done.returncode == 0


def write(folder: Path, chain: RealChain) -> None:
    for name, certificate in zip(("leaf", "ask", "ark"), chain.certificates, strict=True):
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))


def openssl_accepts_chain(folder: Path) -> bool:
    options = ("-no_check_time", "-CAfile", "ark.pem", "-untrusted", "ask.pem", "leaf.pem")
    return agrees("verify", *options, cwd=folder)


def openssl_accepts_report(folder: Path, report: AttestationReport, leaf: x509.Certificate) -> bool:
    key = leaf.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "key.pem").write_bytes(key)
    (folder / "signed").write_bytes(report.signed_bytes)
    (folder / "signature").write_bytes(encode_dss_signature(report.signature.r, report.signature.s))
    return agrees("dgst", "-sha384", "-verify", "key.pem", "-signature", "signature", "signed", cwd=folder)


def we_accept_chain(chain: RealChain) -> bool:
    leaf, intermediate, root = chain.certificates
    problems = verify_chain(leaf, intermediate, root, AMD, pki.AT).problems
    return all(problem.fault in UNTIMELY for problem in problems)


def test_a_real_chain_and_report(tmp_path: Path) -> None:
    write(tmp_path, milan())
    leaf = milan().certificates[0]
    assert openssl_accepts_chain(tmp_path)
    assert we_accept_chain(milan())
    assert openssl_accepts_report(tmp_path, milan().parsed_report, leaf)
    assert verify_report_signature(milan().parsed_report, leaf)


def test_every_published_chain_and_its_altered_siblings(
    index: dict[str, Any], vectors: Path, tmp_path: Path
) -> None:
    verdicts = set()
    for case in cases(index, "real", "negatives"):
        if case.get("category") not in {None, "tampered certificate", "swapped"}:
            continue
        chain = chain_of(case, vectors)
        write(tmp_path, chain)
        ours, theirs = we_accept_chain(chain), openssl_accepts_chain(tmp_path)
        assert ours == theirs, case["id"]
        verdicts.add((case.get("category"), ours))
    assert verdicts >= {(None, True), ("tampered certificate", False), ("swapped", False)}


def test_every_published_signature_and_its_altered_siblings(
    index: dict[str, Any], vectors: Path, tmp_path: Path
) -> None:
    verdicts = set()
    for case in cases(index, "real", "negatives"):
        if case.get("category") not in {None, "tampered", "malleability"}:
            continue
        chain = chain_of(case, vectors)
        try:
            report, leaf = chain.parsed_report, chain.certificates[0]
        except AttestError:
            continue  # refused before there is anything to verify
        ours = verify_report_signature(report, leaf)
        assert ours == openssl_accepts_report(tmp_path, report, leaf), case["id"]
        verdicts.add((case.get("category"), ours))
    assert verdicts == {(None, True), ("tampered", False), ("malleability", True)}


@pytest.mark.parametrize("signer", ["ark", "stranger"])
def test_a_list(tmp_path: Path, ark: x509.Certificate, signer: str) -> None:
    listed = pki.crl(ark.subject, 1, key=signer)
    (tmp_path / "ark.pem").write_bytes(ark.public_bytes(Encoding.PEM))
    (tmp_path / "list.pem").write_bytes(listed.public_bytes(Encoding.PEM))
    command = ("openssl", "crl", "-in", "list.pem", "-CAfile", "ark.pem", "-noout")
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).stderr
    genuine = signer == "ark"
    assert (b"verify OK" in said, crl_fault(listed, ark) == "") == (genuine, genuine)
