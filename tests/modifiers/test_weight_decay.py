"""Weight decay from a time on, in the groups that decay."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from sparse_xp.modifiers import WeightDecay
from sparse_xp.modifiers.modifier_list import ModifierList
from sparse_xp.training.optimizer import parameter_groups
from tests.tiny import make_run


def test_it_starts_on_time_and_leaves_the_other_group_alone():
    matrix, bias = torch.zeros(2, 2), torch.zeros(2)
    groups = [{"weight_decay": 0.0, "params": [bias, matrix]}, {"weight_decay": 0.0, "params": [bias]}]
    run = make_run(4, 8, optimizer=SimpleNamespace(param_groups=groups))
    recipe = ModifierList(
        {
            "more": WeightDecay(weight_decay=0.1, start="75%"),
            "some": WeightDecay(weight_decay=0.01, start="2 steps", end="75%"),
        },
        run.clock,
    )
    seen = []
    for step in range(8):
        run.progress.step = step
        recipe.before_step(run)
        seen.append((groups[0]["weight_decay"], groups[1]["weight_decay"]))
    assert seen == [(0.0, 0.0)] * 2 + [(0.01, 0.0)] * 4 + [(0.1, 0.0)] * 2


def test_zero_switches_it_off():
    groups = [{"weight_decay": 0.5, "params": [torch.zeros(2, 2)]}]
    run = make_run(4, 8, optimizer=SimpleNamespace(param_groups=groups))
    WeightDecay(weight_decay=0.0).before_step(run)
    assert groups[0]["weight_decay"] == 0.0


def test_adamw_shrinks_the_weight_and_not_the_bias_or_the_layer_norm():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=0.1)
    for parameter in model.parameters():
        parameter.data.fill_(1.0)
        parameter.grad = torch.zeros_like(parameter)
    WeightDecay(weight_decay=0.02).before_step(make_run(1, 1, optimizer=optimizer))
    optimizer.step()
    values = {name: parameter.unique().tolist() for name, parameter in model.named_parameters()}
    assert values.pop("0.weight") == pytest.approx([0.998])  # 1 - 0.1 * 0.02
    assert values == {"0.bias": [1.0], "1.weight": [1.0], "1.bias": [1.0]}


@pytest.mark.parametrize("value", [-0.01, 1.0, 5, float("nan")])
def test_values_outside_are_refused_by_name(value):
    with pytest.raises(ValueError, match=r"WeightDecay\.weight_decay=.*expected a number in \[0, 1\)"):
        WeightDecay(weight_decay=value)


def test_all_groups_decay_if_asked_to():  # SparseML's SetWeightDecayModifier reached biases and LayerNorm too
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=0.1)
    for parameter in model.parameters():
        parameter.data.fill_(1.0)
        parameter.grad = torch.zeros_like(parameter)
    WeightDecay(weight_decay=0.01, all_groups=True).before_step(make_run(1, 1, optimizer=optimizer))
    optimizer.step()
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.01]
    for parameter in model.parameters():
        assert parameter.unique().tolist() == pytest.approx([0.999])  # 1 - 0.1 * 0.01
