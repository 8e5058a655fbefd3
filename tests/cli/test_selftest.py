"""`selftest`: one line a check, in the order in which they build on each other, with what to do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli import selftest
from app.cli.live_ek import NotComparedError, attested_ek, device_tcti, live_ek
from app.wire.manifest import EkManifest, parse_manifest
from app.wire.tpm.public import TpmtPublic
from tests.cli.command_line import Cli, Ended
from tests.fakes.tsm_mount import MountNotPossibleError, mounted
from tests.interop.software_tpm import SoftwareTpm, demand, software_tpm

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
    monkeypatch.setattr("app.cli.selftest.CertificateTable.parse", parse_manifest)
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
    assert found["vtpm.live_ek"] == "skip"
    shown = cli("selftest", "--offline")
    assert "not checked here: " in shown.out


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


# The EK of the live TPM


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareTpm]:
    """A software TPM, which makes EKs as any other."""
    with software_tpm(tmp_path_factory.mktemp("tpm")) as running:
        yield running


@pytest.fixture(scope="module")
def attested(tpm: SoftwareTpm) -> TpmtPublic:
    """What an SVSM would vouch for: this TPM's EK."""
    tpm.run("tpm2_createek", "-G", "rsa", "-c", "ek.ctx", "-u", "ek.pub")
    return TpmtPublic.from_tpm2b(tpm.read("ek.pub"))


def tcti(tpm: SoftwareTpm) -> str:
    return f"swtpm:host=127.0.0.1,port={tpm.port}"


def test_the_live_tpm_gives_the_same_ek_again(tpm: SoftwareTpm, attested: TpmtPublic) -> None:
    assert live_ek(attested, tcti(tpm)) == attested
    tpm.run("tpm2_flushcontext", "-t")


def test_another_tpm_gives_another(tpm: SoftwareTpm, vectors: Path) -> None:
    raw = (vectors / "synthetic/genoa/svsm-vtpm-good/manifest-tpmt_public.bin").read_bytes()
    other = parse_manifest(raw)
    assert isinstance(other, EkManifest)
    assert live_ek(other.ek, tcti(tpm)) != other.ek
    tpm.run("tpm2_flushcontext", "-t")


def test_why_a_tpm_was_not_asked(
    attested: TpmtPublic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demand("tpm2_createek")
    with pytest.raises(NotComparedError, match="tpm2_createek failed"):
        live_ek(attested, "device:/nonexistent")
    with pytest.raises(NotComparedError, match="there is no"):
        device_tcti(tmp_path / "tpmrm0")
    assert device_tcti(Path("/dev/null")) == "device:/dev/null"
    signing = TpmtPublic.parse(attested.encode()[:4] + bytes.fromhex("000300b6") + attested.encode()[8:])
    with pytest.raises(NotComparedError, match="no template"):
        live_ek(signing, "device:/nonexistent")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotComparedError, match="not installed"):
        live_ek(attested, "device:/nonexistent")


@pytest.mark.parametrize(
    ("script", "said"), [("exit 0", "no public area"), ("exec sleep 5", "did not finish")]
)
def test_a_tool_that_misbehaves(
    script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vectors: Path
) -> None:
    tool = tmp_path / "tpm2_createek"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr("app.cli.live_ek._TIMEOUT_S", 0.5)
    raw = (vectors / "synthetic/genoa/svsm-vtpm-good/manifest-tpmt_public.bin").read_bytes()
    with pytest.raises(NotComparedError, match=said):
        live_ek(attested_ek(raw), "device:/nonexistent")


def test_a_manifest_without_a_vtpm_has_no_ek() -> None:
    with pytest.raises(NotComparedError, match="no EK"):
        attested_ek(bytes(8))


def test_the_comparison_shows_in_the_selftest(
    configfs: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    del configfs
    monkeypatch.setattr(selftest, "device_tcti", lambda _: "device:none")
    monkeypatch.setattr(selftest, "live_ek", lambda attested, _: attested)
    assert statuses(cli("selftest", "--offline", "--json"))["vtpm.live_ek"] == "ok"

    def another(attested: TpmtPublic, _: str) -> TpmtPublic:
        raw = bytearray(attested.encode())
        raw[-2] ^= 1
        return TpmtPublic.parse(bytes(raw))

    monkeypatch.setattr(selftest, "live_ek", another)
    ended = cli("selftest", "--offline")
    assert ended.status == 1
    assert "has another EK" in ended.out
    assert "do: Restart the VM" in ended.out
