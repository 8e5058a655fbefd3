"""Two verifiers that other people wrote, from PyPI, as functions from an exhibit to verdicts.

Both are asked offline, at a time and under roots that we choose: whether the report is genuine, by
the function that their users call, and about single checks where they have them apart. What they
refuse by policy alone (debug, VMPL) is allowed, unless it is what is asked.
"""

import base64
import io
import ssl
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import Any, Protocol
from unittest.mock import patch

from cryptography import x509
from omne_attest import snp as omne
from OpenSSL import crypto
from tinfoil.attestation import abi_sev, attestation_sev, validate_sev, verify_sev

from app.appraisal.findings import CheckId
from tests.interop.peers.verdict import Answer, Verdict

GENUINE = "genuine"  # beside the names of checks
ACCEPTS = Verdict(Answer.ACCEPTS)

_EVERY_VMPL = 0xFFFFFFFF
_GUEST_VMPL = 3
_SVSM_VMPL = 0
_HWID_SIZE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhibit:
    """A report and the certificates offered with it, as bytes, and what they are judged against.

    Attributes:
        at: the time of the appraisal.
        trusted: SHA-256 of the DER of every root in force.
        report_data: the 64 bytes to ask for, if any.
        svsm: the report speaks for an SVSM's services, so it must come from VMPL 0.
    """

    report: bytes
    leaf: bytes
    intermediate: bytes
    root: bytes
    at: datetime
    trusted: frozenset[bytes]
    report_data: bytes | None = None
    svsm: bool = False

    @property
    def root_digest(self) -> bytes:
        """SHA-256 of the offered root."""
        return sha256(self.root).digest()


class Oracle(Protocol):
    """An independent verifier."""

    @property
    def name(self) -> str:
        """What the table of differences calls it."""

    @property
    def not_signed(self) -> str:
        """Its words for a signature that does not verify."""

    def judge(self, exhibit: Exhibit) -> dict[str, Verdict]:
        """Its verdicts by check, as far as it has any; none where it cannot be asked at all."""

    def signed(self, report: bytes, leaf: bytes) -> Verdict:
        """Did the key of this leaf sign this report? What it cannot read it refuses, too."""


class OmneAttest:
    """omne-attest: VCEKs with a HWID of 64 bytes, and no clock.

    It wants one pinned root: the one offered if that is trusted, otherwise any that is.
    """

    name = "omne-attest"
    not_signed = omne.FailKind.REPORT_SIGNATURE.value

    def judge(self, exhibit: Exhibit) -> dict[str, Verdict]:
        """As a whole and, where it can read report and leaf, by its steps."""
        pin = exhibit.root_digest if exhibit.root_digest in exhibit.trusted else min(exhibit.trusted)
        chain = (exhibit.leaf, exhibit.intermediate, exhibit.root, pin)
        verdicts = {GENUINE: self._ask(omne.verify, exhibit.report, *chain, _omne_policy())}
        try:
            report, leaf = omne.Report.parse(exhibit.report), _load(exhibit.leaf)
        except (omne.Fail, ValueError):
            return verdicts
        verdicts[CheckId.SIGNATURE] = self._ask(report.verify_signature, exhibit.leaf)
        verdicts[CheckId.CHAIN] = self._ask(omne.verify_chain, *chain)
        if len(_extension(leaf, omne.OID_HW_ID)) >= _HWID_SIZE:
            verdicts |= self._binding(report, exhibit.leaf)
        policies = {
            CheckId.VMPL: _omne_policy(max_vmpl=_SVSM_VMPL if exhibit.svsm else _GUEST_VMPL),
            CheckId.POLICY_DEBUG: _omne_policy(reject_debug=True),
        }
        if exhibit.report_data is not None:
            policies[CheckId.REPORT_DATA] = _omne_policy(report_data=exhibit.report_data)
        return verdicts | {check: self._ask(report.check_policy, wish) for check, wish in policies.items()}

    def signed(self, report: bytes, leaf: bytes) -> Verdict:
        """Its parser and its signature check."""
        return self._ask(lambda: omne.Report.parse(report).verify_signature(leaf))

    def _binding(self, report: Any, leaf: bytes) -> dict[str, Verdict]:
        """The HWID and then, if that is the chip's, the TCB."""
        bound = self._ask(report.verify_vcek_binding, leaf)
        if bound.detail.startswith(omne.FailKind.CHIP_ID_MISMATCH.value):
            return {CheckId.VEK_HWID: bound}
        return {CheckId.VEK_HWID: ACCEPTS, CheckId.VEK_TCB: bound}

    @staticmethod
    def _ask(step: Callable[..., object], *arguments: object) -> Verdict:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cryptography's, of serial number 0
            try:
                step(*arguments)
            except omne.Fail as refusal:
                return Verdict(Answer.REFUSES, f"{refusal.kind.value}: {refusal}")
            except Exception as error:  # noqa: BLE001 -- whatever else it raises is a crash
                return Verdict(Answer.FAILS, repr(error))
        return ACCEPTS


def _omne_policy(
    *, max_vmpl: int = _EVERY_VMPL, reject_debug: bool = False, report_data: bytes | None = None
) -> omne.Policy:
    return omne.Policy(max_vmpl=max_vmpl, reject_debug=reject_debug, report_data=report_data)


class Tinfoil:
    """tinfoil: VCEKs of Genoa only.

    The Genoa chain that it carries is exchanged for the one that is offered, so it can be asked
    about trusted roots only; the clock of its certificate store is set, its network taken away.
    """

    name = "tinfoil"
    not_signed = "Attestation signature verification failed"

    def judge(self, exhibit: Exhibit) -> dict[str, Verdict]:
        """As a whole and, where it can read report and certificates, by its parts."""
        if exhibit.root_digest not in exhibit.trusted:
            return {}
        with _in_place_of_its_own(exhibit):
            verdicts = {GENUINE: self._ask(lambda: _verify(exhibit))}
            try:
                report = abi_sev.Report(exhibit.report)
                chain = _chain(exhibit)
            except ValueError:
                return verdicts
            return verdicts | {check: self._ask(part) for check, part in _parts(report, chain)}

    def signed(self, report: bytes, leaf: bytes) -> Verdict:
        """Its parser and its signature check."""
        certificate = _load(leaf)
        return self._ask(lambda: verify_sev._verify_report_signature(certificate, abi_sev.Report(report)))

    @staticmethod
    def _ask(step: Callable[[], object]) -> Verdict:
        """It refuses by an exception, or by False after it printed why."""
        with redirect_stdout(io.StringIO()) as words:
            try:
                refusal = "" if step() is not False else "False"
            except (ValueError, attestation_sev.SevAttestationError) as error:
                refusal = str(error)
            except Exception as error:  # noqa: BLE001 -- whatever else it raises is a crash
                return Verdict(Answer.FAILS, repr(error))
        return Verdict(Answer.REFUSES, f"{refusal}: {words.getvalue().strip()}") if refusal else ACCEPTS


def _verify(exhibit: Exhibit) -> None:
    attestation_sev.verify_sev_report(
        base64.b64encode(exhibit.report).decode(),
        is_compressed=False,
        validation_options=validate_sev.ValidationOptions(),
        vcek_der=exhibit.leaf,
    )


def _parts(report: Any, chain: Any) -> Iterator[tuple[CheckId, Callable[[], object]]]:
    yield CheckId.SIGNATURE, lambda: verify_sev._verify_report_signature(chain.vcek, report)
    if report.productName == "Genoa":
        yield CheckId.CHAIN, chain.verify_chain
    tcb = abi_sev.TCBParts.from_int(report.reported_tcb)
    yield CheckId.VEK_TCB, lambda: chain.validate_vcek_tcb(tcb)
    if not report.signer_info_parsed.maskChipKey:
        yield CheckId.VEK_HWID, lambda: chain.validate_vcek_hwid(report.chip_id)
    stated = report.policy_parsed
    for check, flag in ((CheckId.POLICY_DEBUG, "debug"), (CheckId.POLICY_MIGRATE_MA, "migrate_ma")):
        wish = abi_sev.SnpPolicy(**{**vars(stated), flag: False})
        yield check, partial(validate_sev._validate_policy, stated, wish)


def _chain(exhibit: Exhibit) -> Any:
    root, intermediate, leaf = map(_load, (exhibit.root, exhibit.intermediate, exhibit.leaf))
    return verify_sev.CertificateChain(ark=root, ask=intermediate, vcek=leaf)


def _extension(certificate: x509.Certificate, oid: str) -> bytes:
    values = (one.value for one in certificate.extensions if one.oid.dotted_string == oid)
    return next((value.public_bytes() for value in values), b"")


def _load(der: bytes) -> x509.Certificate:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of serial number 0
        return x509.load_der_x509_certificate(der)


@contextmanager
def _in_place_of_its_own(exhibit: Exhibit) -> Iterator[None]:
    """Tinfoil with the offered authorities, at the time of the exhibit, without a network."""

    class Store(crypto.X509Store):
        def __init__(self) -> None:
            super().__init__()
            self.set_time(exhibit.at)

    with (
        patch.multiple(
            verify_sev,
            ARK_CERT=ssl.DER_cert_to_PEM_cert(exhibit.root).encode(),
            ASK_CERT=ssl.DER_cert_to_PEM_cert(exhibit.intermediate).encode(),
            requests=None,
        ),
        patch.object(verify_sev.crypto, "X509Store", Store),
    ):
        yield


ORACLES: tuple[Oracle, ...] = (OmneAttest(), Tinfoil())
