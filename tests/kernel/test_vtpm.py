"""One VM, with an SVSM that vouches for the EK of the TPM beside it: all of attestation, on real devices.

The provider hands out the EK that tpm2_createek made in this very TPM. Its reports are signed by
nobody: of the report, the binding is judged and the endorsements are not.
"""

import asyncio
import contextlib
import errno
import os
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.api.pcr_fields import every_pcr
from app.appraisal.findings import CheckId, Outcome
from app.assembly import make_backend, make_vtpm
from app.attester.attester import Attester, QuoteWish
from app.attester.endorsement_key import LiveState
from app.config import Settings
from app.errors import ChallengeRefusedError, TpmUnavailableError
from app.evidence.vtpm.ak_kind import AkKind
from app.tpm import handles
from app.tpm.causes import TpmCause
from app.tpm.transport import DeviceTransport
from app.verifier.key_challenges import ActivationAnswer, CertifyAnswer, ChallengeAnswer, KeyChallenges
from app.wire.evidence import Evidence, Service
from app.wire.manifest import EkManifest, manifest_ek, parse_manifest
from app.wire.tpm import algorithms as alg
from app.wire.tpm.duplicate import ImportBlob
from tests.evidence.replay.bench import NOBODY
from tests.kernel.conftest import made_by_tools
from tests.kernel.loadable import Provider
from tests.kernel.relying_party import Findings, judged, new_challenges, objections
from tests.kernel.tpm_devices import BARE, CREATE_EK, MANAGED, TIMEOUT_S, loaded, tpm

KINDS = pytest.mark.parametrize("kind", AkKind)


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

    async def go() -> Findings:
        async with attesting() as attester:
            evidence = await attester.attest(nonce, Service.VTPM, quote=wish(kind))
            answer = await answered(challenges, attester, evidence, kind, by_import=by_import)
            return await judged(nonce, evidence, challenges, answer)

    assert objections(asyncio.run(go())) == {}
    assert svsm.calls == calls + 1  # the device was asked for one report
    assert loaded() == ()


def test_a_session_takes_its_own_nonce(svsm: Provider) -> None:
    assert svsm.loaded
    nonce, challenges = secrets.token_bytes(64), new_challenges()

    async def go() -> tuple[Findings, Findings]:
        async with attesting() as attester:
            evidence = await attester.attest(nonce, Service.VTPM, quote=wish(AkKind.P256))
            results = []
            for claimed in (nonce, bytes(64)):
                answer = await answered(challenges, attester, evidence, AkKind.P256, by_import=False)
                results.append(await judged(claimed, evidence, challenges, answer))
            return results[0], results[1]

    right, wrong = asyncio.run(go())
    for check in (CheckId.REPORT_DATA, CheckId.QUOTE_NONCE):
        assert (right[check].outcome, wrong[check].outcome) == (Outcome.PASSED, Outcome.FAILED)


def test_the_quote_of_another_session_does_not_fit(svsm: Provider) -> None:
    assert svsm.loaded
    nonce, challenges = secrets.token_bytes(64), new_challenges()

    async def go() -> Findings:
        async with attesting() as attester:
            one = await attester.attest(nonce, Service.VTPM, quote=wish(AkKind.P256))
            other = await attester.attest(secrets.token_bytes(64), Service.VTPM, quote=wish(AkKind.P256))
            mixed = replace(one, quote=other.quote)
            answer = await answered(challenges, attester, mixed, AkKind.P256, by_import=False)
            return await judged(nonce, mixed, challenges, answer)

    found = asyncio.run(go())
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
    assert loaded() == ()


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
                with tpm(MANAGED) as other:
                    other.pcr_extend(16, {alg.SHA256: b"\x5a" * 32})
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
    assert loaded() == ()


def test_the_ek_is_that_of_the_svsms_command(ek: bytes) -> None:
    with contextlib.closing(DeviceTransport(MANAGED)) as channel:
        answer = channel.exchange(CREATE_EK, timeout_s=TIMEOUT_S)
    assert answer[6:10] == bytes(4)
    assert answer[20 : 20 + len(ek)] == ek
    assert loaded() == ()


def test_what_others_left_behind_gives_way(svsm: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a resource manager nobody else takes it out."""
    assert svsm.loaded
    monkeypatch.setenv("SVSM_ATTEST_TPM_DEVICE", str(BARE))
    for _ in range(3):
        with tpm(BARE) as other:
            other.create_primary(handles.ENDORSEMENT, AkKind.P256.template)
    assert len(loaded()) == 3

    async def go() -> None:
        async with attesting() as attester:
            await attester.attest(secrets.token_bytes(64), Service.VTPM, quote=wish(AkKind.P256))

    asyncio.run(go())
    assert loaded() == ()


async def quote_failure(attester: Attester) -> TpmUnavailableError:
    """Why there are no quotes; that is said in the probe, too, which finds the machine ready."""
    with pytest.raises(TpmUnavailableError) as caught:
        await attester.quote(secrets.token_bytes(64), wish(AkKind.P256))
    probe = await attester.probe()
    (check,) = (check for check in probe.checks if check.name == "vtpm")
    assert check.detail == f"report-only, no quotes: {caught.value.reason}"
    assert (check.ok, check.remedy) == (True, caught.value.remedy)
    return caught.value


def test_without_the_device_there_are_reports(svsm: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    assert svsm.loaded
    monkeypatch.setenv("SVSM_ATTEST_TPM_DEVICE", "/dev/tpm7")

    async def go() -> None:
        async with attesting() as attester:
            assert (await attester.attest(secrets.token_bytes(64), Service.VTPM)).report
            assert (await quote_failure(attester)).cause == TpmCause.MISSING
            assert (await attester.probe()).ready

    asyncio.run(go())


def test_while_the_device_is_in_use_there_are_reports(
    svsm: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert svsm.loaded
    monkeypatch.setenv("SVSM_ATTEST_TPM_DEVICE", str(BARE))

    async def go() -> None:
        async with attesting() as attester:
            with tpm(BARE):
                assert (await attester.attest(secrets.token_bytes(64), Service.VTPM)).report
                assert (await quote_failure(attester)).cause == TpmCause.IN_USE
                assert (await attester.probe()).ready
            await attester.attest(secrets.token_bytes(64), Service.VTPM, quote=wish(AkKind.P256))

    asyncio.run(go())


def test_an_ordinary_user_is_told_about_the_device(svsm: Provider) -> None:
    assert svsm.loaded

    async def go() -> TpmUnavailableError:
        async with attesting() as attester:
            return await quote_failure(attester)

    os.seteuid(NOBODY)
    try:
        error = asyncio.run(go())
    finally:
        os.seteuid(0)
    assert (error.cause, error.errno) == (TpmCause.PERMISSION_DENIED, errno.EACCES)
    assert error.remedy.startswith("Let the service's user open the device")
