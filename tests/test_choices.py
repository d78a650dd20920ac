"""A group needs an option: nothing empty, no number, no list comes through, wherever it is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from sparse_xp.choices import KEYS, check_overrides, config_directories, options, overrides_in
from sparse_xp.errors import UserError
from sparse_xp.places import CONF, GROUPS
from sparse_xp.sweep.grid import expand_grid
from sparse_xp.sweep.search import parse_space

PARTS = ("data", "export", "hydra")
EMPTY = ["", "null", "[]", "{}", "''", "5", "0", "true", "[1]", "[none]", "NULL"]


def refused(word: str, folders=()) -> str:
    with pytest.raises(UserError) as caught:
        check_overrides([word], folders)
    return str(caught.value)


@pytest.mark.parametrize("group", [*GROUPS, *PARTS])
def test_no_group_can_be_empty(group):
    for word in (*(f"{sign}{group}={value}" for sign in ("", "+", "++") for value in EMPTY), f"~{group}"):
        message = refused(word)
        assert message.startswith(f"{word}: {group} cannot be "), word
        assert len(message) < 2000
        if group in GROUPS:
            known = options(group)
            assert f"There are: {', '.join(known)}." in message
            assert f"Did you mean {group}=" in message
            assert message.split("?")[0].rpartition("=")[2] in known
    assert refused(f"{group}=null").startswith(f"{group}=null: {group} cannot be empty.")


def test_none_is_what_empty_most_likely_means():
    for group in ("teacher", "sparsity", "quantization", "log"):
        assert f"Did you mean {group}=none?" in refused(f"{group}=null")
    assert "Did you mean task=squad?" in refused("task=null")  # what a command has that says nothing of it
    assert "Did you mean recipe=pruned80?" in refused("recipe=[prunned80]")


def test_every_default_of_the_command_is_a_group():
    told = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    groups = {
        key for each in told if isinstance(each, dict) for key in each if not key.startswith(("override ", "optional "))
    }
    assert groups == set(GROUPS)
    assert {path.name for path in CONF.iterdir() if path.is_dir()} - {"local"} == set(GROUPS)
    # these fill in keys of others
    assert set(GROUPS) - {"schedule", "experiment", "debug"} < set(KEYS)


@pytest.mark.parametrize(
    "word",
    [
        *("task=squad", "task='squad'", "task=squad,sst2", "+modifier@recipe.modifiers.x=MagnitudePruning", "seed=5"),
        *(
            "train.epochs=null",
            "data.root=null",
            "data={root: x}",
            "~recipe.learning_rate.decay",
            "hydra/sweeper=search",
        ),
        *("hydra.run.dir=5", "train.epochs=choice(1,2)", "zoo=null", "nothing", "[", "=", "x=" + "[" * 200),
    ],
)
def test_everything_else_is_left_to_hydra(word):
    if word == "hydra.run.dir=5":
        assert "hydra.run.dir cannot be empty" in refused("hydra.run.dir=null")
    else:
        check_overrides([word])


@pytest.mark.parametrize("word", ["task=sst2,null", "hydra/launcher=null", "task/kind@task=[]", "+modifier@x=null"])
def test_other_ways_to_say_a_group(word):
    assert "cannot be empty" in refused(word)


def test_places_are_not_empty():
    for key in ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "data.cache"):
        for value in ("", "null", "''", "[]", "' '"):
            assert f"{key} cannot be empty" in refused(f"{key}={value}")


def test_in_a_sweep_and_in_a_search():
    with pytest.raises(UserError, match="teacher=null: teacher cannot be empty"):
        expand_grid({"teacher": None, "seed": [1, 2]}, {}, [])
    with pytest.raises(UserError, match="train cannot be empty"):
        expand_grid({}, {"a": {"train": ""}}, [])
    with pytest.raises(UserError, match="sparsity cannot be 5"):
        parse_space(["sparsity=5", "train.epochs=choice(1,2)"])


@pytest.mark.parametrize("words", [["task=sst2", "task=qqp"], ["recipe=dense", "train.epochs=3", "recipe=pruned80"]])
def test_a_group_is_chosen_once(words):
    with pytest.raises(UserError, match=f"{words[0]} and {words[-1]}: .* is chosen twice. Leave one of them out"):
        check_overrides(words)
    check_overrides([words[0], words[0]])  # the same option is one choice


def test_the_options_of_ones_own_are_listed(tmp_path):
    (tmp_path / "own/task").mkdir(parents=True)
    (tmp_path / "own/task/mine.yaml").touch()
    (tmp_path / "own/data").mkdir()
    (tmp_path / "own/data/books.yaml").touch()
    words = ["--config-dir", "own", "task=null"]
    assert config_directories(words) == config_directories(["--config-dir=own"]) == [Path("own")]
    assert overrides_in([*words, "-m", "--config-name", "x", "seed=1"]) == ["task=null", "seed=1"]
    assert ", mine, " in refused("task=null", [Path("own")])
    assert "Did you mean data=books? There are: books." in refused("data=null", [Path("own")])


def test_a_word_is_parsed_as_hydra_does():
    assert OverridesParser.create().parse_override("task=null").value() is None
