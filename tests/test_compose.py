"""Errors of a composition name the key that the user can set."""

from __future__ import annotations

import sys

import pytest
from hydra.errors import HydraException

from sparse_xp.config import check_promise
from sparse_xp.error_report import describe_error, is_users_error
from sparse_xp.errors import UserError
from sparse_xp.places import CONF
from tests.runs import configure

SPARSITIES = sorted(path.stem for path in (CONF / "sparsity").glob("*.yaml"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recipe=gradual80", "train.learning_rate=-1"], "train.learning_rate=-1.0: expected a rate in [0, 1]."),
        (["recipe=obert80", "train.learning_rate=7"], "train.learning_rate=7.0: expected a rate in [0, 1]."),
        (
            ["recipe=gradual80", "train.warmup=1000"],
            "train.warmup=1000: the run has 8 epochs. Write a part of the run, such as train.warmup=5%, or steps: "
            "train.warmup='1000 steps'.",
        ),
        (
            ["recipe=gradual80", "train.steps=5", "train.warmup=9 steps"],
            "train.warmup=9 steps: the run has 5 steps. Write a part of the run, such as train.warmup=5%.",
        ),
        (["recipe=pruned80", "model=tiny", "recipe.sparsity=2"], "recipe.sparsity=2.0: expected a fraction in [0, 1)"),
        (
            ["sparsity=gradual", "recipe.sparsity=0.5", "sparsity.init_sparsity=0.9"],
            "sparsity.init_sparsity=0.9: expected a fraction from 0 to final_sparsity=0.5",
        ),
        (
            ["recipe=pruned80_quant", "recipe.quantization_start=50"],
            "quantization: Quantization: start=50 is not before end=100% in a run of 13 epochs. (start is "
            "recipe.quantization_start=)",
        ),
        (
            ["recipe=gradual80", "sparsity.end=40"],
            "sparsity: MagnitudePruning: end=40 is after the end of the run (8 epochs). Train for 40 epochs",
        ),
        (["model=tiny", "model.hidden=63"], "model.hidden=63 is not a multiple of model.heads=4."),
    ],
)
def test_a_refused_value_is_named_by_the_key_that_sets_it(words, message):
    with pytest.raises(UserError) as caught:
        configure("task=squad", *words)
    assert message in str(caught.value)


def refusal(words: list[str]) -> str | None:
    """The message for a run that cannot be, None if it can."""
    try:
        check_promise(configure(*words), words)
    except UserError as error:
        return str(error)
    except Exception as error:
        if not is_users_error(error):
            raise
        return describe_error(error)
    return None


@pytest.mark.parametrize("recipe", ["obert80_pairs", "speedup4", "gradual80"])
@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_a_recipe_and_a_way_of_pruning_go_together_or_both_are_named(recipe, sparsity, monkeypatch):
    words = ["task=sst2", f"recipe={recipe}", f"sparsity={sparsity}"]
    monkeypatch.setattr(sys, "argv", ["sparse_xp", *words])
    if message := refusal(words):
        assert f"recipe={recipe}" in message or "recipe.sparsity" in message, message
        assert f"sparsity={sparsity}" in message or "recipe.sparsity" in message, message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recipe=dense", "sparsity=n_m"], "recipe=dense and sparsity=n_m do not go together: recipe.sparsity=0.0"),
        (["recipe=gradual80", "sparsity=n_m"], "recipe=gradual80 and sparsity=n_m do not go together: "),
        (["recipe=gradual80", "sparsity=n_m"], "Write recipe.sparsity=0.75 (1:4)."),
        (
            ["recipe=dense", "sparsity=n_m", "recipe.sparsity=0.8"],
            "sparsity=n_m recipe.sparsity=0.8: mask_type=N:4 keeps a whole number of every 4 inputs",
        ),
    ],
)
def test_two_words_are_named_where_nobody_typed_the_number(words, message):
    with pytest.raises(UserError) as caught:
        configure("task=sst2", *words)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "model.checkpoint=outputs/a,seed=42,x",
            "model.checkpoint=outputs/a,seed=42,x: there is no such file or directory",
        ),
        ("model.checkpoint='/a/b", "there is no such file or directory, and as a text it cannot be read. Put quotes"),
        ("task.text=a b=c", "task.text=a b=c: it cannot be read (mismatched input '=' expecting <EOF>)"),
        ("+seed=42", "seed exists already. Write it without the +: seed=VALUE."),
    ],
)
def test_what_hydra_cannot_read_is_named(word, message):
    with pytest.raises(HydraException) as caught:
        configure("task=sst2", word)
    assert message in describe_error(caught.value)


def test_a_key_that_somebody_typed_is_unknown_by_its_name(monkeypatch):
    words = ["task=sst2", "recipe=obert80", "sparsity=gradual", "sparsity.num_grads=3"]
    monkeypatch.setattr(sys, "argv", ["sparse_xp", *words])
    with pytest.raises(Exception, match="num_grads") as caught:
        configure(*words)
    assert "Unknown key 'sparsity.num_grads'" in describe_error(caught.value)


def test_a_model_that_is_given_by_its_checkpoint_alone_is_called_after_it():
    words = ["task=sst2", "profile=embedded", "model.checkpoint=/models/all-MiniLM-L6-v2"]
    assert configure(*words).model.name == "all-MiniLM-L6-v2"
    assert configure(*words, "model=bert_base").model.name == "bert_base"
