import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from app.config import Settings
from app.errors import BackendError, ConfigError, PolicyError
from app.evidence.simulator.backend import SimulatorBackend
from app.main import create_app
from app.wire.product import ProductLine
from tests.api.backends import ScriptedBackend
from tests.api.service import Service
from tests.api.services import new_settings

__all__ = ["new_settings"]

Make = Callable[..., Settings]


@pytest.fixture
def root(simulator_state: Path, tmp_path: Path) -> Path:
    """A simulated ARK as a file."""
    backend = SimulatorBackend(line=ProductLine.GENOA, state_dir=simulator_state)
    file = tmp_path / "ark.pem"
    file.write_bytes(backend.authority.ark.public_bytes(Encoding.PEM))
    return file


def lines(captured: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in captured.splitlines()]


def test_a_simulated_root_takes_the_setting(new_settings: Make, root: Path) -> None:
    with pytest.raises(ConfigError, match="ALLOW_SIMULATOR"):
        create_app(new_settings(role="verifier", trust_roots=(root,)))
    create_app(new_settings(role="verifier", trust_roots=(root,), allow_simulator=True))
    create_app(new_settings(role="attester", trust_roots=(root,)))  # attesters trust nobody


@pytest.mark.parametrize(
    "content", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_trust_root_that_is_none(new_settings: Make, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "root.pem"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=f"trust root {file} cannot be used"):
        create_app(new_settings(role="verifier", trust_roots=(file,)))


def test_a_leaf_is_no_trust_root(new_settings: Make, simulator_state: Path, tmp_path: Path) -> None:
    backend = SimulatorBackend(line=ProductLine.GENOA, state_dir=simulator_state)
    file = tmp_path / "ask.pem"
    file.write_bytes(backend.authority.ask.public_bytes(Encoding.PEM))
    with pytest.raises(ConfigError, match="is not a root certificate"):
        create_app(new_settings(role="verifier", trust_roots=(file,), allow_simulator=True))


def test_a_trust_root_that_goes_away(new_settings: Make, tmp_path: Path) -> None:
    file = tmp_path / "root.pem"
    file.touch()
    settings = new_settings(role="verifier", trust_roots=(file,))
    file.unlink()
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        create_app(settings)


def test_policies_are_read_at_the_start(new_settings: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="policy nobody is not known"):
        create_app(new_settings(policy="nobody"))
    (tmp_path / "one.yaml").write_text("version: 1\nid: one\n")
    with Service(create_app(new_settings(policy_dir=tmp_path, policy="one"))) as service:
        assert service.state["policies"].chosen == "one"
    # The chosen file may lie in the folder, or elsewhere.
    create_app(new_settings(policy_dir=tmp_path, policy=str(tmp_path / "one.yaml")))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "three.yaml").write_text("version: 1\nid: three\n")
    chosen = str(elsewhere / "three.yaml")
    with Service(create_app(new_settings(policy_dir=tmp_path, policy=chosen))) as service:
        assert service.state["policies"].names == ("default", "one", "three")
        assert service.state["policies"].chosen == "three"
    (tmp_path / "two.yaml").write_text("version: 1\nid: two\npolcy: {}\n")
    with pytest.raises(PolicyError, match=r"two\.yaml: polcy"):
        create_app(new_settings(policy_dir=tmp_path))
    create_app(new_settings(role="attester", policy_dir=tmp_path))  # which appraises nothing


def test_two_policies_of_one_name(new_settings: Make, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("version: 1\nid: same\n")
    (tmp_path / "two.json").write_text('{"version": 1, "id": "same", "policy": {"vmpl": 1}}')
    with pytest.raises(ConfigError, match="policy same occurs twice"):
        create_app(new_settings(policy_dir=tmp_path))


def test_a_chosen_policy_is_not_replaced_by_the_simulators(new_settings: Make) -> None:
    with Service(create_app(new_settings(allow_simulator=True, policy="default"))) as service:
        assert service.state["policies"].chosen == "default"
        assert service.state["policies"].names == ("default", "simulator")


def test_the_simulators_policy_is_the_built_in_one_and_one_measurement(new_settings: Make) -> None:
    with Service(create_app(new_settings(allow_simulator=True))) as service:
        policies, simulator = service.state["policies"], service.state["simulator"]
    policy, default = policies.get(), policies.get("default")
    (known,) = policy.reference_values.measurements
    assert (known.value, known.name, known.attest_feature) == (
        simulator.measurement,
        "svsm-attest simulator",
        False,
    )
    assert (policy.id, policy.policy, policy.root_of_trust) == (
        "simulator",
        default.policy,
        default.root_of_trust,
    )
    assert policy.digest != default.digest


@pytest.mark.parametrize("settings", [{}, {"allow_simulator": True, "role": "verifier", "offline": True}])
def test_nobody_else_has_the_simulators_policy(new_settings: Make, settings: dict[str, Any]) -> None:
    with Service(create_app(new_settings(**settings))) as service:
        assert service.state["policies"].names == ("default",)


def test_a_fault_that_would_change_nothing_stops_the_start(new_settings: Make) -> None:
    with pytest.raises(ConfigError, match=r"snp\.mit_vector"):
        create_app(new_settings(simulator_fault="snp.mit_vector", simulator_report_version=3))


def test_a_kds_address_that_is_none_stops_the_start(
    new_settings: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = new_settings(role="verifier", kds_url="http://kds.example.org", log_format="json")
    service = Service(create_app(settings))
    with pytest.raises(ConfigError, match="want https"):
        service.__enter__()
    (told,) = lines(capsys.readouterr().err)
    assert told["event"] == "start_failed"
    assert "want https" in told["reason"]


def test_a_state_folder_that_cannot_be_used_stops_the_start(new_settings: Make, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BackendError, match="state directory"):
        create_app(new_settings(simulator_state_dir=tmp_path / "file" / "state"))


def test_a_start_on_the_simulator_is_loud(new_settings: Make, capsys: pytest.CaptureFixture[str]) -> None:
    with Service(create_app(new_settings(allow_simulator=True, log_level="info", log_format="json"))):
        pass
    events = lines(capsys.readouterr().err)
    warnings = [line["event"] for line in events if line["level"] == "warning"]
    assert warnings == ["simulator_in_use", "simulator_trusted"]
    started = next(line for line in events if line["event"] == "started")
    assert (started["simulated"], started["allow_simulator"]) == (True, True)
    assert events[-1]["event"] == "stopped"


def test_so_is_a_verifier_that_trusts_one_elsewhere(
    new_settings: Make, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = new_settings(
        role="verifier", trust_roots=(root,), allow_simulator=True, log_level="warning", log_format="json"
    )
    with Service(create_app(settings)):
        pass
    (told,) = lines(capsys.readouterr().err)
    assert (told["event"], told["roots"]) == ("simulator_trusted", ["ARK-Genoa"])


def test_a_start_on_hardware_is_not(new_settings: Make, capsys: pytest.CaptureFixture[str]) -> None:
    settings = new_settings(role="attester", backend="configfs", log_level="info", log_format="json")
    backend = ScriptedBackend()
    with Service(create_app(settings, backend=backend)):
        assert not backend.closed
    assert backend.closed
    events = lines(capsys.readouterr().err)
    assert [line["event"] for line in events] == ["started", "stopped"]
    assert events[0]["simulated"] is False


def test_nothing_of_a_request_is_logged(new_settings: Make, capsys: pytest.CaptureFixture[str]) -> None:
    nonce = bytes(range(64))
    with Service(
        create_app(new_settings(allow_simulator=True, log_level="debug", log_format="json"))
    ) as service:
        evidence = service.attest(nonce)
        service.verify(nonce, evidence)
        service.get(f"/attest?nonce={nonce.hex()}")
        service.post("/attest", content=b'{"nonce": "c2VjcmV0"')
    told = capsys.readouterr().err
    for secret in (
        nonce.hex(),
        evidence["nonce"],
        evidence["report"][:40],
        evidence["manifest"][:40],
        "c2VjcmV0",
    ):
        assert secret not in told
    assert {"attested", "appraised", "request"} <= {line["event"] for line in lines(told)}


def test_configfs_is_what_the_settings_say(new_settings: Make, tmp_path: Path) -> None:
    settings = new_settings(role="both", backend="configfs", offline=True, configfs_path=tmp_path / "none")
    with Service(create_app(settings)) as service:
        document = service.get("/readyz").json()
        assert (document["backend"], document["simulated"], document["ready"]) == ("configfs", False, False)
        answer = service.get(f"/attest?nonce={'00' * 64}")
    assert answer.status_code == 503
    assert answer.json()["cause"] in {"configfs-not-mounted", "tsm-missing"}
    assert answer.json()["remedy"]


def test_a_server_needs_nothing_but_the_factory(tmp_path: Path, simulator_state: Path) -> None:
    """`uvicorn --factory app.main:create_app` with an unknown setting ends with one clear line."""
    program = (
        "import app.main\n"
        "try:\n    app.main.create_app()\n"
        "except Exception as error:\n    print(type(error).__name__, error)"
    )
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "SVSM_ATTEST_SIMULATOR_STATE_DIR": str(simulator_state),
        "SVSM_ATTEST_PROT": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout == (
        "ConfigError SVSM_ATTEST_PROT: there is no such setting (did you mean SVSM_ATTEST_PORT?)\n"
    )
