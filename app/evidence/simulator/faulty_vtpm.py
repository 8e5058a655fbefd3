"""A vTPM that answers as a fault has it, for attesters on the simulator."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from app.evidence.simulator.effect import Effect
from app.evidence.vtpm.ak_kind import AkKind
from app.evidence.vtpm.vtpm import Certification, Vtpm
from app.wire.evidence import QuoteEvidence
from app.wire.tpm.credential import CredentialBlob
from app.wire.tpm.duplicate import ImportBlob
from app.wire.tpm.pcr import PcrSelection
from app.wire.tpm.public import TpmtPublic


class FaultyVtpm(Vtpm):
    """See Vtpm; what the fault does comes after its own checks, which would stop it.

    Args:
        arguments: of a Vtpm.
        effect: what the fault does.
        options: of a Vtpm.
    """

    def __init__(self, *arguments: Any, effect: Effect, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._effect = effect

    async def activate(self, kind: AkKind, template: str, blob: CredentialBlob) -> bytes:
        """See Vtpm."""
        return self._effect.proof(await super().activate(kind, template, blob))

    async def certify(self, kind: AkKind, template: str, blob: ImportBlob) -> Certification:
        """See Vtpm."""
        made = await super().certify(kind, template, blob)
        return replace(made, signature=self._effect.proof(made.signature))

    async def quote(
        self,
        kind: AkKind,
        qualifying: Callable[[TpmtPublic], bytes],
        selection: PcrSelection,
        *,
        with_event_log: bool,
    ) -> QuoteEvidence:
        """See Vtpm."""
        return self._effect.quote(
            await super().quote(
                kind,
                lambda ak: self._effect.qualifying(qualifying(ak)),
                self._effect.selection(selection),
                with_event_log=with_event_log,
            )
        )
