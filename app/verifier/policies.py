"""The policies that a verifier knows by name."""

import re
from collections.abc import Iterable
from pathlib import Path

from app.appraisal.policy import NAME_PATTERN, Policy, default_policy
from app.appraisal.policy_document import MAX_SIZE, parse_policy
from app.errors import ConfigError, PolicyError

_MAX_FILES = 1000
_SUFFIXES = {".yaml", ".yml", ".json"}


class PolicySet:
    """Named policies, one of which is used when a request names none.

    Args:
        policies: beside the built-in `default`; a name that occurs twice is an error.
        chosen: name of the policy for requests that name none.

    Raises:
        ConfigError: a name twice, or `chosen` is not among them.
    """

    def __init__(self, policies: Iterable[Policy] = (), chosen: str | None = None) -> None:
        builtin = default_policy()
        self._policies = {builtin.id: builtin}
        for policy in policies:
            if policy.id in self._policies and policy.id != builtin.id:
                raise ConfigError(f"policy {policy.id} occurs twice")
            self._policies[policy.id] = policy
        self.chosen = chosen or builtin.id
        if self.chosen not in self._policies:
            raise ConfigError(f"policy {self.chosen} is not known (known: {', '.join(self.names)})")

    @property
    def names(self) -> tuple[str, ...]:
        """Every name, sorted."""
        return tuple(sorted(self._policies))

    def get(self, name: str | None = None) -> Policy:
        """The policy of that name, or the chosen one.

        Raises:
            PolicyError: no policy has this name.
        """
        found = self._policies.get(name if name is not None else self.chosen)
        if found is None:
            # What is no name may be anything, and of any length: it is not repeated.
            is_name = name is not None and re.fullmatch(NAME_PATTERN, name)
            raise PolicyError(
                "name", f"no policy is called {name!r}" if is_name else "no policy has this name"
            )
        return found


def read_policy(path: Path) -> Policy:
    """Read one policy file (YAML or JSON, at most 1 MiB).

    Raises:
        PolicyError: not a policy; names the file and the place.
        ConfigError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise ConfigError(f"policy {path} cannot be read: {error.strerror}") from error
    try:
        return parse_policy(raw, path.name)
    except PolicyError as error:
        place = error.place if error.place.startswith(path.name) else f"{path.name}: {error.place}"
        raise PolicyError(place, error.reason) from error


def read_policies(folder: Path) -> list[Policy]:
    """Read every .yaml, .yml and .json file of a folder.

    Raises:
        PolicyError: one of them is not a policy.
        ConfigError: the folder cannot be read, or holds more than 1000 files.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
    except OSError as error:
        raise ConfigError(f"policy folder {folder} cannot be read: {error.strerror}") from error
    if len(paths) > _MAX_FILES:
        raise ConfigError(f"policy folder {folder} holds more than {_MAX_FILES} files")
    return [read_policy(path) for path in paths]
