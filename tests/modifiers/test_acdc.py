"""Dense and sparse phases by turns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from sparse_xp.errors import UserError
from sparse_xp.modifiers import ACDCPruning, ConstantPruning
from sparse_xp.modifiers.acdc import is_dense_phase
from sparse_xp.modifiers.modifier_list import ModifierList
from tests.simulation import bert_run, matrix_run, num_zeros, simulate, through_a_file
from tests.tiny import make_run


def make(run: Any, **fields: Any) -> ACDCPruning:
    modifier = ACDCPruning(**{"compression_sparsity": 0.5, "update_frequency": 2, "end": 10} | fields)
    modifier.attach(run)
    return modifier


def phases(run: Any, modifier: ACDCPruning) -> str:
    """For each step d (dense) or s (sparse), by the masks, in a run that trains nothing."""
    found = ""
    for step in range(run.clock.total_steps):
        run.progress.step = step
        modifier.before_step(run)
        found += "s" if modifier.masks else "d"
    return found


@pytest.mark.parametrize(
    ("now", "start", "end", "phase", "expected"),
    [
        # recorded from SparseML: dense 0 to 2, sparse 2 to 4, dense 4 to 6, sparse from 6
        (0, 0, 10, 2, True),
        (1.99, 0, 10, 2, True),
        (2, 0, 10, 2, False),
        (3.9, 0, 10, 2, False),
        (4, 0, 10, 2, True),
        (6, 0, 10, 2, False),
        (8, 0, 10, 2, False),  # even, but it would last to the end
        (9.9, 0, 10, 2, False),
        (20, 0, 10, 2, False),
        (3, 3, 11, 2, True),  # phases count from the start
        (5, 3, 11, 2, False),
        (2.9, 3, 11, 2, True),
        (0.3, 0, 1, 0.1, False),  # 0.3 is the third phase, though 0.3 / 0.1 is 2.9999999999999996
        (0.6, 0, 0.8, 0.2, False),
        (8, 2, 12, 3, True),  # 8 to 11, and 11 lies before the end
        (9.5, 2, 12, 3, True),
        (11, 2, 12, 3, False),
    ],
)
def test_phases(now, start, end, phase, expected):
    assert is_dense_phase(now, start, end, phase) is expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "ddssddssssss"),
        ({"leave_enabled": False}, "ddssddsssssd"),  # the step at the end is the last sparse one
        ({"start": 1}, "dddssddsssss"),  # the phase at 9 would be dense, and not over before 10
        ({"start": "2 steps", "update_frequency": "25%", "end": "100%"}, "dddddsssddds"),
        ({"update_frequency": 3.8, "end": 12}, "ddddssssssss"),  # 7.6 to 11.4 would leave no step to the last phase
        ({"update_frequency": 1, "end": "100%"}, "dsdsdsdsdsds"),
        ({"update_frequency": 20}, "ssssssssssss"),
        ({"update_frequency": 0.1, "end": 4}, "dsdsssssssss"),  # a phase is one step at least
    ],
)
def test_masks_follow_the_phases(fields, expected):
    run = matrix_run(torch.rand(4, 4), 1, 12)
    assert phases(run, make(run, params=["weight"], **fields)) == expected


def test_a_dense_phase_lets_weights_grow_and_a_sparse_one_holds_them():
    run = bert_run(1, 12)
    modifier = make(run, global_sparsity=False)
    seen, reached, masks = [], [], []
    for _ in simulate(run, modifier):
        seen.append(num_zeros(modifier))
        reached.append(modifier.target_reached(run))
        masks.append(modifier.masks)
        modifier.check(run)
    sparse, dense = {64: {32}, 128: {64}}, {64: {0}, 128: {0}}
    assert seen == [dense] * 2 + [sparse] * 2 + [dense] * 2 + [sparse] * 6
    assert reached == [False] * 2 + [True] * 2 + [False] * 2 + [True] * 6
    assert masks[2] is masks[3]
    assert masks[6] is masks[11]  # one phase after the other, the masks stay
    assert any(not masks[2][name].equal(masks[6][name]) for name in masks[2])


def test_one_threshold_for_all_targets_by_default():
    model = nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 4, bias=False))
    model[0].weight.data = torch.arange(1.0, 9).view(2, 4) / 100
    model[1].weight.data = torch.arange(1.0, 9).view(4, 2)
    run = make_run(1, 4, model=model)
    modifier = make(run, params=["re:.*weight"], update_frequency=4, end=4)
    modifier.before_step(run)
    assert [int((layer.weight == 0).sum()) for layer in model] == [8, 0]


def test_blocks():
    run = matrix_run(torch.tensor([[1.0, 1, 1, 1, 9, 0, 0, 0]]), 1, 4)
    modifier = make(run, params=["weight"], update_frequency=4, end=4, mask_type="block4")
    modifier.before_step(run)
    assert modifier.masks["weight"].int().tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]]  # means 1 and 2.25


@pytest.mark.parametrize("reset", [True, False])
def test_momentum_is_forgotten_after_the_first_update_of_each_dense_phase(reset):
    run = matrix_run(torch.rand(4, 4), 1, 8)
    modifier = make(run, params=["weight"], end=8, momentum_buffer_reset=reset)
    buffer = torch.ones(4, 4)
    run.optimizer = SimpleNamespace(state={run.model.weight: {"momentum_buffer": buffer}, "other": {}})
    zeroed = []
    for step in range(8):
        run.progress.step = step
        buffer.fill_(1.0)
        modifier.before_step(run)
        modifier.after_update(run)
        zeroed.append(bool(buffer.eq(0).all()))
    assert zeroed == [reset and step in (0, 4) for step in range(8)]  # dense 0-1, sparse 2-3, dense 4-5, sparse 6-7


def test_adam_keeps_its_momentum():
    run = bert_run(1, 6)
    for step in simulate(run, make(run, end=6)):
        averages = [state["exp_avg"] for state in run.optimizer.state.values()]
        assert all(average.ne(0).any() for average in averages), step


@pytest.mark.parametrize("stop", [3, 4, 8])  # within a sparse phase, before a dense one and after the last change
def test_an_interrupted_run_continues_identically(stop):
    straight_run = bert_run(1, 12)
    straight = make(straight_run)
    list(simulate(straight_run, straight))

    run = bert_run(1, 12)
    modifier = make(run)
    for step in simulate(run, modifier):
        if step == stop:
            break
    state = through_a_file([run.model.state_dict(), run.optimizer.state_dict(), modifier.state_dict()])
    run = bert_run(1, 12)
    modifier = make(run)
    for each, part in zip((run.model, run.optimizer, modifier), state, strict=True):
        each.load_state_dict(part)
    list(simulate(run, modifier, first=stop + 1))
    torch.testing.assert_close(run.model.state_dict(), straight_run.model.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(modifier.masks, straight.masks, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"compression_sparsity": 80}, r"ACDCPruning\.compression_sparsity=80: .*such as 0\.8 for 80 %"),
        ({"compression_sparsity": 0.0}, r"ACDCPruning\.compression_sparsity=0\.0: expected a fraction strictly"),
        ({"update_frequency": 0}, r"ACDCPruning\.update_frequency=0: expected the length of a phase"),
        ({"update_frequency": "often"}, r"ACDCPruning\.update_frequency='often' is not a time"),
        ({"mask_type": "2:4", "compression_sparsity": 0.8}, r"must be 0\.5, not 0\.8"),
        ({"mask_type": "channel"}, r"mask_type='channel'; expected"),
        ({"params": []}, r"ACDCPruning\.params is empty"),
    ],
)
def test_refusals_name_the_key(fields, message):
    with pytest.raises(ValueError, match=message):
        ACDCPruning(**{"compression_sparsity": 0.5, "update_frequency": 2} | fields)


def test_what_does_not_fit_the_run_is_refused():
    run = bert_run(4, 4)
    late = ACDCPruning(compression_sparsity=0.5, update_frequency=0.1, start=0.9, end=1.0)
    with pytest.raises(UserError, match=r"sparsity: ACDCPruning: start=0\.9 is after"):
        ModifierList({"sparsity": late}, run.clock)
    first = ACDCPruning(compression_sparsity=0.5, update_frequency=0.1)
    with pytest.raises(UserError, match="both drive the masks of __ENCODER__"):
        ModifierList({"sparsity": first, "other": ConstantPruning()}, run.clock)
    with pytest.raises(UserError, match=r"mask_type=\[1, 5\]: .*does not divide"):
        make(run, mask_type=[1, 5])
