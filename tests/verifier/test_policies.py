from pathlib import Path

import pytest

from app.appraisal.policy import default_policy
from app.appraisal.policy_document import policy_from
from app.errors import ConfigError, PolicyError
from app.verifier import policies
from app.verifier.policies import PolicySet, read_policies, read_policy

GOOD = "version: 1\nid: {}\n"


def test_the_built_in_policy_is_chosen_where_nothing_else_is() -> None:
    assert PolicySet().get() == default_policy()
    assert PolicySet().names == ("default",)


def test_policies_are_found_by_name_and_one_is_chosen() -> None:
    mine = policy_from({"version": 1, "id": "mine"})
    known = PolicySet([mine], "mine")
    assert known.get() is mine
    assert known.get("mine") is mine
    assert known.get("default") == default_policy()
    with pytest.raises(PolicyError, match="no policy is called 'other'"):
        known.get("other")
    for no_name in ("", "other\n", "a" * 65, "<b>"):
        with pytest.raises(PolicyError, match="no policy has this name"):
            known.get(no_name)


def test_a_document_may_replace_the_built_in_policy_but_not_another() -> None:
    mine = policy_from({"version": 1, "id": "default", "policy": {"vmpl": 0}})
    assert PolicySet([mine]).get() is mine
    twice = policy_from({"version": 1, "id": "x"})
    with pytest.raises(ConfigError, match="x occurs twice"):
        PolicySet([twice, twice])


def test_an_unknown_choice_names_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"policy x is not known \(known: default\)"):
        PolicySet(chosen="x")


def test_files_and_folders_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD.format("a"))
    (tmp_path / "b.json").write_text('{"version": 1, "id": "b"}')
    (tmp_path / "notes.txt").write_text("not a policy")
    assert [policy.id for policy in read_policies(tmp_path)] == ["a", "b"]
    assert read_policy(tmp_path / "a.yaml").id == "a"


def test_a_fault_names_file_and_place(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("version: 1\nid: a\nfoo: 1\n")
    with pytest.raises(PolicyError, match=r"policy at bad\.yaml: foo: unknown key"):
        read_policy(path)
    path.write_text("a: [")
    with pytest.raises(PolicyError, match=r"policy at bad\.yaml, line 1"):
        read_policy(path)


def test_what_cannot_be_read_is_a_setting_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_policy(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_policies(tmp_path / "absent")
    monkeypatch.setattr(policies, "_MAX_FILES", 1)
    (tmp_path / "a.yml").write_text(GOOD.format("a"))
    (tmp_path / "b.yml").write_text(GOOD.format("b"))
    with pytest.raises(ConfigError, match="more than 1 files"):
        read_policies(tmp_path)
