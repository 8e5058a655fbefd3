"""Settings: the environment over a TOML file over the defaults, read once.

A name is SVSM_ATTEST_<NAME> in the environment and <name> in the file. A name that is not known,
or a value that cannot be used, stops the start with one line for each fault.
"""

import ipaddress
import os
import tomllib
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from app.errors import ConfigError
from app.evidence.configfs import REPORT_DIRECTORY, TPM_DEVICE
from app.evidence.simulator.faults import Fault
from app.evidence.simulator.software_tpm import VtpmChoice
from app.evidence.vtpm.event_log import EVENT_LOG
from app.trust.kds import AMD_KDS
from app.trust.names import VekKind
from app.wire.product import ProductLine

PREFIX = "SVSM_ATTEST_"
CONFIG_FILE = f"{PREFIX}CONFIG"
_NOT_SETTINGS = {CONFIG_FILE, f"{PREFIX}VECTORS", f"{PREFIX}TSM_REPORT", f"{PREFIX}TSM_CONTROL"}

_HARDWARE_INTERVAL_S = 2.0
_MIB = 1 << 20
_SHOWN = 80
_POLICY_SUFFIXES = {".yaml", ".yml", ".json"}


def _folder(variable: str, below_home: str, system: str) -> Path:
    """The XDG base directory of that variable, its default, or where a service without a home keeps data."""
    named = os.environ.get(variable, "")
    if Path(named).is_absolute():
        return Path(named)
    try:
        return Path.home() / below_home
    except RuntimeError:
        return Path(system)


def _default_store() -> Path:
    return _folder("XDG_CACHE_HOME", ".cache", "/var/cache") / "svsm-attest" / "endorsements"


def _default_state() -> Path:
    return _folder("XDG_STATE_HOME", ".local/state", "/var/lib") / "svsm-attest" / "simulator"


def _split(value: object) -> object:
    """The environment has one string for a list: its parts are separated by commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _number(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _home(value: object) -> object:
    return os.path.expanduser(value) if isinstance(value, str) else value  # noqa: PTH111 (Path would raise)


def _file(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    return path


def _directory(path: Path) -> Path:
    if not path.is_dir():
        raise ValueError(f"{path} is not a folder")
    return path


AnyPath = Annotated[Path, BeforeValidator(_home)]
File = Annotated[AnyPath, AfterValidator(_file)]
Directory = Annotated[AnyPath, AfterValidator(_directory)]
TcgId = Annotated[str, Field(pattern=r"^id:[0-9A-Fa-f]{8}$")]


class Settings(BaseSettings):
    """Everything that an operator can choose. Times in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, env_ignore_empty=True)

    role: Literal["attester", "verifier", "both"] = "both"
    backend: Literal["simulator", "configfs"] = "simulator"

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8080, ge=0, le=0xFFFF)  # 0: any free one
    insecure_http: bool = False
    tls_certificate: File | None = None
    tls_key: File | None = None
    max_body_bytes: int = Field(default=_MIB, ge=0x4000, le=64 * _MIB)

    allow_simulator: bool = False
    trust_roots: Annotated[tuple[File, ...], NoDecode, BeforeValidator(_split)] = ()
    policy: str | None = Field(default=None, min_length=1)
    policy_dir: Directory | None = None
    store: AnyPath = Field(default_factory=_default_store)
    offline: bool = False
    kds_url: str = AMD_KDS
    kds_timeout_s: float = Field(default=5.0, gt=0, le=60)
    kds_negative_ttl_s: float = Field(default=30.0, ge=0, le=3600)
    challenge_lifetime_s: float = Field(default=120.0, gt=0, le=3600)
    max_challenges: int = Field(default=10_000, ge=1, le=1_000_000)

    configfs_path: AnyPath = REPORT_DIRECTORY
    device_interval_s: float | None = Field(default=None, ge=0, le=3600)
    device_timeout_s: float = Field(default=90.0, gt=0, le=3600)
    fetch_certificates: bool = False
    max_waiting: int = Field(default=64, ge=1, le=10_000)

    tpm_device: AnyPath = TPM_DEVICE
    tpm_event_log: AnyPath = EVENT_LOG
    tpm_timeout_s: float = Field(default=30.0, gt=0, le=600)
    tpm_max_waiting: int = Field(default=64, ge=1, le=10_000)

    ek_ca_certificate: File | None = None
    ek_ca_key: File | None = None
    ek_ca_log: AnyPath | None = None
    ek_certificate_lifetime_s: float = Field(default=86_400.0, ge=60, le=86_400)
    ek_tpm_manufacturer: TcgId = "id:414D4400"
    ek_tpm_model: str = Field(default="SVSM vTPM", pattern=r"^[ -~]{1,48}$")
    ek_tpm_version: TcgId = "id:00000000"
    ek_tpm_revision: int = Field(default=164, ge=0, le=0xFFFF)

    simulator_product: ProductLine = ProductLine.GENOA
    simulator_report_version: Annotated[Literal[2, 3, 5], BeforeValidator(_number)] = 5
    simulator_signing_key: VekKind = VekKind.VCEK
    simulator_ek: Literal["rsa2048", "p256", "p384"] = "rsa2048"
    simulator_vtpm: VtpmChoice = VtpmChoice.AUTO
    simulator_fault: Fault | None = None
    simulator_certificates: bool = True
    simulator_state_dir: AnyPath = Field(default_factory=_default_state)

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"

    @property
    def attests(self) -> bool:
        """Does the role include that of the attester?"""
        return self.role != "verifier"

    @property
    def verifies(self) -> bool:
        """Does the role include that of the verifier?"""
        return self.role != "attester"

    @property
    def simulates(self) -> bool:
        """Does evidence come from the simulator here?"""
        return self.attests and self.backend == "simulator"

    @property
    def interval_s(self) -> float:
        """Least time between two requests to the device."""
        if self.device_interval_s is not None:
            return self.device_interval_s
        return 0.0 if self.backend == "simulator" else _HARDWARE_INTERVAL_S

    @property
    def policy_file(self) -> Path | None:
        """The policy's file, where `policy` is a path and not a name."""
        if self.policy is None or (
            "/" not in self.policy and Path(self.policy).suffix not in _POLICY_SUFFIXES
        ):
            return None
        return Path(str(_home(self.policy)))

    @property
    def on_loopback(self) -> bool:
        """Can nobody but this machine reach `host`?"""
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return self.host == "localhost"

    def server_options(self) -> dict[str, Any]:
        """Keyword arguments for uvicorn: what belongs to the connection and not to a request.

        No access log, because it would hold nonces; no Server header; request line and headers
        in at most 64 KiB; TLS where a certificate is set.
        """
        tls: dict[str, Any] = {}
        if self.tls_certificate is not None:
            tls = {"ssl_certfile": str(self.tls_certificate), "ssl_keyfile": str(self.tls_key)}
        return {
            "host": self.host.strip("[]"),
            "port": self.port,
            "log_config": None,
            "access_log": False,
            "server_header": False,
            "proxy_headers": False,
            "lifespan": "on",
            "http": "h11",
            "ws": "none",
            "h11_max_incomplete_event_size": 0x10000,
            "timeout_graceful_shutdown": 30,
            **tls,
        }

    @classmethod
    def load(cls, file: Path | None = None) -> Self:
        """Read the environment and the TOML file, which SVSM_ATTEST_CONFIG may name instead.

        Raises:
            ConfigError: an unknown name, a value that cannot be used, settings that contradict each
                other, or a file that is not TOML; one line for each.
        """
        named = os.environ.get(CONFIG_FILE)
        file = file or (Path(named) if named else None)
        written = _read_toml(file) if file else {}
        faults = [*_unknown_variables(cls), *_unknown_keys(cls, written, file)]
        if faults:
            raise ConfigError("\n".join(faults))
        try:
            return cls(**written)
        except ValidationError as error:
            raise ConfigError("\n".join(_faults(error, file))) from error

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment first, then what was given as arguments, which is what the file says."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings

    def _ek_ca_faults(self) -> Iterator[str]:
        chosen = {name: getattr(self, name) for name in ("ek_ca_certificate", "ek_ca_key", "ek_ca_log")}
        missing = [name for name, value in chosen.items() if value is None]
        if 0 < len(missing) < len(chosen):
            yield f"{', '.join(chosen)} go together: {', '.join(missing)} missing"
        if not missing and not self.verifies:
            yield "ek_ca_key is a verifier's: inside the VM that it vouches for it is worth nothing"

    @model_validator(mode="after")
    def _agree(self) -> Self:
        faults = []
        if (self.tls_certificate is None) != (self.tls_key is None):
            faults.append("tls_certificate and tls_key go together: one of them is missing")
        faults.extend(self._ek_ca_faults())
        if not self.on_loopback:
            if self.simulates and not self.allow_simulator:
                faults.append(
                    f"host {self.host} is not loopback, and the backend is the simulator:"
                    " set backend=configfs, or allow_simulator=true if this is meant"
                )
            if self.tls_certificate is None and not self.insecure_http:
                faults.append(
                    f"host {self.host} is not loopback, and there is no TLS: set tls_certificate and"
                    " tls_key, or insecure_http=true if something in front does TLS"
                )
        if self.policy_file is not None and not self.policy_file.is_file():
            faults.append(f"policy {self.policy_file} is not a file")
        if faults:
            raise ValueError("\n".join(faults))
        return self


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            raw = stream.read(_MIB + 1)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    if len(raw) > _MIB:
        raise ConfigError(f"{file}: more than {_MIB} bytes")
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error


def _unknown_variables(settings: type[Settings]) -> list[str]:
    known = set(settings.model_fields)
    names = sorted(
        name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in _NOT_SETTINGS
    )
    asked = {name: name[len(PREFIX) :].lower() for name in names}
    return [
        f"{name}: there is no such setting{_suggest(field, known, lambda close: PREFIX + close.upper())}"
        for name, field in asked.items()
        if field not in known
    ]


def _unknown_keys(settings: type[Settings], written: dict[str, Any], file: Path | None) -> list[str]:
    known = set(settings.model_fields)
    strange = sorted(set(written) - known)
    return [f"{file}: {name}: there is no such setting{_suggest(name, known, str)}" for name in strange]


def _suggest(name: str, known: set[str], spell: Callable[[str], str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f" (did you mean {spell(close[0])}?)" if close else ""


def _faults(error: ValidationError, file: Path | None) -> list[str]:
    lines: list[str] = []
    for fault in error.errors(include_url=False):
        message = fault["msg"].removeprefix("Value error, ")
        if not fault["loc"]:  # of several settings together
            lines.extend(message.splitlines())
            continue
        name = str(fault["loc"][0])
        variable = PREFIX + name.upper()
        chosen = next((text for known, text in os.environ.items() if known.upper() == variable), None)
        place = f"{file}: {name}" if chosen is None else variable
        shown = repr(fault["input"] if chosen is None else chosen)
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
        lines.append(f"{place}={shown}: {message[:1].lower()}{message[1:]}")
    return list(dict.fromkeys(lines))
