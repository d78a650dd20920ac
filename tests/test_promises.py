"""What the name of a recipe promises, before a run and after it."""

from __future__ import annotations

import pytest

from sparse_xp.config import check_promise, composed
from sparse_xp.errors import UserError
from sparse_xp.places import CONF
from sparse_xp.promises import Composed, Promise, covers_too_little, result_name, shortfall
from tests.runs import configure

RECIPES = sorted(path.stem for path in (CONF / "recipe").glob("*.yaml") if path.stem != "file")
SPARSEML = f"recipe.path={CONF.parent}/sparse_xp/recipe/files/obert_base_squad.yaml"
LAYERS = ["+modifier@recipe.modifiers.x=LayerPruning", "recipe.modifiers.x.layers=[bert.encoder.layer.1]"]
LATENCY = "sparsity.latency=onnxruntime:fp32:1x128"


def refuse(*words: str) -> str:
    with pytest.raises(UserError) as caught:
        check_promise(configure(*words), words)
    return str(caught.value)


def called(*words: str, zeros: float | None = None, removed: float = 0.0) -> str:
    config = configure(*words)
    check_promise(config, words)
    return result_name(config.recipe.promise, composed(config, words), zeros, removed)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_makes_a_promise_and_keeps_it(recipe):
    assert called("task=sst2", f"recipe={recipe}") == recipe
    config = configure("task=sst2", f"recipe={recipe}")
    promise = config.recipe.promise
    assert promise is not None
    assert promise.recipe == recipe
    number = "".join(char for char in recipe.removesuffix("_quant").removesuffix("_pairs") if char.isdigit())
    if number and promise.speedup is None and promise.sparsity is not None and len(number) == 2:
        assert promise.sparsity == int(number) / 100
    assert promise.quantized == (config.quantization is not None)
    assert promise.distills == config.teacher.given


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["recipe=pruned80", "sparsity=none"], ["recipe=pruned80 promises 80 % zeros", "sparsity=none makes none"]),
        (
            ["recipe=structured50", "sparsity=locked"],
            ["recipe=structured50 promises to remove 50 % of the encoder", "sparsity=locked removes nothing"],
        ),
        (
            ["recipe=gradual80", "sparsity=locked"],
            ["recipe=gradual80 promises 80 % zeros", "sparsity=locked makes none"],
        ),
        (
            ["recipe=gradual80", "sparsity=structured"],
            ["recipe=gradual80 promises 80 % zeros", "sparsity=structured removes heads and neurons instead"],
        ),
        (
            ["recipe=gradual80", "sparsity.final_sparsity=0.5"],
            ["recipe=gradual80 promises 80 % zeros", "sparsity.final_sparsity=0.5 asks for 50 %"],
        ),
        (["recipe=gradual80", "sparsity.final_sparsity=0.9"], ["sparsity.final_sparsity=0.9 makes 90 %"]),
        (["recipe=gradual80", "sparsity.leave_enabled=false"], ["sparsity.leave_enabled=false makes none"]),
        (["recipe=pruned80", "recipe.start_sparsity=0"], ["promises 80 % zeros", "recipe.start_sparsity=0 makes none"]),
        (
            ["recipe=structured50", "sparsity.target_speedup=4", LATENCY],
            ["promises to remove 50 % of the encoder", "removes what makes it 4 times as fast"],
        ),
        (["recipe=structured50", "sparsity.final_sparsity=0.3"], ["sparsity.final_sparsity=0.3 removes 30 %"]),
        (
            ["recipe=speedup4", "sparsity.target_speedup=null", "sparsity.latency=null", "sparsity.final_sparsity=0.5"],
            ["recipe=speedup4 promises a speed"],
        ),
        (
            ["recipe=pruned80_quant", "quantization=none"],
            ["recipe=pruned80_quant promises 8 bits", "quantization=none keeps floating point"],
        ),
        (
            ["recipe=dense", "sparsity=gradual", "recipe.sparsity=0.5"],
            ["recipe=dense prunes nothing", "sparsity=gradual"],
        ),
        (
            ["recipe=gradual80", "sparsity=soft_movement"],
            ["promises 80 % zeros", "sparsity=soft_movement makes as many"],
        ),
        (["recipe=soft_movement", "sparsity=none"], ["recipe=soft_movement learns how many zeros there are"]),
        (["recipe=soft_movement", "recipe.sparsity=0.8"], ["recipe.sparsity=0.8 has no effect"]),
        (["recipe=dense", "sparsity=soft_movement"], ["recipe=dense prunes nothing, and sparsity=soft_movement does"]),
        (["recipe=dense", *LAYERS], ["recipe=dense prunes nothing, and LayerPruning does"]),
        (["recipe=dense", "recipe.sparsity=0.8"], ["recipe.sparsity=0.8 asks for 80 %", "recipe=dense prunes nothing"]),
        (["recipe.sparsity=0.8"], ["recipe.sparsity=0.8 asks for 80 %", "recipe=dense prunes nothing"]),
        (["recipe=gradual80", SPARSEML], ["recipe=gradual80 and recipe.path=", "two recipes"]),
    ],
)
def test_a_run_that_contradicts_its_name_is_refused_with_both_words(words, parts):
    message = refuse("task=sst2", *words)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    "words",
    [
        ["recipe=pruned80", "sparsity=none"],
        ["recipe=structured50", "sparsity=locked"],
        ["recipe=dense", "sparsity=gradual", "recipe.sparsity=0.5"],
        ["recipe=pruned80_quant", "quantization=none"],
    ],
)
def test_a_name_of_its_own_says_that_it_is_meant(words):
    assert called("task=sst2", *words, "recipe.name=mine") == "mine"
    message = refuse("task=sst2", *words, "recipe.name=gradual80")
    assert message == "recipe.name=gradual80: gradual80 is the name of another recipe. Choose a name of your own."


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["recipe=gradual80"], "gradual80"),
        (["recipe=gradual80", "recipe.sparsity=0.9"], "gradual80 at 90 %"),
        (["recipe=gradual80", "recipe.sparsity=0.975"], "gradual80 at 97.5 %"),
        (["recipe=pruned80", "recipe.sparsity=0.9"], "pruned80 at 90 %"),
        (["recipe=gradual80", "teacher=none"], "gradual80 without teacher"),
        (["recipe=gradual80", "teacher.distillation.hardness=0"], "gradual80 without teacher"),
        (["recipe=gradual80", "sparsity=gradual_block4"], "gradual80"),
        (["recipe=gradual80", "quantization=int8"], "gradual80"),  # the table has a column for the bits
        (["recipe=structured50", "recipe.sparsity=0.25"], "structured50 at 25 %"),
        (["recipe=speedup4", "sparsity.target_speedup=3"], "speedup4 at 3 times"),
        (["recipe=pruneofa_transfer", "recipe.sparsity=0.85"], "pruneofa_transfer"),
        (LAYERS, "LayerPruning"),
        (["sparsity=gradual", "recipe.sparsity=0.5"], "MagnitudePruning at 50 %"),
        (["sparsity=structured", "recipe.sparsity=0.5"], "StructuredPruning"),
    ],
)
def test_a_result_is_called_after_what_it_is(words, name):
    assert called("task=sst2", *words) == name


@pytest.mark.parametrize(
    ("recipe", "zeros", "removed", "name"),
    [
        ("pruned80", 0.8, 0.0, "pruned80"),
        ("pruned80", 0.805, 0.0, "pruned80"),
        ("pruned80", 0.9, 0.0, "pruned80 at 90 %"),
        ("dense", 0.0, 0.0, "dense"),
        ("dense", 0.9, 0.0, "dense at 90 %"),
        ("dense", 0.0, 0.5, "dense with 50 % removed"),
        ("gradual80", 0.8, 0.5, "gradual80 with 50 % removed"),
        ("structured50", 0.0, 0.75, "structured50 at 75 %"),
        ("structured50", 0.0, 0.52, "structured50"),
    ],
)
def test_what_was_measured_has_the_last_word(recipe, zeros, removed, name):
    assert called("task=sst2", f"recipe={recipe}", zeros=zeros, removed=removed) == name


@pytest.mark.parametrize(
    ("recipe", "zeros", "removed", "told"),
    [
        ("gradual80", 0.8, 0.0, None),
        ("gradual80", 0.795, 0.0, None),
        ("gradual80", 0.78, 0.0, "recipe=gradual80 promises 80 % zeros in the encoder, and the trained model has 78 %"),
        ("structured50", 0.0, 0.47, None),
        ("structured50", 0.5, 0.0, "promises 50 % of the encoder's weights removed, and the trained model has 0 %"),
        ("speedup4", 0.0, 0.0, None),
        ("dense", 0.9, 0.0, None),
    ],
)
def test_a_result_that_falls_short_is_refused(recipe, zeros, removed, told):
    config = configure("task=sst2", f"recipe={recipe}")
    message = shortfall(config.recipe.promise, composed(config), zeros, removed)
    assert (message is None) == (told is None)
    assert told is None or told in str(message)


def test_modifiers_that_own_a_part_of_the_encoder_cannot_keep_the_promise():
    promise, run = Promise(recipe="a80", prunes="zeros", sparsity=0.8), Composed("a80", 0.8, ())
    assert covers_too_little(promise, run, 1.0) is None
    assert covers_too_little(promise, run, 0.99) is None
    assert "leave out 75 % of its weights" in str(covers_too_little(promise, run, 0.25))


def test_a_recipe_of_the_user_promises_nothing_until_it_says_so():
    words = ("task=sst2", "recipe=gradual80", "recipe.promise=null", "sparsity=none")
    assert called(*words, "recipe.name=mine") == "mine"
