"""Readiness: the prerequisites of the role, looked at without asking the device for anything."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from app.attester.attester import Attester
from app.evidence.backend import ProbeCheck

PROBE_LIFETIME_S = 3.0  # polling must not hammer the kernel's files


class Readiness:
    """Answers `/readyz`.

    Args:
        facts: what does not change: role, backend, simulated, allow_simulator, version.
        attester: its backend is probed; None for a mere verifier.
        verifier_checks: looks at what the verifier stands on; gives nothing for a mere attester.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        facts: dict[str, Any],
        attester: Attester | None,
        verifier_checks: Callable[[], Iterable[ProbeCheck]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._facts = facts
        self._attester = attester
        self._verifier_checks = verifier_checks
        self._clock = clock
        self._probe: tuple[ProbeCheck, ...] = ()
        self._probe_until = float("-inf")
        self._probing = asyncio.Lock()

    async def document(self) -> dict[str, Any]:
        """What `/readyz` answers; `ready` where every check came out well."""
        checks = (*await self._attester_checks(), *self._verifier_checks())
        ready = bool(checks) and all(check.ok for check in checks)
        return {"ready": ready, **self._facts, "checks": [asdict(check) for check in checks]}

    async def _attester_checks(self) -> tuple[ProbeCheck, ...]:
        if self._attester is None:
            return ()
        async with self._probing:
            if self._clock() >= self._probe_until:
                self._probe = (await self._attester.probe()).checks
                self._probe_until = self._clock() + PROBE_LIFETIME_S
            return self._probe
