import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from pydantic import ValidationError

from app.config import CONFIG_FILE, PREFIX, Settings
from app.errors import ConfigError

Environment = Callable[..., None]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Sets SVSM_ATTEST_* variables, after taking away those that are there."""
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)

    def choose(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(PREFIX + name, value)

    return choose


def refused(file: Path | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Settings.load(file)
    return str(caught.value).splitlines()


def toml(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    return file


def test_with_nothing_set_both_roles_run_on_the_simulator_on_loopback(environment: Environment) -> None:
    environment()
    settings = Settings.load()
    assert (settings.role, settings.backend) == ("both", "simulator")
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert settings.allow_simulator is False
    assert (settings.attests, settings.verifies, settings.simulates) == (True, True, True)
    assert settings.interval_s == 0
    assert settings.trust_roots == ()
    assert settings.kds_url == "https://kdsintf.amd.com"
    assert settings.max_body_bytes == 1 << 20


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(
    environment: Environment, tmp_path: Path
) -> None:
    environment(PORT="1111")
    file = toml(tmp_path, 'port = 2222\nrole = "verifier"\n')
    settings = Settings.load(file)
    assert (settings.port, settings.role, settings.log_level) == (1111, "verifier", "info")


def test_the_file_may_be_named_in_the_environment(environment: Environment, tmp_path: Path) -> None:
    environment(CONFIG=str(toml(tmp_path, "port = 3333\n")))
    assert Settings.load().port == 3333
    assert CONFIG_FILE == "SVSM_ATTEST_CONFIG"


def test_every_type_of_setting_in_both_spellings(environment: Environment, tmp_path: Path) -> None:
    root = tmp_path / "ark.pem"
    other = tmp_path / "other.pem"
    root.touch()
    other.touch()
    file = toml(
        tmp_path,
        f'trust_roots = ["{root}", "{other}"]\noffline = true\nkds_timeout_s = 1.5\n'
        'simulator_report_version = 3\nsimulator_product = "Turin"\nsimulator_fault = "snp.vmpl"\n',
    )
    environment()
    by_file = Settings.load(file)
    environment(
        TRUST_ROOTS=f"{root}, {other},",
        OFFLINE="yes",
        KDS_TIMEOUT_S="1.5",
        SIMULATOR_REPORT_VERSION="3",
        SIMULATOR_PRODUCT="Turin",
        SIMULATOR_FAULT="snp.vmpl",
    )
    assert Settings.load() == by_file
    assert by_file.trust_roots == (root, other)
    assert by_file.simulator_report_version == 3


def test_an_empty_variable_is_as_good_as_none(environment: Environment) -> None:
    environment(PORT="", POLICY="", DEVICE_INTERVAL_S="")
    assert Settings.load().port == 8080


def test_settings_cannot_be_changed(environment: Environment) -> None:
    environment()
    with pytest.raises(ValidationError):
        Settings.load().port = 1  # type: ignore[misc]


@pytest.mark.parametrize("name", ["VECTORS", "TSM_REPORT", "TSM_CONTROL"])
def test_what_belongs_to_the_tests_is_no_setting(environment: Environment, name: str) -> None:
    environment(**{name: "anything"})
    Settings.load()


def test_unknown_names_stop_the_start_with_a_line_each(environment: Environment, tmp_path: Path) -> None:
    environment(PROT="1", ZZZZZZ="1", offlien="1")
    file = toml(tmp_path, "prot = 1\n[kds]\nurl = 1\n")
    assert refused(file) == [
        "SVSM_ATTEST_PROT: there is no such setting (did you mean SVSM_ATTEST_PORT?)",
        "SVSM_ATTEST_ZZZZZZ: there is no such setting",
        "SVSM_ATTEST_offlien: there is no such setting (did you mean SVSM_ATTEST_OFFLINE?)",
        f"{file}: kds: there is no such setting (did you mean kds_url?)",
        f"{file}: prot: there is no such setting (did you mean port?)",
    ]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ROLE", "verifer", "'attester', 'verifier' or 'both'"),
        ("BACKEND", "tpm", "'simulator' or 'configfs'"),
        ("PORT", "65536", "less than or equal to 65535"),
        ("PORT", "-1", "greater than or equal to 0"),
        ("PORT", "http", "valid integer"),
        ("ALLOW_SIMULATOR", "maybe", "valid boolean"),
        ("TRUST_ROOTS", "/does/not/exist.pem", "/does/not/exist.pem is not a file"),
        ("TLS_CERTIFICATE", "/does/not/exist.pem", "is not a file"),
        ("POLICY_DIR", "/does/not/exist", "is not a folder"),
        ("KDS_TIMEOUT_S", "0", "greater than 0"),
        ("KDS_TIMEOUT_S", "nan", "KDS_TIMEOUT_S='nan'"),
        ("KDS_TIMEOUT_S", "inf", "less than or equal to 60"),
        ("DEVICE_INTERVAL_S", "-0.1", "greater than or equal to 0"),
        ("MAX_WAITING", "0", "greater than or equal to 1"),
        ("MAX_BODY_BYTES", "100", "greater than or equal to 16384"),
        ("SIMULATOR_PRODUCT", "Rome", "'Milan', 'Genoa' or 'Turin'"),
        ("SIMULATOR_REPORT_VERSION", "4", "2, 3 or 5"),
        ("SIMULATOR_SIGNING_KEY", "vik", "'vcek' or 'vlek'"),
        ("SIMULATOR_EK", "rsa", "'rsa2048', 'p256' or 'p384'"),
        ("SIMULATOR_FAULT", "everything", "snp.signature"),
        ("LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("LOG_FORMAT", "xml", "'auto', 'json' or 'console'"),
    ],
)
def test_a_value_that_cannot_be_used_is_told_with_its_place(
    environment: Environment, name: str, value: str, words: str
) -> None:
    environment(**{name: value})
    (line,) = refused()
    assert line.startswith(f"SVSM_ATTEST_{name}={value!r}: ")
    assert words in line


def test_the_file_is_named_where_the_value_comes_from_it(environment: Environment, tmp_path: Path) -> None:
    environment()
    file = toml(tmp_path, 'port = "x"\nmax_waiting = 0\nlog_level = "' + "x" * 500 + '"\n')
    lines = refused(file)
    assert [line.split("=")[0] for line in lines] == [
        f"{file}: port",
        f"{file}: max_waiting",
        f"{file}: log_level",
    ]
    assert max(map(len, lines)) < 250


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"port = ", "not TOML"),
        (b"port = 1\nport = 2\n", "not TOML"),
        (b"\xff\xfe", "not TOML"),
        (b"a=" + b"[" * 100_000, "not TOML"),
        (b"#" * ((1 << 20) + 1), "more than 1048576 bytes"),
    ],
)
def test_a_file_that_is_none(environment: Environment, tmp_path: Path, content: bytes, words: str) -> None:
    environment()
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    (line,) = refused(file)
    assert line.startswith(f"{file}: ")
    assert words in line


def test_a_file_that_is_not_there(environment: Environment, tmp_path: Path) -> None:
    environment()
    assert refused(tmp_path / "none.toml") == [f"{tmp_path}/none.toml: No such file or directory"]
    assert refused(tmp_path) == [f"{tmp_path}: Is a directory"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_loopback_needs_nothing(environment: Environment, host: str) -> None:
    environment(HOST=host)
    assert Settings.load().on_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "127.0.0.1.example.org"])  # noqa: S104
def test_outside_loopback_a_simulator_without_tls_is_refused_twice(
    environment: Environment, host: str
) -> None:
    environment(HOST=host)
    simulator, tls = refused()
    assert host in simulator
    assert "allow_simulator=true" in simulator
    assert "insecure_http=true" in tls


@pytest.mark.parametrize(
    ("chosen", "faults"),
    [
        ({"ALLOW_SIMULATOR": "1"}, 1),
        ({"INSECURE_HTTP": "1"}, 1),
        ({"ALLOW_SIMULATOR": "1", "INSECURE_HTTP": "1"}, 0),
        ({"BACKEND": "configfs"}, 1),
        ({"BACKEND": "configfs", "INSECURE_HTTP": "1"}, 0),
        ({"ROLE": "verifier"}, 1),  # its backend is nobody's
        ({"ROLE": "verifier", "INSECURE_HTTP": "1"}, 0),
        ({"ROLE": "attester", "INSECURE_HTTP": "1"}, 1),
    ],
)
def test_what_it_takes_outside_loopback(
    environment: Environment, chosen: dict[str, str], faults: int
) -> None:
    environment(HOST="0.0.0.0", **chosen)  # noqa: S104
    if faults:
        assert len(refused()) == faults
    else:
        Settings.load()


def test_tls_takes_both_files_and_makes_other_addresses_possible(
    environment: Environment, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "tls.pem", tmp_path / "tls.key"
    certificate.touch()
    key.touch()
    environment(TLS_CERTIFICATE=str(certificate))
    assert refused() == ["tls_certificate and tls_key go together: one of them is missing"]
    environment(TLS_KEY=str(key), HOST="0.0.0.0", BACKEND="configfs")  # noqa: S104
    options = Settings.load().server_options()
    assert (options["ssl_certfile"], options["ssl_keyfile"]) == (str(certificate), str(key))


def test_an_ek_authority_takes_all_its_files_and_a_verifier(environment: Environment, tmp_path: Path) -> None:
    certificate, key = tmp_path / "ca.pem", tmp_path / "ca.key"
    certificate.touch()
    key.touch()
    environment(EK_CA_CERTIFICATE=str(certificate))
    together = "ek_ca_certificate, ek_ca_key, ek_ca_log go together"
    assert refused() == [f"{together}: ek_ca_key, ek_ca_log missing"]
    environment(EK_CA_KEY=str(key))
    assert refused() == [f"{together}: ek_ca_log missing"]
    environment(EK_CA_LOG=str(tmp_path / "issued.jsonl"))
    assert Settings.load().ek_certificate_lifetime_s == 24 * 3600
    environment(ROLE="attester")
    (fault,) = refused()
    assert fault.startswith("ek_ca_key is a verifier's")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EK_CERTIFICATE_LIFETIME_S", "59"),
        ("EK_CERTIFICATE_LIFETIME_S", "86401"),
        ("EK_TPM_MANUFACTURER", "AMD"),
        ("EK_TPM_MANUFACTURER", "id:414D44"),
        ("EK_TPM_VERSION", "id:0000000g"),
        ("EK_TPM_VERSION", "id:00000000\n"),
        ("EK_TPM_MODEL", "x" * 49),
        ("EK_TPM_MODEL", "vTPM\x7f"),
        ("EK_TPM_REVISION", "-1"),
    ],
)
def test_what_an_ek_certificate_cannot_say(environment: Environment, name: str, value: str) -> None:
    environment(**{name: value})
    (fault,) = refused()
    assert fault.startswith(f"SVSM_ATTEST_{name}=")


def test_server_options_are_uvicorns(environment: Environment) -> None:
    environment(HOST="[::1]", PORT="0")
    options = Settings.load().server_options()
    config = uvicorn.Config("app.main:create_app", factory=True, **options)
    assert (config.host, config.port) == ("::1", 0)
    assert config.server_header is False
    assert config.access_log is False  # it would hold nonces
    assert config.ssl_certfile is None


@pytest.mark.parametrize(
    ("policy", "is_file"),
    [("default", False), ("my-policy", False), ("v1.2", False), ("here.yaml", True), ("sub/policy", True)],
)
def test_a_policy_is_a_name_or_a_file(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, *, is_file: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    environment(POLICY=policy)
    if is_file:
        assert refused() == [f"policy {policy} is not a file"]
        (tmp_path / policy).parent.mkdir(exist_ok=True)
        (tmp_path / policy).touch()
    assert (Settings.load().policy_file is not None) == is_file


def test_a_tilde_is_the_home(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    environment(STORE="~/store", CONFIGFS_PATH="/sys/kernel/config/tsm/report")
    assert Settings.load().store == tmp_path / "store"


@pytest.mark.parametrize(
    ("variables", "store", "state"),
    [
        ({"HOME": "/h"}, "/h/.cache", "/h/.local/state"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/c", "XDG_STATE_HOME": "/s"}, "/c", "/s"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "relative", "XDG_STATE_HOME": ""}, "/h/.cache", "/h/.local/state"),
    ],
)
def test_folders_follow_the_xdg_base_directories(
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    store: str,
    state: str,
) -> None:
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    environment()
    settings = Settings.load()
    assert settings.store == Path(store) / "svsm-attest" / "endorsements"
    assert settings.simulator_state_dir == Path(state) / "svsm-attest" / "simulator"


def test_who_has_no_home_has_the_systems_folders(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless() -> Any:
        raise RuntimeError("Could not determine home directory.")

    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    environment()
    settings = Settings.load()
    assert settings.store == Path("/var/cache/svsm-attest/endorsements")
    assert settings.simulator_state_dir == Path("/var/lib/svsm-attest/simulator")


@pytest.mark.parametrize(
    ("chosen", "interval_s"),
    [
        ({}, 0.0),
        ({"BACKEND": "configfs"}, 2.0),
        ({"BACKEND": "configfs", "DEVICE_INTERVAL_S": "0"}, 0.0),
        ({"DEVICE_INTERVAL_S": "7.5"}, 7.5),
    ],
)
def test_only_hardware_is_paced_unless_told_otherwise(
    environment: Environment, chosen: dict[str, str], interval_s: float
) -> None:
    environment(**chosen)
    assert Settings.load().interval_s == interval_s
