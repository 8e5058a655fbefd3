"""Tsm/report directories for tests: the emulation's, and a real kernel's."""

import asyncio
import tempfile
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from app.errors import BackendError
from app.evidence.configfs import ConfigfsBackend
from app.wire.evidence import Evidence, Service
from tests.evidence.replay.bench import Bench, Knobs, NotAvailableError
from tests.fakes.tsm_mount import MountNotPossibleError, mounted

T = TypeVar("T")

NONCE = bytes(range(64))


class SkippingKnobs(Knobs):
    """Knobs whose lack skips the test that wants to turn one."""

    def get(self, name: str) -> str:
        try:
            return super().get(name)
        except NotAvailableError as lack:
            pytest.skip(str(lack))

    def set(self, name: str, value: int | bytes) -> None:
        try:
            super().set(name, value)
        except NotAvailableError as lack:
            pytest.skip(str(lack))

    @property
    def calls(self) -> int:
        """Requests that have reached the provider, refused ones included."""
        return int(self.get("calls"))


def emulated(*options: str) -> Iterator[Bench]:
    """The emulation with these options, or a skipped test that says why there is none."""
    with tempfile.TemporaryDirectory(prefix="tsm-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # pytest's own directories let no other user through
        try:
            with mounted(folder, *options) as tsm:
                yield Bench(tsm / "report", SkippingKnobs(tsm / "control"), emulated=True)
        except MountNotPossibleError as reason:
            pytest.skip(f"no FUSE: {reason}")


def checked(bench: Bench) -> Iterator[Bench]:
    """A bench that is left as it was found: knobs turned back, and no entry forgotten."""
    before = set(bench.report.iterdir())
    yield bench
    bench.knobs.restore()
    left = set(bench.report.iterdir()) - before
    for path in left:
        path.rmdir()
    assert not left, "a report entry was left behind"
    if bench.emulated:
        assert bench.knobs.get("oopses") == "0", "an entry was used again, which kills a kernel"


def new_backend(bench: Bench, **settings: Any) -> ConfigfsBackend:
    return ConfigfsBackend(bench.report, **({"interval_s": 0, "tpm_device": None} | settings))


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end, or fail: nothing here may take long."""
    return asyncio.run(asyncio.wait_for(work, 30))


def collect(backend: ConfigfsBackend, service: Service = Service.VTPM, version: int = 0) -> Evidence:
    return run(backend.collect(NONCE, service, version))


def failure(backend: ConfigfsBackend, service: Service = Service.VTPM, version: int = 0) -> BackendError:
    with pytest.raises(BackendError) as caught:
        collect(backend, service, version)
    return caught.value
