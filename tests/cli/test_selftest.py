"""`selftest`: one line a check, in the order in which they build on each other, with what to do."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.errors import BackendError, TpmRefusedError, TpmUnavailableError, WireError
from app.evidence.simulator.backend import SimulatorBackend
from app.evidence.simulator.software_tpm import SimulatedVtpm
from app.evidence.vtpm.refusal import VtpmCause
from app.evidence.vtpm.vtpm import Vtpm
from app.tpm.client import Tpm
from app.wire.evidence import Service
from app.wire.manifest import parse_manifest
from tests.cli.command_line import Cli, Ended
from tests.fakes.tsm_mount import MountNotPossibleError, mounted
from tests.interop.software_tpm import demand
from tests.wire.samples import SWTPM_EK

KEY = ("vtpm.live_ek", "vtpm.ak", "vtpm.ak_binding", "vtpm.ak_import")
QUOTE = (
    "vtpm.quote.signature",
    "vtpm.quote.nonce",
    "vtpm.quote.selection",
    "vtpm.quote.digest",
    "vtpm.event_log",
)
EVIDENCE = ("snp.report_data", "snp.vmpl", "vtpm.binding", "vtpm.manifest_version", "vtpm.ek_template")
ENDORSEMENTS = ("snp.chain", "snp.signature", "snp.vek.kind", "snp.vek.tcb", "snp.vek.hwid", "snp.product")


def statuses(ended: Ended) -> dict[str, str]:
    return {check["name"]: check["status"] for check in ended.json["checks"]}


def test_a_simulated_vm_in_order(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SVSM_ATTEST_ALLOW_SIMULATOR", "true")
    ended = cli("selftest", "--backend", "simulator", "--json")
    assert ended.status == 0
    assert (ended.json["ok"], ended.json["simulated"]) == (True, True)
    found = statuses(ended)
    expected = ("simulator", "attestation", "manifest", *EVIDENCE, "certificates", *ENDORSEMENTS)
    assert {name: found[name] for name in expected} == dict.fromkeys(expected, "ok")
    names = [name for name in found if name in expected]
    assert names == list(expected)
    shown = cli("selftest", "--backend", "simulator")
    assert shown.out.startswith("SIMULATED: this says nothing about any hardware.")
    assert shown.out.rstrip().split("\n")[-1].startswith("None of ")


@pytest.mark.parametrize("ek", ["rsa2048", "p256", "p384"])
def test_a_simulated_vm_with_its_tpm(ek: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    demand("swtpm")
    monkeypatch.setenv("SVSM_ATTEST_SIMULATOR_EK", ek)
    ended = cli("selftest", "--backend", "simulator", "--json")
    found = statuses(ended)
    expected = ("vtpm", "vtpm.quote", "attestation", *KEY, *QUOTE)
    assert {name: found[name] for name in expected} == dict.fromkeys(expected, "ok"), ended.out
    assert [name for name in found if name in expected] == list(expected)


@pytest.mark.parametrize(
    ("fault", "failing"),
    [
        ("vtpm.ak_binding", {"vtpm.ak_binding", "vtpm.ak_import"}),
        ("vtpm.quote.digest", {"vtpm.quote.digest"}),
        ("vtpm.event_log", {"vtpm.event_log"}),
    ],
)
def test_a_fault_of_the_tpm_is_found(
    fault: str, failing: set[str], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    demand("swtpm")
    monkeypatch.setenv("SVSM_ATTEST_ALLOW_SIMULATOR", "true")
    monkeypatch.setenv("SVSM_ATTEST_SIMULATOR_FAULT", fault)
    ended = cli("selftest", "--backend", "simulator", "--json")
    assert ended.status == 1
    assert {name for name, status in statuses(ended).items() if status == "fail"} == failing


def test_a_simulated_vm_without_a_tpm(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SVSM_ATTEST_ALLOW_SIMULATOR", "true")
    monkeypatch.setenv("SVSM_ATTEST_SIMULATOR_VTPM", "none")
    ended = cli("selftest", "--backend", "simulator", "--json")
    found = statuses(ended)
    assert (ended.status, found["vtpm"], found["vtpm.live_ek"]) == (0, "skip", "skip")
    assert not set(found) & {"vtpm.quote", "vtpm.ak", *QUOTE}


def test_a_manifest_whose_ek_is_none_of_the_tcg(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    demand("swtpm")
    monkeypatch.setenv("SVSM_ATTEST_ALLOW_SIMULATOR", "true")
    monkeypatch.setenv("SVSM_ATTEST_SIMULATOR_FAULT", "vtpm.ek_template")
    ended = cli("selftest", "--backend", "simulator", "--json")
    found = statuses(ended)
    assert (found["vtpm.live_ek"], found["vtpm.ak_binding"]) == ("skip", "fail")
    assert "vtpm.ak_import" not in found


def test_a_tpm_without_an_event_log_still_quotes(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    demand("swtpm")

    def unreadable(_: object) -> bytes:
        raise BackendError(VtpmCause.EVENT_LOG, "the event log may not be read", "Run as root")

    monkeypatch.setattr(SimulatorBackend, "event_log", unreadable)
    ended = cli("selftest", "--backend", "simulator", "--json")
    found = statuses(ended)
    assert (found["event log"], found["vtpm.quote"], found["vtpm.quote.digest"]) == ("skip", "ok", "ok")
    assert found["vtpm.event_log"] == "skip"


def test_a_tpm_with_another_ek_than_the_svsm_vouches_for(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    demand("swtpm")
    monkeypatch.setenv("SVSM_ATTEST_ALLOW_SIMULATOR", "true")
    stale = SWTPM_EK  # of a TPM that was manufactured anew since
    monkeypatch.setattr(SimulatedVtpm, "public", lambda _: stale)
    ended = cli("selftest", "--backend", "simulator")
    assert ended.status == 1
    assert "fail  vtpm.live_ek" in ended.out
    assert "makes another EK than the SVSM vouches for" in ended.out
    assert "do: Restart the VM." in ended.out
    assert "fail  vtpm.ak_binding" in ended.out  # the challenge is to a key that is not there


def test_evidence_that_does_not_parse(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def malformed(_: bytes) -> None:
        raise WireError("ATTESTATION_REPORT", 0, "damaged")

    monkeypatch.setattr("app.cli.examination.AttestationReport", SimpleNamespace(parse=malformed))
    ended = cli("selftest", "--backend", "simulator", "--json")
    assert ended.status == 1
    assert ended.json["checks"][-1]["detail"] == "ATTESTATION_REPORT at 0x0: damaged"


def test_a_manifest_without_an_ek(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cli.examination.Service", SimpleNamespace(VTPM=Service.UEFI_MM))
    ended = cli("selftest", "--backend", "simulator", "--json")
    live_ek = next(one for one in ended.json["checks"] if one["name"] == "vtpm.live_ek")
    assert (live_ek["status"], live_ek["detail"]) == ("skip", "The manifest holds no EK.")


def test_a_tpm_that_refuses_to_quote(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    demand("swtpm")

    def refuse(*_: object) -> tuple[bytes, bytes]:
        raise TpmRefusedError("TPM2_Quote", 0x921, "TPM_RC_LOCKOUT")

    monkeypatch.setattr(Tpm, "quote", refuse)
    ended = cli("selftest", "--backend", "simulator", "--json")
    failed = next(one for one in ended.json["checks"] if one["name"] == "vtpm.quote")
    assert failed["status"] == "fail"
    assert failed["detail"] == "tpm-refused: the TPM refused: TPM2_Quote answered 0x921 TPM_RC_LOCKOUT"
    assert "tpm2_dictionarylockout" in failed["remedy"]
    assert statuses(ended)["attestation"] == "ok"  # a report without a quote


def test_a_tpm_that_fails_between_report_and_challenge(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    demand("swtpm")

    async def gone(*_: object) -> None:
        raise TpmUnavailableError("tpm-gone", "the TPM broke off", "Try again")

    monkeypatch.setattr(Vtpm, "hand_out", gone)
    monkeypatch.setattr(Vtpm, "ek", gone)
    ended = cli("selftest", "--backend", "simulator", "--json")
    found = statuses(ended)
    assert (found["vtpm.ak_binding"], found["vtpm.ak_import"]) == ("fail", "fail")
    assert found["vtpm.live_ek"] == "skip"


def test_a_simulator_that_is_not_trusted_fails_at_its_chain(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SVSM_ATTEST_BACKEND", "simulator")
    ended = cli("selftest", "--json")
    assert ended.status == 1
    assert [name for name, status in statuses(ended).items() if status == "fail"] == ["snp.chain"]
    assert "1 of " in cli("selftest").out


def test_certificates_that_cannot_be_had_are_no_failure(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SVSM_ATTEST_SIMULATOR_CERTIFICATES", "false")
    ended = cli("selftest", "--backend", "simulator", "--offline")
    assert ended.status == 0
    assert "skip  certificates" in ended.out
    assert "do: A verifier needs them" in ended.out
    assert "snp.signature" not in ended.out


@pytest.mark.parametrize(
    ("fault", "check"),
    [("snp.vmpl", "snp.vmpl"), ("snp.report_data", "snp.report_data"), ("snp.signature", "snp.signature")],
)
def test_a_fault_is_found(fault: str, check: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SVSM_ATTEST_ALLOW_SIMULATOR", "true")
    monkeypatch.setenv("SVSM_ATTEST_SIMULATOR_FAULT", fault)
    ended = cli("selftest", "--backend", "simulator", "--json")
    assert ended.status == 1
    failed = next(one for one in ended.json["checks"] if one["name"] == check)
    assert failed["status"] == "fail"
    assert "Expected" in failed["detail"]


def test_a_machine_that_is_no_vm(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SVSM_ATTEST_CONFIGFS_PATH", str(tmp_path / "tsm" / "report"))
    ended = cli("selftest", "--json")  # not the simulator, which a service would take by default
    assert ended.status == 4
    assert ended.json["backend"] == "configfs"
    found = statuses(ended)
    assert (found["configfs"], found["provider"], found["attestation"]) == ("fail", "skip", "fail")
    first = ended.json["checks"][0]
    assert first["remedy"]


def test_a_state_directory_that_cannot_be_used(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SVSM_ATTEST_SIMULATOR_STATE_DIR", "/proc/nowhere")
    ended = cli("selftest", "--backend", "simulator", "--json")
    assert (ended.status, statuses(ended)) == (4, {"backend": "fail"})


def test_a_damaged_certificate_table_of_the_host(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cli.examination.CertificateTable.parse", parse_manifest)
    ended = cli("selftest", "--backend", "simulator", "--json")
    assert statuses(ended)["certificates"] == "skip"


@pytest.fixture
def configfs(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An emulated configfs-tsm, on which the settings point."""
    del cli
    try:
        with mounted(tmp_path) as mountpoint:
            monkeypatch.setenv("SVSM_ATTEST_CONFIGFS_PATH", str(mountpoint / "report"))
            monkeypatch.setenv("SVSM_ATTEST_DEVICE_INTERVAL_S", "0")
            yield mountpoint
    except MountNotPossibleError as error:
        pytest.skip(str(error))


def test_a_vm_whose_kernel_is_emulated(configfs: Path, cli: Cli) -> None:
    del configfs
    ended = cli("selftest", "--offline", "--json")
    found = statuses(ended)
    passing = ("configfs", "entry", "provider", "svsm", "permission", "attestation", *EVIDENCE[:3])
    assert {name: found[name] for name in passing} == dict.fromkeys(passing, "ok"), ended.out
    assert found["certificates"] == "skip"
    assert (found["vtpm"], found["vtpm.live_ek"]) == ("skip", "skip")  # as where the kernel has no driver
    assert "vtpm.quote" not in found
    shown = cli("selftest", "--offline")
    assert "report-only, no quotes: " in shown.out
    assert "CONFIG_TCG_SVSM" in shown.out


def test_evidence_from_an_emulated_kernel(
    configfs: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    del configfs
    monkeypatch.setenv("SVSM_ATTEST_BACKEND", "configfs")
    ended = cli("attest", "--nonce", "3c" * 64)
    assert (ended.status, ended.json["backend"], ended.err) == (0, "configfs", "")
    evidence = tmp_path / "evidence.json"
    evidence.write_text(ended.out)
    assert cli("inspect", evidence).status == 0
