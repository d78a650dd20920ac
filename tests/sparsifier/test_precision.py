"""Loops in mixed precision: autocast, a gradient scaler, steps that it skips."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from sparse_xp.errors import UserError
from sparse_xp.functional.quant_modules import QuantLinear
from sparse_xp.modifiers import (
    Distillation,
    MagnitudePruning,
    Modifier,
    MovementPruning,
    OBSPruning,
    Quantization,
    SoftMovementPruning,
    StructuredPruning,
)
from sparse_xp.sparsifier.sparsifier import Sparsifier
from tests.sparsifier.loops import STEPS, assert_same, forward, make_batches, make_model, sparsify, train, weights_of

ALL = ["__ALL_PRUNABLE__"]


@contextmanager
def half() -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield


def train_in_half(sparsifier: Sparsifier, model: nn.Module, batches: list[Any]) -> None:
    model.train()
    for step in range(STEPS):
        batch = batches[step % len(batches)]
        with half():
            loss, outputs = forward(model, batch)
            total = sparsifier.loss(loss, outputs, batch)
        total.backward()
        sparsifier.step()


@pytest.mark.parametrize("kind", ["mlp", "torch encoder", "llama", "gpt2", "bert"])
def test_autocast_prunes_distils_and_quantizes(kind: str) -> None:
    model, batches = make_model(kind), make_batches(kind)
    recipe = [MagnitudePruning(final_sparsity=0.5, params=ALL, end="50%"), Distillation(), Quantization(start="50%")]
    sparsifier = sparsify(model, recipe, teacher=make_model(kind, seed=5))
    train_in_half(sparsifier, model, batches)
    sparsifier.finalize()
    module = next(each for each in model.modules() if isinstance(each, QuantLinear))
    inputs = torch.randn(4, module.in_features)
    with half():
        in_half = module(inputs)
    assert torch.equal(in_half, module(inputs))


def test_quantized_products_of_attention_compute_in_float32_under_autocast() -> None:
    model, batches = make_model("bert"), make_batches("bert")
    sparsifier = sparsify(model, [Quantization(attention_products=True)])
    train(sparsifier, model, batches)
    sparsifier.finalize()
    attention = model.bert.encoder.layer[0].attention.self
    hidden = torch.randn(2, 6, 8)
    with torch.no_grad(), half():
        in_half = attention(hidden)[0]
    with torch.no_grad():
        assert torch.equal(in_half, attention(hidden)[0])


def test_second_order_pruning_estimates_in_float32_whatever_the_forward_pass_is_in() -> None:
    results = []
    for begins_outside in (True, False):
        model, batches = make_model("mlp"), make_batches("mlp")
        recipe = [OBSPruning(final_sparsity=0.5, params=ALL, end="50%", num_grads=8, damp=1e-3, fisher_block_size=8)]
        sparsifier = sparsify(model, recipe, batches=batches)
        model.train()
        for step in range(STEPS):
            if begins_outside:
                sparsifier.begin_step()
            with half():
                loss, _ = forward(model, batches[step % len(batches)])
            loss.backward()
            sparsifier.step()
        results.append(weights_of(model))
    assert_same(*results)


RECIPES: dict[str, tuple[str, Modifier]] = {
    "magnitude": ("mlp", MagnitudePruning(final_sparsity=0.5, params=ALL, end="50%")),
    "movement": ("mlp", MovementPruning(final_sparsity=0.5, params=ALL, start="2 steps", end="50%")),
    "soft": ("mlp", SoftMovementPruning(
        params=ALL, end="75%", final_threshold=0.45, final_lambda=1.0, score_learning_rate=0.05
    )),
    "structured": ("modernbert", StructuredPruning(final_sparsity=0.3, start="2 steps", end="50%", multiple=4)),
}  # fmt: skip


def scaled_loop(kind: str, recipe: Modifier, scaler: GradScaler | None, norm: float | None, bad: int = -1) -> Any:
    """Train with a scaler. In step ``bad`` a gradient is infinite."""
    model, batches = make_model(kind), make_batches(kind)
    sparsifier = sparsify(model, [recipe], scaler=scaler, max_grad_norm=norm)
    model.train()
    states = []
    for step in range(STEPS):
        loss, outputs = forward(model, batches[step % len(batches)])
        total = sparsifier.loss(loss, outputs, batches[step % len(batches)])
        (scaler.scale(total) if scaler else total).backward()
        if step == bad:
            next(model.parameters()).grad.flatten()[0] = torch.inf  # type: ignore[union-attr]
        sparsifier.step()
        states.append(weights_of(model))
    return model, sparsifier, states


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("norm", [None, 0.5])
def test_a_gradient_scaler_changes_nothing(name: str, norm: float | None) -> None:
    kind, recipe = RECIPES[name]
    plain, _, _ = scaled_loop(kind, recipe, None, norm)
    scaled, _, _ = scaled_loop(kind, recipe, GradScaler("cpu", init_scale=1024.0), norm)  # a power of two is exact
    assert_same(weights_of(plain), weights_of(scaled))


@pytest.mark.parametrize("norm", [None, 0.5])
def test_a_scaler_that_is_disabled_changes_nothing(norm: float | None) -> None:
    kind, recipe = RECIPES["movement"]
    plain, _, _ = scaled_loop(kind, recipe, None, norm)
    scaled, _, _ = scaled_loop(kind, recipe, GradScaler("cpu", enabled=False), norm)
    assert_same(weights_of(plain), weights_of(scaled))


@pytest.mark.parametrize("name", RECIPES)
def test_a_skipped_step_leaves_masks_and_scores_right(name: str) -> None:
    kind, recipe = RECIPES[name]
    model, sparsifier, states = scaled_loop(kind, recipe, GradScaler("cpu", init_scale=1024.0), None, bad=10)
    sparsifier.finalize()  # checks the zeros
    assert sparsifier.steps == STEPS
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())
    zeros = [{key for key in state if bool((state[key] == 0).any())} for state in states]
    assert zeros[10] == zeros[9]
    for key in zeros[9]:
        assert torch.equal(states[9][key], states[10][key])


def test_a_step_with_infinite_gradients_adds_nothing_to_scores() -> None:
    recipe = MovementPruning(final_sparsity=0.5, params=ALL, start="10 steps")
    model, batches = make_model("mlp"), make_batches("mlp")
    scaler = GradScaler("cpu", init_scale=1024.0)
    sparsifier = sparsify(model, [recipe], scaler=scaler)
    modifier: Any = sparsifier.modifiers["MovementPruning"]
    model.train()
    for bad in (False, True):
        scaler.scale(forward(model, batches[0])[0]).backward()
        if bad:
            model[0].weight.grad[0, 0] = torch.inf
        before = {name: moved.clone() for name, moved in modifier.moved.items()}
        sparsifier.step()
        assert all(torch.equal(before[name], moved) for name, moved in modifier.moved.items()) == bad


def test_gradients_that_the_loop_has_unscaled_are_refused() -> None:
    model, batches = make_model("mlp"), make_batches("mlp")
    scaler, optimizer = GradScaler("cpu"), torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = sparsify(model, [MovementPruning(final_sparsity=0.5, params=ALL)], optimizer, scaler=scaler)
    model.train()
    scaler.scale(forward(model, batches[0])[0]).backward()
    scaler.unscale_(optimizer)
    with pytest.raises(UserError, match=r"scaler.unscale_\(\) before step\(\)"):
        sparsifier.step()


@pytest.mark.parametrize("divided", [True, False])
def test_accumulated_gradients_equal_those_of_a_large_batch(divided: bool) -> None:
    """The loop divides what ``loss`` returns, or tells it the share of the micro-batch."""
    results = []
    for parts in (1, 4):
        model, batches = make_model("mlp"), make_batches("mlp")
        recipe = [
            Distillation(hardness=0.7),
            MovementPruning(final_sparsity=0.5, params=ALL, start="2 steps", end="50%"),
        ]
        sparsifier = sparsify(
            model, recipe, torch.optim.SGD(model.parameters(), 0.1), teacher=make_model("mlp", seed=5)
        )
        model.train()
        for step in range(STEPS):
            inputs, labels = batches[step % len(batches)]
            for part in zip(inputs.chunk(parts), labels.chunk(parts), strict=True):
                loss, outputs = forward(model, part)
                if divided:
                    (sparsifier.loss(loss, outputs, part) / parts).backward()
                else:
                    sparsifier.loss(loss / parts, outputs, part, share=1 / parts).backward()
            sparsifier.step()
        results.append(weights_of(model))
    for name, value in results[0].items():
        assert torch.equal(value == 0, results[1][name] == 0)
        assert torch.allclose(value, results[1][name], atol=1e-6)
