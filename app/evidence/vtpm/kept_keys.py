"""Primary keys of the endorsement hierarchy: made once, and kept outside the TPM as saved contexts.

To make an RSA key is to search for primes, in a TPM that has other work. To load a saved context is
one decryption; and a context that loads proves that the TPM is the same one, with the same seed, and
was not reset.
Source: TCG TPM 2.0 Library, Part 1, 30 (context management); Part 3, TPM2_ContextSave.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from app.errors import TpmRefusedError
from app.evidence.vtpm.refusal import no_longer_loads
from app.tpm.client import Tpm
from app.tpm.handles import ENDORSEMENT
from app.wire.tpm.public import TpmtPublic

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedKey:
    """A key that is in the TPM while a block runs."""

    handle: int
    public: TpmtPublic


@dataclass(frozen=True, slots=True)
class _Kept:
    public: TpmtPublic
    context: bytes


class KeptKeys:
    """The keys by the templates that make them. For one thread: that of the TPM.

    `life` counts the lives of the TPM, as far as their ends were noticed: what was said in one says
    nothing about the next.
    """

    def __init__(self) -> None:
        self.life = 0
        self._kept: dict[bytes, _Kept] = {}  # as many as there are templates: two of AKs, six of EKs

    @contextmanager
    def loaded(self, tpm: Tpm, template: bytes) -> Iterator[LoadedKey]:
        """The key that a template (TPMT_PUBLIC) makes; it leaves the TPM with the block.

        Raises:
            TpmRefusedError: the TPM does not make it, or has no room for it.
            TpmUnavailableError: it did not answer, or not sensibly.
        """
        key = self._load(tpm, template)
        if key is not None:
            with tpm.transient(key.handle):
                yield key
            return
        created = tpm.create_primary(ENDORSEMENT, template)
        with tpm.transient(created.handle):
            public = TpmtPublic.parse(created.public)
            self._kept[template] = _Kept(public, tpm.context_save(created.handle))
            yield LoadedKey(created.handle, public)

    def _load(self, tpm: Tpm, template: bytes) -> LoadedKey | None:
        kept = self._kept.get(template)
        if kept is None:
            return None
        try:
            return LoadedKey(tpm.context_load(kept.context), kept.public)
        except TpmRefusedError as error:
            if not no_longer_loads(error):
                raise
        self.life += 1
        self._kept.clear()
        _log.warning("tpm_reset", remedy="Challenges that were not answered yet have to be asked for again")
        return None
