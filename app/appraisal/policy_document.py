"""Reads a policy document: YAML or JSON, bounded and without surprises."""

import json
from collections.abc import Hashable

import yaml
from pydantic import ValidationError

from app.appraisal.policy import Policy
from app.errors import PolicyError

MAX_SIZE = 1 << 20
_MAX_DEPTH = 16


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML without aliases (they multiply) and without duplicate keys (they hide)."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _fault("aliases are not allowed", event)
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise _fault("nested too deeply", event)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:  # noqa: FBT001, FBT002 (inherited)
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise _fault(f"{key} occurs twice", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def parse_policy(raw: bytes, name: str = "document") -> Policy:
    """Read a YAML or JSON policy of at most 1 MiB; `name` appears in errors.

    Raises:
        PolicyError: not such a document; the error names the place of its first fault.
    """
    if len(raw) > MAX_SIZE:
        raise PolicyError(name, f"{len(raw)} bytes, at most {MAX_SIZE}")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PolicyError(name, f"not UTF-8 at byte {error.start}") from error
    return policy_from(_load(text, name), name)


def policy_from(document: object, name: str = "document") -> Policy:
    """A policy from a decoded JSON or YAML value.

    Raises:
        PolicyError: as `parse_policy`.
    """
    if not isinstance(document, dict):
        raise PolicyError(name, f"want a mapping, got {type(document).__name__}")
    try:
        return Policy.model_validate(document)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        first = faults[0]
        place = "/".join(str(part) for part in first["loc"]) or name
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        reason = first["msg"].removeprefix("Value error, ").rstrip(".")
        if first["type"] == "extra_forbidden":
            reason = "unknown key"
        raise PolicyError(place, f"{reason}{more}") from error


def _fault(problem: str, place: yaml.Event | yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)  # type: ignore[arg-type]  # the stub has two Marks


def _load(text: str, name: str) -> object:
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text, object_pairs_hook=_unique)
        except json.JSONDecodeError as error:
            raise PolicyError(f"{name}, line {error.lineno}, column {error.colno}", error.msg) from error
        except (ValueError, RecursionError) as error:
            raise PolicyError(name, str(error)) from error
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{name}, line {mark.line + 1}, column {mark.column + 1}" if mark else name
        raise PolicyError(place, error.problem or "not YAML") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise PolicyError(name, str(error)) from error


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {twice} occurs twice")
    return dict(pairs)
