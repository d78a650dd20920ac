"""Traces of SparseML's own manager, replayed in a plain loop: what it did in every step is what ``Sparsifier`` does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch.nn.functional import cross_entropy

from sparse_xp.sparsifier.sparsifier import Sparsifier
from tests.recipe.old_engine import RECIPES, SPARSE, STEPS_PER_EPOCH, batch_of, make_model, make_optimizer, observed

TRACES: dict[str, Any] = json.loads((Path(__file__).parent / "data/sparseml_traces.json").read_text())

#: Masks that are dropped: SparseML drops them in the step of the last update, we after it (the model is evaluated with
#: them once). A dense phase of AC/DC: whether a weight of zero has a gradient in a step depends on the other weights.
ZEROS_DIFFER = {"linear, dropped at the end": range(9, 16), "ac/dc": range(8, 12)}
#: where the weights themselves decide how many zeros a single matrix has, or how many ties there are
ONLY_THE_SUM = {"global": 2}


def replayed(name: str) -> list[dict[str, Any]]:
    """What a loop of ours observes after each step."""
    model = make_model(SPARSE.get(name, 0.0))
    optimizer = make_optimizer(model)
    sparsifier = Sparsifier(RECIPES[name], model, optimizer, steps_per_epoch=STEPS_PER_EPOCH)
    steps = []
    for epoch in range(sparsifier.epochs):
        for number in range(STEPS_PER_EPOCH):
            tokens, labels = batch_of(epoch * STEPS_PER_EPOCH + number)
            outputs = model(tokens)
            sparsifier.loss(cross_entropy(outputs, labels), outputs, (tokens, labels)).backward()
            frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
            sparsifier.step()
            steps.append(observed(model, optimizer) | {"frozen": frozen})  # the flags are set for the step alone
    sparsifier.finalize()
    return steps


def test_every_recipe_has_a_trace():
    assert TRACES.keys() == RECIPES.keys()
    assert all(len(trace["steps"]) == trace["epochs"] * STEPS_PER_EPOCH == 16 for trace in TRACES.values())


@pytest.mark.parametrize("name", RECIPES)
def test_every_step_is_that_of_the_old_engine(name):
    trace, found = TRACES[name]["steps"], replayed(name)
    for key in ("weight_decay", "frozen"):
        assert [step[key] for step in found] == [step[key] for step in trace]
    assert [step["lr"] for step in found] == [pytest.approx(step["lr"], abs=1e-12) for step in trace]
    for number, (ours, theirs) in enumerate(zip(found, trace, strict=True)):
        if number in ZEROS_DIFFER.get(name, ()):
            continue
        assert ours["all_zeros"] == theirs["all_zeros"]
        assert ours["zeros"] == pytest.approx(theirs["zeros"], abs=ONLY_THE_SUM.get(name, 0))
