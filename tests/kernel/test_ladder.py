"""From a kernel that has nothing to one that attests: every rung has its name and its remedy.

The tests build on each other in this order, and want the kernel as it booted.
"""

import asyncio

import pytest

from app.errors import BackendError
from app.evidence.backend import Cause, ProbeCheck
from app.evidence.configfs import ConfigfsBackend
from app.wire.evidence import Service
from app.wire.report import AttestationReport
from tests.kernel.loadable import Kernel, Provider

NONCE = bytes(range(64))


def first_failure() -> ProbeCheck:
    probe = asyncio.run(ConfigfsBackend().probe())
    return next(check for check in probe.checks if not check.ok)


def failure_to_collect() -> BackendError:
    with pytest.raises(BackendError) as failure:
        asyncio.run(ConfigfsBackend().collect(NONCE, Service.VTPM))
    return failure.value


def test_a_kernel_without_configfs(kernel: Kernel) -> None:
    assert failure_to_collect().cause == Cause.CONFIGFS_NOT_MOUNTED
    assert first_failure().name == "configfs"
    kernel.load("configfs")
    assert failure_to_collect().cause == Cause.CONFIGFS_NOT_MOUNTED  # the directory is there, and empty


def test_configfs_without_tsm(kernel: Kernel) -> None:
    kernel.mount_configfs()
    assert failure_to_collect().cause == Cause.TSM_MISSING
    assert "sev-guest" in (first_failure().remedy or "")


def test_tsm_without_a_provider(kernel: Kernel) -> None:
    kernel.load("tsm")
    assert failure_to_collect().cause == Cause.NO_PROVIDER
    failure = first_failure()
    assert failure.name == "entry"
    assert "sev-guest" in (failure.remedy or "")


def test_a_guest_without_an_svsm(kernel: Kernel) -> None:
    provider = Provider(kernel)
    provider.load(vmpl=0)
    assert failure_to_collect().cause == Cause.NO_SVSM
    assert first_failure().name == "svsm"
    assert provider.calls == 0  # neither asked for a report
    provider.unload()


def test_a_guest_under_an_svsm(kernel: Kernel) -> None:
    provider = Provider(kernel)
    provider.load()
    assert asyncio.run(ConfigfsBackend().probe()).ready
    assert provider.calls == 0


# SHA-512(nonce || manifest), computed elsewhere for the manifests that the provider hands out.
@pytest.mark.parametrize(
    ("service", "report_data"),
    [
        (
            Service.VTPM,
            (
                "01397e98147fba3bb361ae3882aae875d88120f9abf36377a2f09c4267763c09"
                "4f52bee4a35d7d8654a8197daf857afe407575d9ffd383543bd2df1b34ca9d6a"
            ),
        ),
        (
            Service.ALL,
            (
                "ff41a747a7fd8d63d9d4e0097a68d5105825ebaee56f18f63658321297e307a1"
                "d279e71dc0269d66d13f367178e9b112afb7218046b93f343a5125a9571726bc"
            ),
        ),
    ],
)
def test_evidence_is_bound_as_published(kernel: Kernel, service: Service, report_data: str) -> None:
    assert Provider(kernel).loaded
    evidence = asyncio.run(ConfigfsBackend().collect(NONCE, service))
    report = AttestationReport.parse(evidence.report)
    assert report.report_data.hex() == report_data
    assert report.vmpl == 0
    assert evidence.backend == "configfs"
    assert evidence.certificates is None
