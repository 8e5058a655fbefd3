"""One VM, with an SVSM that vouches for the EK of the TPM beside it: all of attestation, on real devices.

The provider hands out the EK that tpm2_createek made in this very TPM. Its reports are signed by
nobody: of the report, the binding is judged and the endorsements are not.
"""

import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.api.pcr_fields import every_pcr
from app.appraisal.appraise import appraise
from app.appraisal.findings import CheckId, Finding, Outcome
from app.appraisal.policy import default_policy
from app.appraisal.quote import Quote, QuoteExpectation
from app.appraisal.result import AttestationResult
from app.assembly import make_backend, make_roots, make_vtpm
from app.attester.attester import Attester, QuoteWish
from app.attester.endorsement_key import LiveState
from app.cli.roles import utc_now
from app.config import Settings
from app.errors import ChallengeRefusedError, TpmUnavailableError
from app.evidence.vtpm.ak_kind import AkKind
from app.tpm import handles
from app.tpm.causes import TpmCause
from app.tpm.client import Tpm
from app.tpm.transport import DeviceTransport
from app.trust.endorsements import Endorsements
from app.verifier.key_challenges import ActivationAnswer, CertifyAnswer, ChallengeAnswer, KeyChallenges
from app.verifier.single_use import MemorySingleUseStore
from app.wire.evidence import Evidence, Service
from app.wire.manifest import EkManifest, manifest_ek, parse_manifest
from app.wire.report import AttestationReport
from app.wire.tpm import algorithms as alg
from app.wire.tpm.duplicate import ImportBlob
from tests.kernel.loadable import Provider
from tests.kernel.test_tpm_device import BARE, MANAGED, TIMEOUT_S, tpm

REPOSITORY = Path(__file__).resolve().parents[2]
KINDS = pytest.mark.parametrize("kind", AkKind)
NO_ENDORSEMENTS = Endorsements(
    leaf=None, intermediate=None, root=None, crl=None, crl_why="not looked for", signature_valid=False
)
OF_THE_TPM = (
    CheckId.REPORT_DATA,
    CheckId.VMPL,
    CheckId.VTPM_BINDING,
    CheckId.VTPM_EK_TEMPLATE,
    CheckId.VTPM_AK,
    CheckId.VTPM_AK_BINDING,
    CheckId.QUOTE_SIGNATURE,
    CheckId.QUOTE_NONCE,
    CheckId.QUOTE_SELECTION,
    CheckId.QUOTE_DIGEST,
    CheckId.VTPM_EVENT_LOG,
)


@pytest.fixture(scope="module")
def ek(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The EK as tpm2_createek makes it, by template L-1 as an SVSM does: a bare TPMT_PUBLIC."""
    folder = tmp_path_factory.mktemp("ek")
    return made_by_tools(folder, "rsa")


def made_by_tools(folder: Path, algorithm: str) -> bytes:
    command = ["tpm2_createek", "-c", "ek.ctx", "-G", algorithm, "-u", "ek.pub", "-f", "tpmt"]
    environment = {**os.environ, "TPM2TOOLS_TCTI": f"device:{MANAGED}"}
    subprocess.run(command, cwd=folder, env=environment, check=True, timeout=TIMEOUT_S)
    return (folder / "ek.pub").read_bytes()


@pytest.fixture
def svsm(provider: Provider, ek: bytes) -> Provider:
    """A provider that vouches for this TPM's EK."""
    provider.set(ek=ek.hex())
    return provider


@contextlib.asynccontextmanager
async def attesting() -> AsyncIterator[Attester]:
    settings = Settings(backend="configfs", device_interval_s=0)
    backend = make_backend(settings)
    vtpm = make_vtpm(settings, backend)
    try:
        yield Attester(backend, interval_s=0, vtpm=vtpm)
    finally:
        await vtpm.aclose()
        await backend.aclose()


def wish(kind: AkKind) -> QuoteWish:
    return QuoteWish(key=kind, pcrs=every_pcr(), with_event_log=True)


def new_challenges() -> KeyChallenges:
    return KeyChallenges(MemorySingleUseStore(8), lifetime_s=600, clock=utc_now)


async def answered(
    challenges: KeyChallenges, attester: Attester, evidence: Evidence, kind: AkKind, *, by_import: bool
) -> ChallengeAnswer:
    """What the TPM answers to a verifier that has seen the evidence."""
    assert evidence.manifest is not None
    ek = manifest_ek(parse_manifest(evidence.manifest))
    assert ek is not None
    key = await attester.attestation_key(kind)
    assert key.ek == ek
    challenge = await (challenges.importing if by_import else challenges.activation)(ek, key.ak)
    if isinstance(challenge.blob, ImportBlob):
        made = await attester.certify(kind, challenge.blob)
        return CertifyAnswer.parse(challenge.id, made.certify_info, made.signature)
    return ActivationAnswer(challenge.id, await attester.activate(kind, challenge.blob))


async def judged(
    nonce: bytes, evidence: Evidence, challenges: KeyChallenges, answer: ChallengeAnswer
) -> AttestationResult:
    assert evidence.manifest is not None
    assert evidence.quote is not None
    return appraise(
        report=AttestationReport.parse(evidence.report),
        manifest=parse_manifest(evidence.manifest),
        manifest_bytes=evidence.manifest,
        nonce=nonce,
        endorsements=NO_ENDORSEMENTS,
        roots=make_roots(Settings()),
        policy=default_policy(),
        at=utc_now(),
        quote=Quote.parse(evidence.quote),
        expectation=QuoteExpectation(key_proof=await challenges.resolve(answer)),
    )


def findings(result: AttestationResult) -> dict[CheckId, Finding]:
    return {finding.check: finding for finding in result.findings}


def nothing_is_left() -> bool:
    """No key and no session: seen past the resource manager, which hides those of others."""
    with tpm(BARE) as client:
        kinds = (handles.TRANSIENT, handles.LOADED_SESSIONS, handles.POLICY_SESSIONS)
        return not any(client.handles(kind) for kind in kinds)


def test_the_manifest_is_the_ek_of_the_tools(svsm: Provider, ek: bytes) -> None:
    assert svsm.loaded

    async def attested() -> tuple[Evidence, Any]:
        async with attesting() as attester:
            evidence = await attester.attest(secrets.token_bytes(64), Service.VTPM)
            return evidence, await attester.endorsement_key()

    evidence, told = asyncio.run(attested())
    assert evidence.manifest == ek
    manifest = parse_manifest(ek)
    assert isinstance(manifest, EkManifest)
    assert manifest.ek.template == "L-1"
    assert told.live.state is LiveState.MATCHES
    assert told.live.name == manifest.ek.name


@KINDS
@pytest.mark.parametrize("by_import", [False, True], ids=["activate", "import"])
def test_report_key_and_quote_in_one_session(svsm: Provider, kind: AkKind, *, by_import: bool) -> None:
    nonce, challenges, calls = secrets.token_bytes(64), new_challenges(), svsm.calls

    async def go() -> AttestationResult:
        async with attesting() as attester:
            evidence = await attester.attest(nonce, Service.VTPM, quote=wish(kind))
            answer = await answered(challenges, attester, evidence, kind, by_import=by_import)
            return await judged(nonce, evidence, challenges, answer)

    found = findings(asyncio.run(go()))
    assert {check: found[check].outcome for check in OF_THE_TPM} == dict.fromkeys(OF_THE_TPM, Outcome.PASSED)
    assert svsm.calls == calls + 1  # the device was asked for one report
    assert nothing_is_left()


def test_a_session_takes_its_own_nonce(svsm: Provider) -> None:
    assert svsm.loaded
    nonce, challenges = secrets.token_bytes(64), new_challenges()

    async def go() -> tuple[AttestationResult, AttestationResult]:
        async with attesting() as attester:
            evidence = await attester.attest(nonce, Service.VTPM, quote=wish(AkKind.P256))
            results = []
            for claimed in (nonce, bytes(64)):
                answer = await answered(challenges, attester, evidence, AkKind.P256, by_import=False)
                results.append(await judged(claimed, evidence, challenges, answer))
            return results[0], results[1]

    right, wrong = (findings(result) for result in asyncio.run(go()))
    for check in (CheckId.REPORT_DATA, CheckId.QUOTE_NONCE):
        assert (right[check].outcome, wrong[check].outcome) == (Outcome.PASSED, Outcome.FAILED)


def test_the_quote_of_another_session_does_not_fit(svsm: Provider) -> None:
    assert svsm.loaded
    nonce, challenges = secrets.token_bytes(64), new_challenges()

    async def go() -> AttestationResult:
        async with attesting() as attester:
            one = await attester.attest(nonce, Service.VTPM, quote=wish(AkKind.P256))
            other = await attester.attest(secrets.token_bytes(64), Service.VTPM, quote=wish(AkKind.P256))
            mixed = replace(one, quote=other.quote)
            answer = await answered(challenges, attester, mixed, AkKind.P256, by_import=False)
            return await judged(nonce, mixed, challenges, answer)

    found = findings(asyncio.run(go()))
    assert found[CheckId.QUOTE_NONCE].outcome is Outcome.FAILED
    assert found[CheckId.QUOTE_SIGNATURE].outcome is Outcome.PASSED


def test_a_challenge_for_another_ek_is_not_solved(svsm: Provider, tmp_path: Path) -> None:
    assert svsm.loaded
    (tmp_path / "other").mkdir()
    other = manifest_ek(parse_manifest(made_by_tools(tmp_path / "other", "ecc")))
    assert other is not None

    async def go() -> None:
        async with attesting() as attester:
            await attester.attest(secrets.token_bytes(64), Service.VTPM)
            key = await attester.attestation_key(AkKind.P256)
            challenge = await new_challenges().activation(other, key.ak)
            assert not isinstance(challenge.blob, ImportBlob)
            with pytest.raises(ChallengeRefusedError):
                await attester.activate(AkKind.P256, challenge.blob)

    asyncio.run(go())
    assert nothing_is_left()


def test_a_manifest_that_is_not_this_tpms_is_told(provider: Provider) -> None:
    assert provider.loaded  # vouches for a key that no TPM has

    async def go() -> Any:
        async with attesting() as attester:
            await attester.attest(secrets.token_bytes(64), Service.VTPM)
            return await attester.endorsement_key()

    assert asyncio.run(go()).live.state is LiveState.DIFFERS


def test_registers_that_are_extended_show_in_the_next_quote(svsm: Provider) -> None:
    assert svsm.loaded

    async def go() -> tuple[bytes | None, bytes | None]:
        async with attesting() as attester:
            values = []
            for _ in range(2):
                quoted = await attester.quote(secrets.token_bytes(64), wish(AkKind.P256))
                values.append(quoted.quote.pcrs.get(alg.SHA256, 16))
                with contextlib.closing(DeviceTransport(MANAGED)) as channel:
                    Tpm(channel, timeout_s=TIMEOUT_S).pcr_extend(16, {alg.SHA256: b"\x5a" * 32})
            return values[0], values[1]

    before, after = asyncio.run(go())
    assert before != after


def test_many_rounds_leave_nothing_in_the_tpm(svsm: Provider) -> None:
    rounds = 20

    async def go() -> None:
        async with attesting() as attester:
            for _ in range(rounds):
                await attester.attest(secrets.token_bytes(64), Service.VTPM, quote=wish(AkKind.P256))

    calls = svsm.calls
    asyncio.run(go())
    assert svsm.calls == calls + rounds
    assert nothing_is_left()


def test_without_the_device_there_are_reports(svsm: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    assert svsm.loaded
    monkeypatch.setenv("SVSM_ATTEST_TPM_DEVICE", "/dev/tpm7")

    async def go() -> None:
        async with attesting() as attester:
            assert (await attester.attest(secrets.token_bytes(64), Service.VTPM)).report
            probe = await attester.probe()
            assert probe.ready
            assert "report-only" in next(check.detail for check in probe.checks if check.name == "vtpm")
            with pytest.raises(TpmUnavailableError) as caught:
                await attester.quote(secrets.token_bytes(64), wish(AkKind.P256))
            assert caught.value.cause == TpmCause.MISSING

    asyncio.run(go())


def selftest(folder: Path) -> tuple[int, dict[str, str], str]:
    """Status, and what became of each line."""
    options = ("--offline", "--store", str(folder / "store"), "--json")
    # What the rig tells its tests would be unknown settings to the program.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SVSM_ATTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "selftest", *options],
        cwd=REPOSITORY,
        env=plain,
        capture_output=True,
        text=True,
        check=False,
        timeout=4 * TIMEOUT_S,
    )
    checks = json.loads(done.stdout)["checks"]
    return done.returncode, {check["name"]: check["status"] for check in checks}, done.stdout


def test_the_selftest_passes(svsm: Provider, tmp_path: Path) -> None:
    assert svsm.loaded
    status, lines, shown = selftest(tmp_path)
    assert status == 0, shown
    expected = (
        *("vtpm", "vtpm.quote", "attestation", "manifest", "vtpm.live_ek", "vtpm.ak_import"),
        *(check.value for check in OF_THE_TPM),
    )
    assert {name: lines.get(name) for name in expected} == dict.fromkeys(expected, "ok"), shown
    assert lines["certificates"] == "skip"  # nobody signed, and nobody may be asked
    assert nothing_is_left()


def test_the_selftest_finds_a_tpm_that_is_not_the_svsms(provider: Provider, tmp_path: Path) -> None:
    assert provider.loaded
    status, lines, shown = selftest(tmp_path)
    assert (status, lines["vtpm.live_ek"]) == (1, "fail"), shown
