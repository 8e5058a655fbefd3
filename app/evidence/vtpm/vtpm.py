"""The vTPM as an attester uses it.

Every method is one job of the TPM's worker: jobs never mix, at most one key beside the EK is loaded
at any time, and nothing stays in the TPM after a job.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog

from app.errors import BackendError, RateLimitedError, TpmRefusedError, TpmUnavailableError
from app.evidence.backend import ProbeCheck
from app.evidence.vtpm.ak_kind import AkKind
from app.evidence.vtpm.kept_keys import KeptKeys, LoadedKey
from app.evidence.vtpm.quote_check import is_own_quote
from app.evidence.vtpm.refusal import challenge_refusal, not_handed_out, refusal
from app.tpm import codes
from app.tpm.causes import TpmCause, unavailable
from app.tpm.client import Tpm
from app.tpm.transport import Transport
from app.tpm.worker import TpmWorker
from app.wire.evidence import QuoteEvidence
from app.wire.tpm.credential import CredentialBlob
from app.wire.tpm.duplicate import ImportBlob
from app.wire.tpm.pcr import PcrSelection
from app.wire.tpm.public import TpmtPublic
from app.wire.tpm.template import creation_template

T = TypeVar("T")

COCONUT_EK = "L-1"  # the template by which COCONUT-SVSM makes the EK
PROBE_TIMEOUT_S = 2.0
CHECK = "vtpm"
_NO_ROOM = {codes.OBJECT_MEMORY, codes.SESSION_MEMORY}
_TPM_PT_MANUFACTURER = 0x105
_QUOTE_ATTEMPTS = 2

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class AttestationKey:
    """An attestation key, and the EK of the TPM that has it."""

    ak: TpmtPublic
    ek: TpmtPublic


@dataclass(frozen=True, slots=True, kw_only=True)
class Certification:
    """What a key that was imported for the purpose says of an attestation key."""

    ak_public: bytes  # TPMT_PUBLIC
    certify_info: bytes  # TPMS_ATTEST
    signature: bytes  # TPMT_SIGNATURE: an HMAC


class Vtpm:
    """Keys, quotes and answers of one TPM, whenever there is one.

    Where there is none, every method but `probe` raises TpmUnavailableError, which says why; each
    looks anew.

    Args:
        open_transport: opens a channel to the TPM.
        name: what people call it.
        event_log: reads the firmware's event log; may raise BackendError.
        ek_template: the TCG's name for the template of the EK, where no manifest has told it yet.
        timeout_s: for each method, its waiting for a turn included.
        max_waiting: how many may wait for their turn; more are refused at once.
        observe: entered with the name of a method around all of it.
    """

    def __init__(
        self,
        open_transport: Callable[[], Transport],
        *,
        name: str,
        event_log: Callable[[], bytes],
        ek_template: str = COCONUT_EK,
        timeout_s: float = 30.0,
        max_waiting: int = 64,
        observe: Callable[[str], AbstractContextManager[None]] | None = None,
    ) -> None:
        self.name = name
        self.ek_template = ek_template
        self._worker = TpmWorker(open_transport, timeout_s=timeout_s, max_waiting=max_waiting)
        self._event_log = event_log
        self._observe = observe or (lambda _: nullcontext())
        self._keys = KeptKeys()
        self._handed_out: dict[AkKind, int] = {}  # in which life of the TPM

    async def probe(self) -> ProbeCheck:
        """Are there quotes? A VM without a TPM is no fault: it has reports, and no more."""
        try:
            await asyncio.wait_for(self._worker.run(_ask_anything), PROBE_TIMEOUT_S)
        except TpmUnavailableError as error:
            return _report_only(error)
        except TpmRefusedError as error:
            return _report_only(refusal(error))
        except (RateLimitedError, TimeoutError):
            return ProbeCheck(name=CHECK, ok=True, detail=f"{self.name} is busy: quotes have to wait")
        return ProbeCheck(name=CHECK, ok=True, detail=f"{self.name} answers: quotes are available")

    async def ek(self, template: str) -> TpmtPublic:
        """The EK that the TPM has now, by the TCG's name for its template.

        Raises:
            BackendError: there is no TPM, or it refuses; cause and remedy are inside.
            RateLimitedError: too many wait already.
        """
        return await self._run("ek", partial(self._ek, creation_template(template)))

    async def ak(
        self, kind: AkKind, quotable: PcrSelection | None = None, *, with_event_log: bool = False
    ) -> TpmtPublic:
        """The attestation key, which is made when it is first asked for.

        Args:
            kind: which of them.
            quotable: registers that are to be quoted later; what stands in the way of that is found out now.
            with_event_log: the same for the event log.

        Raises:
            BackendError, RateLimitedError: as `ek` and `quote`.
        """
        return await self._run("ak", partial(self._ak, kind, quotable, with_event_log))

    async def hand_out(self, kind: AkKind, template: str) -> AttestationKey:
        """The attestation key and the EK, for a verifier to challenge. Raises as `ek`.

        Only a key that was handed out answers challenges, and only until the TPM is reset.
        """
        return await self._run("ak", partial(self._hand_out, kind, creation_template(template)))

    async def activate(self, kind: AkKind, template: str, blob: CredentialBlob) -> bytes:
        """The secret of a challenge (1 to 64 bytes).

        Raises:
            ChallengeRefusedError: it was not made for these two keys, or the key was not handed out.
            BackendError, RateLimitedError: as `ek`.
        """
        job = partial(self._activate, kind, creation_template(template), blob)
        return await self._run("activate", job)

    async def certify(self, kind: AkKind, template: str, blob: ImportBlob) -> Certification:
        """What a verifier's key, which only this EK can import, says of the attestation key.

        Raises as `activate`.
        """
        job = partial(self._certify, kind, creation_template(template), blob)
        return await self._run("certify", job)

    async def quote(
        self,
        kind: AkKind,
        qualifying: Callable[[TpmtPublic], bytes],
        selection: PcrSelection,
        *,
        with_event_log: bool,
    ) -> QuoteEvidence:
        """A quote that says what the registers hold, checked before it leaves.

        Args:
            kind: the key that signs.
            qualifying: the qualifying data (at most 48 bytes), from the key that signs.
            selection: the registers.
            with_event_log: also read the firmware's event log.

        Raises:
            BackendError, RateLimitedError: as `ek`; a bank that the TPM does not have; a log that
                cannot be read; what `qualifying` raises.
        """
        job = partial(self._quote, kind, qualifying, selection, with_event_log)
        return await self._run("quote", job)

    async def aclose(self) -> None:
        """Take no more requests and close the channel."""
        await self._worker.aclose()

    async def _run(self, operation: str, job: Callable[[Tpm], T]) -> T:
        with self._observe(operation):
            try:
                return await self._worker.run(partial(_with_room, job))
            except TpmRefusedError as error:
                raise challenge_refusal(error) or refusal(error) from error

    # Jobs, in the worker's thread.

    def _ek(self, template: bytes, tpm: Tpm) -> TpmtPublic:
        with self._keys.loaded(tpm, template) as ek:
            return ek.public

    def _ak(
        self,
        kind: AkKind,
        quotable: PcrSelection | None,
        with_event_log: bool,  # noqa: FBT001  # by position, because partial() is
        tpm: Tpm,
    ) -> TpmtPublic:
        if with_event_log:
            self._event_log()
        if quotable is not None:
            tpm.pcr_read(quotable)
        with self._keys.loaded(tpm, kind.template) as ak:
            return ak.public

    def _hand_out(self, kind: AkKind, ek_template: bytes, tpm: Tpm) -> AttestationKey:
        ek = self._ek(ek_template, tpm)
        ak = self._ak(kind, None, False, tpm)
        self._handed_out[kind] = self._keys.life
        return AttestationKey(ak, ek)

    def _activate(self, kind: AkKind, ek_template: bytes, blob: CredentialBlob, tpm: Tpm) -> bytes:
        with self._keys.loaded(tpm, kind.template) as ak, self._keys.loaded(tpm, ek_template) as ek:
            self._demand_handed_out(kind)
            with tpm.ek_session(ek.public) as session:
                return tpm.activate_credential(ak.handle, ek.handle, session, blob)

    def _certify(self, kind: AkKind, ek_template: bytes, blob: ImportBlob, tpm: Tpm) -> Certification:
        with self._keys.loaded(tpm, ek_template) as ek:
            imported = _import(tpm, ek, blob)
        with tpm.transient(imported), self._keys.loaded(tpm, kind.template) as ak:
            self._demand_handed_out(kind)
            certify_info, signature = tpm.certify(ak.handle, imported)
            return Certification(ak_public=ak.public.encode(), certify_info=certify_info, signature=signature)

    def _quote(
        self,
        kind: AkKind,
        qualifying: Callable[[TpmtPublic], bytes],
        selection: PcrSelection,
        with_event_log: bool,  # noqa: FBT001  # by position, because partial() is
        tpm: Tpm,
    ) -> QuoteEvidence:
        with self._keys.loaded(tpm, kind.template) as ak:
            data = qualifying(ak.public)
            for _ in range(_QUOTE_ATTEMPTS):
                pcrs = tpm.pcr_read(selection)
                attest, signature = tpm.quote(ak.handle, data, selection)
                if is_own_quote(ak.public, attest, signature, qualifying=data, pcrs=pcrs):
                    return QuoteEvidence(
                        ak_public=ak.public.encode(),
                        attest=attest,
                        signature=signature,
                        pcrs=pcrs,
                        event_log=self._event_log() if with_event_log else None,
                    )
        raise unavailable(
            TpmCause.UNSETTLED, "the registers changed between their reading and the quote, more than once"
        )

    def _demand_handed_out(self, kind: AkKind) -> None:
        """After loading, which is what notices a reset."""
        if self._handed_out.get(kind) != self._keys.life:
            raise not_handed_out()


def _ask_anything(tpm: Tpm) -> None:
    tpm.properties(_TPM_PT_MANUFACTURER)


def _with_room(job: Callable[[Tpm], T], tpm: Tpm) -> T:
    """Run a job; where the TPM has no room for it, what lies around in it goes, once.

    A process that was killed in the middle of a job leaves a key or a session behind, where no
    resource manager cleans up. Through one, nobody sees the keys of others.
    """
    try:
        return job(tpm)
    except TpmRefusedError as error:
        if error.code not in _NO_ROOM:
            raise
        _log.warning("tpm_full", code=error.name)
    tpm.flush_all()
    return job(tpm)


def _import(tpm: Tpm, ek: LoadedKey, blob: ImportBlob) -> int:
    """Import needs the EK, and so does loading; a policy session is good for one use of it."""
    with tpm.ek_session(ek.public) as session:
        private = tpm.import_object(ek.handle, session, blob)
    with tpm.ek_session(ek.public) as session:
        return tpm.load(ek.handle, session, private, blob.public_area, blob.name)


def _report_only(why: BackendError) -> ProbeCheck:
    return ProbeCheck(name=CHECK, ok=True, detail=f"report-only, no quotes: {why.reason}", remedy=why.remedy)
