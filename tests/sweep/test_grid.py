"""The grid: what it stands for, and what the command line changes."""

from __future__ import annotations

import pytest

from sparse_xp.errors import UserError
from sparse_xp.sweep.grid import changing_overrides, expand_grid, to_override


def test_params_are_combined_and_a_cell_changes_them():
    found = expand_grid({"task": ["a", "b"], "seed": 1}, {"x": {"recipe": "r"}, "y": {"task": "c", "seed": [2, 3]}}, [])
    assert found == [
        ("x", ["task=a", "seed=1", "recipe=r"]),
        ("x", ["task=b", "seed=1", "recipe=r"]),
        ("y", ["task=c", "seed=2"]),
        ("y", ["task=c", "seed=3"]),
    ]


def test_the_command_line_has_the_last_word():
    cells = {"x": {"recipe": "r", "seed": 9}}
    assert expand_grid({"seed": [1, 2]}, cells, ["seed=5,6", "train.epochs=3"]) == [
        ("x", ["seed=5", "recipe=r", "train.epochs=3"]),
        ("x", ["seed=6", "recipe=r", "train.epochs=3"]),
    ]


def test_without_names_it_is_hydras_own_grid():
    assert expand_grid({}, {}, ["a=1,2", "b=3"]) == [("", ["a=1", "b=3"]), ("", ["a=2", "b=3"])]


@pytest.mark.parametrize(
    ("value", "text"),
    [("x", "k=x"), (0.9, "k=0.9"), (True, "k=true"), (None, "k=null"), ([1, 2], "k=1,2"), ("['a=1']", "k=['a=1']")],
)
def test_a_yaml_value_as_a_word(value, text):
    assert to_override("k", value) == text


def test_a_mapping_is_no_value():
    with pytest.raises(UserError, match=r"train is a mapping\. Write its keys with dots: train\.epochs\."):
        to_override("train", {"epochs": 3})


def test_an_interval_is_for_a_search():
    with pytest.raises(UserError, match="hydra/sweeper=search"):
        expand_grid({"train.learning_rate": "interval(0,1)"}, {}, [])


def test_what_changes_a_cell():
    arguments = ["seed=3", "task=squad", "recipe=dense", "model=minilm", "data.root=x", "log=none", "train.epochs=1"]
    assert changing_overrides(arguments, named=True) == ["recipe=dense", "model=minilm", "train.epochs=1"]
    assert changing_overrides(arguments, named=False) == ["model=minilm", "train.epochs=1"]
