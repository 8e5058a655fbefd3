"""Backends that do as a test says."""

import asyncio
from dataclasses import dataclass, field

from app.evidence.backend import ProbeCheck, ProbeReport
from app.wire.evidence import Evidence, Service


@dataclass
class ScriptedBackend:
    """Raises, waits or answers; and counts what it is asked."""

    error: Exception | None = None
    evidence: Evidence | None = None
    ready: bool = True
    name: str = "configfs"
    simulated: bool = False
    gate: asyncio.Event | None = None
    asked: int = 0
    probed: int = 0
    closed: bool = False
    requests: list[tuple[bytes, Service, int]] = field(default_factory=list)

    async def collect(self, nonce: bytes, service: Service, manifest_version: int = 0) -> Evidence:
        self.asked += 1
        self.requests.append((nonce, service, manifest_version))
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.evidence or Evidence(report=bytes(1184), manifest=None, nonce=nonce)

    async def probe(self) -> ProbeReport:
        self.probed += 1
        remedy = None if self.ready else "modprobe sev-guest"
        check = ProbeCheck(name="provider", ok=self.ready, detail="sev_guest", remedy=remedy)
        return ProbeReport(backend=self.name, simulated=self.simulated, checks=(check,))

    async def aclose(self) -> None:
        self.closed = True
