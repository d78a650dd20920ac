"""Pruning by what training moves towards zero."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.amp.grad_scaler import GradScaler

from sparse_xp.modifiers import MovementPruning
from sparse_xp.modifiers.movement import movement_steps
from tests.simulation import bert_run, matrix_run, num_zeros, simulate, through_a_file


def test_what_an_update_adds():  # recorded from SparseML
    [found] = movement_steps([torch.tensor([1.0, -2.0])], [torch.tensor([0.5, 1.0])])
    torch.testing.assert_close(found, torch.tensor([-0.005, 0.02]))


def make(run: Any, **fields: Any) -> MovementPruning:
    modifier = MovementPruning(**{"final_sparsity": 0.5} | fields)
    modifier.attach(run)
    return modifier


def update(run: Any, modifier: MovementPruning, step: int, gradient: list[list[float]]) -> None:
    """One step with this gradient, whose update leaves the weights alone."""
    run.progress.step = step
    modifier.before_step(run)
    run.model.weight.grad = torch.tensor(gradient)
    modifier.before_update(run)
    modifier.after_update(run)


def test_scores_add_up_and_the_lowest_go():
    run = matrix_run(torch.tensor([[1.0, -2.0, 3.0, 4.0]]), 1, 4)
    modifier = make(run, params=["weight"], start=2, end=3)
    update(run, modifier, 0, [[0.5, 1.0, -1.0, 1.0]])
    torch.testing.assert_close(modifier.scores(run)["weight"], torch.tensor([[-0.005, 0.02, 0.03, -0.04]]))
    update(run, modifier, 1, [[0.5, 1.0, 3.0, 0.0]])
    torch.testing.assert_close(modifier.scores(run)["weight"], torch.tensor([[-0.01, 0.04, -0.06, -0.04]]))
    update(run, modifier, 2, [[0.0, 0.0, 0.0, 0.0]])
    assert not run.model.weight.eq(0).any()
    update(run, modifier, 3, [[9.0, 9.0, 9.0, 9.0]])  # the largest weights go; nothing is gathered any more
    assert run.model.weight.tolist() == [[1, -2, 0, 0]]
    torch.testing.assert_close(modifier.moved["weight"], torch.tensor([[-0.01, 0.04, -0.06, -0.04]]))


def test_pruned_weights_stay_pruned_though_others_fall_below_them():
    run = matrix_run(torch.tensor([[1.0, 1.0, 1.0, 1.0]]), 1, 4)
    modifier = make(run, params=["weight"], start=1, end=3, inter_func="linear", update_frequency=1)
    update(run, modifier, 0, [[1.0, 0.5, 0.0, 0.0]])  # scores -0.01, -0.005, 0, 0
    update(run, modifier, 1, [[0.0, 0.0, 0.0, 0.0]])
    update(run, modifier, 2, [[9.0, 9.0, 9.0, 5.0]])  # a quarter goes: the first; then 0.09, 0.09 and 0.05 less
    assert run.model.weight.tolist() == [[0, 1, 1, 1]]
    torch.testing.assert_close(modifier.scores(run)["weight"], torch.tensor([[-math.inf, -0.095, -0.09, -0.05]]))
    update(run, modifier, 3, [[0.0, 0.0, 0.0, 0.0]])
    assert run.model.weight.tolist() == [[0, 0, 1, 1]]


def test_scaled_gradients_count_unscaled_and_a_step_that_is_not_made_counts_nothing():
    run = matrix_run(torch.tensor([[1.0, -2.0]]), 1, 4)
    run.accelerator.scaler = GradScaler("cpu", init_scale=4.0)
    modifier = make(run, params=["weight"])
    update(run, modifier, 0, [[2.0, 4.0]])
    update(run, modifier, 1, [[math.inf, 4.0]])
    torch.testing.assert_close(modifier.moved["weight"], torch.tensor([[-0.005, 0.02]]))


@pytest.mark.parametrize(
    ("mask_type", "final", "expected"),  # 0.8 of 64 and 128 weights; 0.75 of 16 and 32 blocks; half of all
    [
        ("unstructured", 0.8, {64: {51}, 128: {102}}),
        ("block4", 0.75, {64: {48}, 128: {96}}),
        ("2:4", 0.5, {64: {32}, 128: {64}}),
    ],
)
def test_a_run_prunes_ever_more_and_revives_nothing(mask_type, final, expected):
    run = bert_run(4, 12)
    modifier = make(run, final_sparsity=final, start=1, end=2, update_frequency="1 step", mask_type=mask_type)
    before = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in modifier.targets.items()}
    for step in simulate(run, modifier):
        for name, mask in modifier.masks.items():
            assert not (mask & ~before[name]).any(), f"{name} at step {step}"
        before = modifier.masks or before
        modifier.check(run)
    assert num_zeros(modifier) == expected
    assert modifier.target_reached(run)


def test_an_interrupted_run_continues_identically():
    fields = {"start": "2 steps", "end": "10 steps", "update_frequency": "3 steps", "global_sparsity": True}
    straight_run = bert_run(4, 12)
    straight = make(straight_run, **fields)
    list(simulate(straight_run, straight))

    run = bert_run(4, 12)
    modifier = make(run, **fields)
    for step in simulate(run, modifier):
        if step == 6:
            break
    state = through_a_file([run.model.state_dict(), run.optimizer.state_dict(), modifier.state_dict()])
    run = bert_run(4, 12)
    modifier = make(run, **fields)
    for each, part in zip((run.model, run.optimizer, modifier), state, strict=True):
        each.load_state_dict(part)
    list(simulate(run, modifier, first=7))
    torch.testing.assert_close(run.model.state_dict(), straight_run.model.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(modifier.state_dict(), straight.state_dict(), rtol=0, atol=0)


def test_a_refusal_names_the_kind():
    with pytest.raises(ValueError, match=r"MovementPruning\.final_sparsity=80: .*such as 0\.8"):
        MovementPruning(final_sparsity=80)
