"""The simulated VM's vTPM: a real TPM in software, what its firmware measured, and the SVSM's EK in it.

Each process has a TPM of its own. It begins with the state that was last kept, in the simulator's
state directory or in this process: so its EK stays, and its reset counter goes on. What is kept is
the state of a TPM right after TPM2_Startup that was then shut down well, whatever becomes of the
process; a TPM whose state were kept as it is would refuse its keys after the service was killed three
times (TPM 2.0 Library, Part 1, 19.8, dictionary attack protection).
"""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from uuid import uuid4

import structlog

from app.errors import BackendError, TpmRefusedError, TpmUnavailableError
from app.evidence.simulator import firmware
from app.evidence.simulator.effect import NO_EFFECT, Effect
from app.evidence.simulator.ek import EkKind
from app.evidence.simulator.measured_boot import boot_log
from app.evidence.simulator.svsm import ServiceRefusedError
from app.evidence.simulator.swtpm import ANSWERS_WITHIN_S, PROGRAM, Swtpm
from app.evidence.simulator.vault import Vault
from app.tpm import handles
from app.tpm.causes import TpmCause, unavailable
from app.tpm.client import Tpm
from app.tpm.transport import Transport
from app.wire.event_log import EventLog
from app.wire.tpm.template import creation_template

_STATE = "vTPM"
_OTHER_STATE = "other-vTPM"
_QUOTE = bytes.fromhex("00000158")  # TPM_CC_Quote, at offset 6 of a command

_REMEDY = "Remove the simulator's state directory to start over, or set SVSM_ATTEST_SIMULATOR_VTPM=none"

_log = structlog.get_logger(__name__)


class VtpmChoice(StrEnum):
    """Where the simulated VM shall have its vTPM from."""

    AUTO = "auto"  # swtpm where it is installed
    SWTPM = "swtpm"
    NONE = "none"  # a key alone, without a TPM


def has_swtpm() -> bool:
    """Is it installed?"""
    return shutil.which(PROGRAM) is not None


@dataclass(slots=True)
class _Life:
    """A TPM from one reset to the next."""

    swtpm: Swtpm
    log: EventLog
    ek: bytes | None = None  # as the SVSM remembers it, once it was asked


class SimulatedVtpm:
    """A vTPM that starts when it is first used, and again after it was lost.

    Everything blocks: a start takes some 30 ms, an RSA EK 20 to 100. Safe to use from several
    threads: their commands take turns.

    Args:
        vault: where the TPM's state is kept.
        ek: which EK the SVSM makes.
        effect: what is wrong with it.
    """

    def __init__(self, vault: Vault, *, ek: EkKind = EkKind.RSA_2048, effect: Effect = NO_EFFECT) -> None:
        self.boot_id = str(uuid4())
        self._vault = vault
        self._ek = ek
        self._effect = effect
        self._name = _OTHER_STATE if effect.other_ek else _STATE
        self._turn = threading.RLock()
        self._life: _Life | None = None
        self._boots = 0
        self._closed = False

    def open(self) -> Transport:
        """A channel to the TPM; all share one, and closing it leaves the others open.

        Raises:
            TpmUnavailableError: it cannot be started, or was closed.
        """
        with self._running():
            return _Channel(self)

    def public(self) -> bytes:
        """The EK as the SVSM gives it: made when first asked for, and remembered until the next reset.

        Like COCONUT-SVSM's, it is never flushed: from then on the guest has one of three places for
        objects less.

        Raises:
            ServiceRefusedError: the TPM does not make it.
            TpmUnavailableError: as `open`.
        """
        with self._running() as life:
            if life.ek is None:
                tpm = Tpm(life.swtpm.transport, timeout_s=ANSWERS_WITHIN_S)
                try:
                    key = tpm.create_primary(handles.ENDORSEMENT, creation_template(self._ek.template))
                except TpmRefusedError as error:
                    raise ServiceRefusedError(str(error)) from error
                life.ek = key.public
            return life.ek

    def event_log(self) -> bytes:
        """The firmware's log of the last boot.

        Raises:
            TpmUnavailableError: as `open`.
        """
        with self._running() as life:
            return self._effect.event_log(life.log).encode()

    def reboot(self) -> None:
        """Shut the TPM down, reset it and boot again: the EK stays, unless its seed was changed.

        Raises:
            TpmUnavailableError: as `open`.
        """
        with self._running() as life:
            self._life = None
            try:
                with _told():
                    firmware.shut_down(life.swtpm.transport)
                    life.swtpm.power_cycle()
                    self._life = self._boot(life.swtpm)
            finally:
                if self._life is None:
                    life.swtpm.end()

    def close(self) -> None:
        """Switch the TPM off for good; a command that it works on comes to nothing."""
        self._closed = True
        life = self._life
        if life is not None:
            life.swtpm.end()
        with self._turn:  # one that was just being started
            if self._life is not None:
                self._life.swtpm.end()
                self._life = None

    def exchange(self, command: bytes, timeout_s: float) -> bytes:
        """One command of the guest. See Transport."""
        start = time.monotonic()
        if not self._turn.acquire(timeout=timeout_s):
            raise unavailable(TpmCause.TIMEOUT, f"another user kept the vTPM for {timeout_s:g} s")
        try:
            with self._running() as life:
                left_s = timeout_s - (time.monotonic() - start)
                if left_s <= 0:
                    raise unavailable(TpmCause.TIMEOUT, "the vTPM took too long to start")
                answer = life.swtpm.transport.exchange(self._effect.command(command), timeout_s=left_s)
            if self._effect.reboots and command[6:10] == _QUOTE:
                self.reboot()
            return answer
        finally:
            self._turn.release()

    @contextmanager
    def _running(self) -> Iterator[_Life]:
        """The TPM, started if need be, for this thread alone; a failure inside the block ends it."""
        with self._turn:
            if self._life is not None and not self._life.swtpm.alive:
                self._lose("it ended by itself")
            if self._closed:
                raise unavailable(TpmCause.CLOSED, "the vTPM is switched off")
            life = self._life
            if life is None:
                life = self._life = self._start()
            try:
                yield life
            except TpmUnavailableError as error:
                if self._life is life and not life.swtpm.alive:
                    self._lose(error.reason)
                raise

    def _lose(self, reason: str) -> None:
        """The next use starts another TPM, with the state that was kept: for the guest, a reset."""
        if self._life is not None:
            self._life.swtpm.end()
            self._life = None
        if not self._closed:
            _log.warning(
                "simulated_vtpm_lost", reason=reason, remedy="The next use starts it again, as a reset"
            )

    def _start(self) -> _Life:
        with _told():
            swtpm = Swtpm.start(self._vault.state(self._name, self._manufacture))
            try:
                life = self._boot(swtpm)
            except BaseException:
                swtpm.end()
                raise
        _log.info("simulated_vtpm_started", boot_id=self.boot_id)
        return life

    def _manufacture(self) -> bytes:
        swtpm = Swtpm.start()
        try:
            return firmware.manufacture(swtpm)
        finally:
            swtpm.end()

    def _boot(self, swtpm: Swtpm) -> _Life:
        """From a TPM that was just switched on to one that a guest uses."""
        log = boot_log(self._effect.boot)
        firmware.start_up(swtpm.transport)
        firmware.shut_down(swtpm.transport)  # for the state's sake; the TPM goes on
        self._vault.replace_state(self._name, swtpm.state())
        firmware.measure(swtpm.transport, log)
        if self._boots:
            self.boot_id = str(uuid4())
        self._boots += 1
        return _Life(swtpm, log)


@contextmanager
def _told() -> Iterator[None]:
    """Whatever keeps a TPM from starting makes it unavailable."""
    try:
        yield
    except TpmUnavailableError:
        raise
    except BackendError as error:  # its state cannot be kept
        raise TpmUnavailableError(TpmCause.MISSING, error.reason, error.remedy) from error
    except TpmRefusedError as error:
        reason = f"the simulated firmware cannot start the vTPM: {error}"
        raise TpmUnavailableError(TpmCause.MISSING, reason, _REMEDY) from error


class _Channel:
    """A guest's way to the TPM. See Transport."""

    def __init__(self, vtpm: SimulatedVtpm) -> None:
        self._vtpm = vtpm
        self._closed = False

    def exchange(self, command: bytes, *, timeout_s: float) -> bytes:
        """See Transport."""
        if self._closed:
            raise unavailable(TpmCause.CLOSED, "this channel to the vTPM is closed")
        return self._vtpm.exchange(command, timeout_s)

    def close(self) -> None:
        """See Transport."""
        self._closed = True
