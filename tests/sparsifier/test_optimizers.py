"""Optimizers of all kinds keep pruned weights at zero; schedulers of the loop and rates of the recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from sparse_xp.errors import UserError
from sparse_xp.modifiers import (
    ACDCPruning,
    LearningRate,
    MagnitudePruning,
    MovementPruning,
    SetLearningRate,
    WeightDecay,
)
from tests.sparsifier.loops import (
    STEPS,
    assert_same,
    forward,
    make_batches,
    make_model,
    sparsify,
    train,
    weights_of,
)

ALL = ["__ALL_PRUNABLE__"]
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda weights: torch.optim.SGD(weights, 0.1),
    "momentum": lambda weights: torch.optim.SGD(weights, 0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam with l2": lambda weights: torch.optim.Adam(weights, 0.01, weight_decay=0.1, amsgrad=True),
    "adamw, one by one": lambda weights: torch.optim.AdamW(weights, 0.01, foreach=False),
    "adamw, all at once": lambda weights: torch.optim.AdamW(weights, 0.01, foreach=True),
    "adamw, fused": lambda weights: torch.optim.AdamW(weights, 0.01, fused=True),
    "adagrad": lambda weights: torch.optim.Adagrad(weights, 0.1, initial_accumulator_value=0.1),
    "rmsprop": lambda weights: torch.optim.RMSprop(weights, 0.01, momentum=0.9, centered=True),
    "nadam": lambda weights: torch.optim.NAdam(weights, 0.01),
    "adafactor": lambda weights: torch.optim.Adafactor(weights, 0.01),
    "rprop": lambda weights: torch.optim.Rprop(weights, 0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_masks_hold_after_every_step(name: str, kind: str) -> None:
    model, batches = make_model(kind), make_batches(kind)
    recipe = [MagnitudePruning(final_sparsity=0.75, params=ALL, end="50%", update_frequency="2 steps")]
    sparsifier = sparsify(model, recipe, OPTIMIZERS[name](model.parameters()))
    modifier: Any = sparsifier.modifiers["MagnitudePruning"]
    for step in range(STEPS):
        before = {name: weight.detach().clone() for name, weight in modifier.targets.items()}
        train(sparsifier, model, batches[step % 4 :], range(1))
        for key, mask in modifier.masks.items():
            weight = model.get_parameter(key)
            assert not weight[~mask].any()
            # The masks are those of the smallest weights before the step, as many as the schedule says.
            kept = int(mask.sum())
            smallest_kept = before[key].abs()[mask].min()
            assert kept == mask.numel() or before[key].abs()[~mask].max() <= smallest_kept
    sparsifier.finalize()
    for key in modifier.targets:
        weight = model.get_parameter(key)
        assert int((weight == 0).sum()) == round(0.75 * weight.numel())


def test_an_optimizer_that_needs_a_closure_is_refused() -> None:
    model = make_model("mlp")
    with pytest.raises(UserError, match="LBFGS computes the loss several times in a step"):
        sparsify(model, [MagnitudePruning(final_sparsity=0.5)], torch.optim.LBFGS(model.parameters()))


def test_an_optimizer_without_weight_decay_is_not_given_one() -> None:
    model, batches = make_model("mlp"), make_batches("mlp")
    sparsifier = sparsify(model, [WeightDecay(weight_decay=0.1)], torch.optim.Rprop(model.parameters()))
    with pytest.raises(UserError, match="Rprop has no weight decay"):
        train(sparsifier, model, batches)


def test_stale_momentum_is_dropped_in_a_dense_phase() -> None:
    model, batches = make_model("mlp"), make_batches("mlp")
    recipe = [ACDCPruning(compression_sparsity=0.5, params=ALL, update_frequency="3 steps")]
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    sparsifier = sparsify(model, recipe, optimizer)
    train(sparsifier, model, batches, range(7))  # dense, sparse, and the first step of the next dense phase
    assert not optimizer.state[model[0].weight]["momentum_buffer"].any()


def test_the_optimizer_of_accelerate_steps_in_the_last_micro_batch() -> None:
    plain, wrapped, batches = make_model("mlp"), make_model("mlp"), make_batches("mlp")
    recipe = [
        MovementPruning(final_sparsity=0.5, params=ALL, start="2 steps", end="50%"),
        SetLearningRate(learning_rate=0.1),
    ]
    sparsifier = sparsify(plain, recipe, torch.optim.SGD(plain.parameters(), 0.5))
    plain.train()
    for step in range(STEPS):
        for batch in (batches[step % 4], batches[(step + 1) % 4]):
            loss, outputs = forward(plain, batch)
            (sparsifier.loss(loss, outputs, batch) / 2).backward()
        sparsifier.step()

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model, optimizer = accelerator.prepare(wrapped, torch.optim.SGD(wrapped.parameters(), 0.5))
    accelerated = sparsify(model, recipe, optimizer)
    model.train()
    for step in range(STEPS):
        for batch in (batches[step % 4], batches[(step + 1) % 4]):
            with accelerator.accumulate(model):
                loss, outputs = forward(model, batch)
                accelerator.backward(accelerated.loss(loss, outputs, batch))
                accelerated.step()
    assert accelerated.steps == STEPS
    assert_same(weights_of(plain), weights_of(accelerator.unwrap_model(model)))


def rates(recipe: list[Any], scheduled: bool) -> list[float]:
    """Return the rate of each step. The scheduler of the loop halves it."""
    model, batches = make_model("mlp"), make_batches("mlp")
    optimizer = torch.optim.SGD(model.parameters(), 0.8)
    scheduler = LambdaLR(optimizer, lambda step: 0.5**step) if scheduled else None
    sparsifier, seen = sparsify(model, recipe, optimizer), []
    optimizer.register_step_pre_hook(lambda used, *_: seen.append(used.param_groups[0]["lr"]))
    for step in range(STEPS):
        train(sparsifier, model, batches[step % 4 :], range(1))
        if scheduler:
            scheduler.step()
    return seen


def test_the_scheduler_of_the_loop_rules_where_the_recipe_has_no_rate() -> None:
    assert rates([MagnitudePruning(final_sparsity=0.5)], scheduled=True) == [0.8 * 0.5**step for step in range(STEPS)]


def test_the_rates_of_the_recipe_hold_against_a_scheduler() -> None:
    segment = [LearningRate(init_lr=0.1, final_lr=0.0, end="50%")]
    assert rates(segment, scheduled=True) == rates(segment, scheduled=False)
    later = [SetLearningRate(learning_rate=0.1, start="3 steps")]
    assert rates(later, scheduled=True) == [0.8, 0.4, 0.2] + [0.1] * (STEPS - 3)


def test_a_scheduler_that_moves_the_momentum_too() -> None:
    model, batches = make_model("mlp"), make_batches("mlp")
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    scheduler = OneCycleLR(optimizer, 0.2, total_steps=STEPS)
    sparsifier = sparsify(model, [MagnitudePruning(final_sparsity=0.5, params=ALL, end="50%")], optimizer)
    for step in range(STEPS):
        train(sparsifier, model, batches[step % 4 :], range(1))
        if step < STEPS - 1:
            scheduler.step()
    sparsifier.finalize()
