"""What an attester does with its vTPM where HTTP cannot get at it."""

import asyncio
from dataclasses import replace

import pytest

from app.attester.attester import Attester, QuoteWish
from app.attester.endorsement_key import LiveEk, LiveState
from app.errors import BackendBusyError, NonceError, RateLimitedError, TpmUnavailableError
from app.evidence.vtpm.ak_kind import AkKind
from app.evidence.vtpm.vtpm import Vtpm
from app.tpm.causes import TpmCause, unavailable
from app.tpm.transport import Transport
from app.wire.evidence import Evidence, Service
from app.wire.tpm.pcr import PcrSelection
from app.wire.tpm.public import TpmtPublic
from tests.api.backends import ScriptedBackend
from tests.wire.samples import SWTPM_EK, p256_ek

NONCE = bytes(64)
WISH = QuoteWish(key=AkKind.P256, pcrs=PcrSelection.of({"sha256": [0]}))
EVIDENCE = Evidence(report=bytes(1184), manifest=SWTPM_EK)


def nothing() -> Transport:
    raise unavailable(TpmCause.MISSING, "there is none")


def attester(vtpm: Vtpm | None = None, evidence: Evidence = EVIDENCE) -> tuple[Attester, ScriptedBackend]:
    backend = ScriptedBackend(evidence=evidence)
    return Attester(backend, interval_s=0, vtpm=vtpm), backend


def test_an_attester_that_was_given_no_vtpm_says_so() -> None:
    one, backend = attester()

    async def ask() -> None:
        for asked in (
            one.quote(NONCE, WISH),
            one.attest(NONCE, Service.VTPM, quote=WISH),
            one.attestation_key(AkKind.P256),
        ):
            with pytest.raises(TpmUnavailableError) as caught:
                await asked
            assert caught.value.cause == "tpm-missing"
        assert backend.asked == 0
        assert (await one.probe()).checks == (await backend.probe()).checks
        assert await one.endorsement_key() is None
        await one.attest(NONCE, Service.VTPM)
        ek = await one.endorsement_key()
        assert ek is not None
        assert ek.live.state is LiveState.NOT_COMPARED

    asyncio.run(ask())


def test_a_nonce_of_another_length_is_asked_of_nobody() -> None:
    one, backend = attester(Vtpm(nothing, name="none", event_log=bytes))

    async def ask() -> None:
        for asked in (one.quote(NONCE[1:], WISH), one.attest(NONCE[1:], Service.VTPM, quote=WISH)):
            with pytest.raises(NonceError):
                await asked

    asyncio.run(ask())
    assert backend.asked == 0


class Busy(Vtpm):
    """A TPM that too many want."""

    async def ek(self, template: str) -> TpmtPublic:
        raise RateLimitedError(f"64 requests wait for {template}", 3.0)


def test_a_busy_tpm_leaves_its_ek_uncompared() -> None:
    one, _ = attester(Busy(nothing, name="busy", event_log=bytes))

    async def ask() -> LiveEk:
        await one.attest(NONCE, Service.VTPM)
        ek = await one.endorsement_key()
        assert ek is not None
        return ek.live

    live = asyncio.run(ask())
    assert live.state is LiveState.NOT_COMPARED
    assert live.why == "The TPM is busy: 64 requests wait for L-1."


class Remembering(Vtpm):
    """Notes by which template the EK is looked for."""

    def __init__(self) -> None:
        super().__init__(nothing, name="none", event_log=bytes, ek_template="H-3")
        self.templates: list[str] = []

    async def ek(self, template: str) -> TpmtPublic:
        self.templates.append(template)
        return TpmtPublic.parse(SWTPM_EK)


def test_the_ek_is_looked_for_by_the_template_of_the_last_manifest() -> None:
    vtpm = Remembering()
    one, backend = attester(vtpm)

    async def ask() -> None:
        assert one._ek_template == "H-3"
        for manifest, template, state in (
            (SWTPM_EK, "L-1", LiveState.MATCHES),
            (p256_ek(), "L-2", LiveState.DIFFERS),
        ):
            backend.evidence = replace(EVIDENCE, manifest=manifest)
            await one.attest(NONCE, Service.VTPM)
            ek = await one.endorsement_key()
            assert ek is not None
            assert (one._ek_template, vtpm.templates[-1], ek.live.state) == (template, template, state)

    asyncio.run(ask())


def test_a_key_that_changed_since_the_report_is_not_quoted_with() -> None:
    keys = [TpmtPublic.parse(area) for area in (SWTPM_EK, p256_ek())]

    class Changing(Vtpm):
        async def ak(self, *_: object, **__: object) -> TpmtPublic:
            return keys[0]

        async def quote(self, kind, qualifying, selection, *, with_event_log):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG002
            assert len(qualifying(keys[0])) == 32
            return qualifying(keys[1])

    one, _ = attester(Changing(nothing, name="changing", event_log=bytes))
    with pytest.raises(BackendBusyError) as caught:
        asyncio.run(one.attest(NONCE, Service.VTPM, quote=WISH))
    assert caught.value.cause == "tpm-reset"
