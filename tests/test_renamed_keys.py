"""An old key is answered with the new one, and files of earlier versions are still read."""

from __future__ import annotations

import dataclasses

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationKeyError

from sparse_xp.error_report import describe_error, unknown_key_message
from sparse_xp.modifiers import MODIFIERS
from sparse_xp.renamed_keys import NEW_NAMES, RENAMED, current_task_fields, new_name
from sparse_xp.settings import Model
from sparse_xp.tasks import TASKS
from tests.runs import configure

CLASSES = {**TASKS, **MODIFIERS, "Model": Model}


def fields_of(name):
    return {field.name for field in dataclasses.fields(CLASSES[name])}


@pytest.mark.parametrize("name", [name for name in RENAMED if name != "Pruning"])
def test_the_new_names_are_there_and_the_old_ones_are_not(name):
    assert set(RENAMED[name].values()) <= fields_of(name)
    assert not set(RENAMED[name]) & fields_of(name)


def test_pruning_has_the_new_names_too():
    every = fields_of("ConstantPruning") | fields_of("MagnitudePruning")
    assert set(RENAMED["Pruning"].values()) <= every
    assert not set(RENAMED["Pruning"]) & every


def test_no_old_name_has_two_new_ones():
    assert len(NEW_NAMES) == sum(map(len, RENAMED.values()))


def test_a_name_is_new_only_where_that_key_is():
    assert new_name("attention", ["attn_implementation", "dropout"]) == "attn_implementation"
    assert new_name("attention", ["dropout"]) is None
    assert new_name("dropout", ["dropout"]) is None


@pytest.mark.parametrize(
    ("where", "known", "expected"),
    [
        ("task.n_best", ["n_best_size"], "Unknown key 'task.n_best': it is called 'task.n_best_size' now."),
        ("recipe.modifiers.x.but", ["exclude"], "it is called 'recipe.modifiers.x.exclude' now."),
        ("task.transfer", ["name"], "the numbers of recipes are in conf/hyperparameters.yaml now."),
        ("task.nmae", ["name"], "Unknown key 'task.nmae'. Did you mean 'name'?"),
    ],
)
def test_messages_for_unknown_keys(where, known, expected):
    assert expected in unknown_key_message(where, where.rpartition(".")[2], known)


def test_a_command_with_an_old_key_is_refused():
    with pytest.raises(HydraException) as caught:
        configure("profile=embedded", "model.attention=eager")
    assert "it is called 'model.attn_implementation' now" in describe_error(caught.value)


@pytest.mark.parametrize(
    ("old", "expected"),
    [
        ("task.transfer.batch_size", "Write ${hyperparameters:transfer,batch_size} (conf/hyperparameters.yaml)."),
        ("task.n_best", "It is called n_best_size now."),
    ],
)
def test_an_interpolation_of_an_old_key(old, expected):
    cfg = OmegaConf.create({"task": {"name": "x"}, "train": {"batch_size": f"${{{old}}}"}})
    with pytest.raises(InterpolationKeyError) as caught:
        OmegaConf.to_container(cfg, resolve=True)
    assert expected in describe_error(caught.value)


def test_task_fields_of_earlier_versions():
    stored = {"name": "squad_v2", "no_answer": True, "n_best": 5, "transfer": {"epochs": 5.0}, "quant": {}}
    assert current_task_fields(stored, fields_of("QuestionAnswering")) == {
        "name": "squad_v2",
        "version_2_with_negative": True,
        "n_best_size": 5,
    }
