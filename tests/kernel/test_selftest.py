"""`svsm-attest selftest` in a VM with an SVSM, as far as one can be played, and with a TPM beside it."""

import json
from pathlib import Path

import pytest

from tests.kernel.loadable import Provider
from tests.kernel.program import finished
from tests.kernel.relying_party import OF_THE_TPM
from tests.kernel.tpm_devices import loaded

pytestmark = pytest.mark.usefixtures("tpm_hardware")
CHECKS = (
    *("vtpm", "vtpm.quote", "attestation", "manifest", "vtpm.live_ek", "vtpm.ak_import"),
    *(check.value for check in OF_THE_TPM),
)


def selftest(folder: Path, *, execute: bool = False) -> tuple[int, dict[str, str]]:
    """The exit status, and what became of each line."""
    output = folder / "output"
    options = ("--offline", "--store", str(folder / "store"), "--json")
    status = finished(output, "selftest", *options, execute=execute)
    return status, {check["name"]: check["status"] for check in json.loads(output.read_text())["checks"]}


def test_it_passes(svsm: Provider, tmp_path: Path) -> None:
    assert svsm.loaded
    status, lines = selftest(tmp_path, execute=True)
    assert "fail" not in lines.values(), lines
    assert {name: lines.get(name) for name in CHECKS} == dict.fromkeys(CHECKS, "ok")
    assert lines["certificates"] == "skip"  # nobody signed, and nobody may be asked
    assert status == 0
    assert loaded() == ()


def test_it_passes_without_an_event_log(svsm: Provider, no_event_log: None, tmp_path: Path) -> None:
    assert svsm.loaded
    del no_event_log
    status, lines = selftest(tmp_path)
    assert "fail" not in lines.values(), lines
    assert (lines["event log"], lines["vtpm.event_log"]) == ("skip", "skip")
    assert (lines["vtpm.quote"], lines["vtpm.quote.digest"], lines["vtpm.ak_binding"]) == ("ok", "ok", "ok")
    assert status == 0


def test_it_finds_a_tpm_that_is_not_the_svsms(provider: Provider, tmp_path: Path) -> None:
    assert provider.loaded  # vouches for a key that no TPM has
    status, lines = selftest(tmp_path)
    assert (status, lines["vtpm.live_ek"]) == (1, "fail"), lines
    assert loaded() == ()
