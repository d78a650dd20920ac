"""Heads and neurons that are cut out of a model while it trains: the rest of the run computes the same, only faster."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sparse_xp.functional.layers import encoder_layers
from sparse_xp.functional.structured.blocks import sizes_of
from sparse_xp.modifiers import (
    AttentionDistillation,
    ConstantPruning,
    MagnitudePruning,
    Modifier,
    PerLayerDistillation,
    Quantization,
    StructuredPruning,
)
from sparse_xp.modifiers.modifier_list import ModifierList
from sparse_xp.modifiers.structured.masks import parameter_cuts
from sparse_xp.training.optimizer import cut_moments, parameter_groups
from sparse_xp.training.state import Run
from tests.encoders import BATCH, KINDS, make_encoder
from tests.modifiers.structured_runs import attach_pruning
from tests.tiny import FakeContext


def trained(
    kind: str, cuts: bool, others: dict[str, Modifier] | None = None, steps: int = 10, **fields: Any
) -> tuple[FakeContext, StructuredPruning]:
    """Return a run after so many of its 10 steps of AdamW, the last removal in the sixth, and its modifier.

    ``cuts``: whether groups are cut out in training, or stay as zeros.
    """
    torch.manual_seed(0)
    # In float64: AdamW makes steps of any gradient, also of one that is 0 but for rounding, as of the bias of keys.
    this, modifier = attach_pruning(make_encoder(kind).double(), others=others, end=1.0, **fields)
    this.wrapper = SimpleNamespace(autocast=True, compiled=None)
    if not cuts:
        this.can_resize = lambda _: False
    for other in (others or {}).values():
        other.attach(this)
    this.optimizer = torch.optim.AdamW(parameter_groups(this.model), lr=1e-2, weight_decay=0.1)
    this.model.eval()  # dropout draws other numbers for other shapes
    for _ in range(steps):
        this.modifier_list.before_step(this)
        this.model(**BATCH, labels=torch.tensor([0, 1])).loss.backward()
        this.modifier_list.before_update(this)
        this.optimizer.step()
        this.optimizer.zero_grad()
        this.modifier_list.after_update(this)
        this.modifier_list.check(this)
        this.progress.step += 1
    return this, modifier


@pytest.mark.parametrize("fields", [{}, {"global_sparsity": True, "layers": True, "final_sparsity": 0.775}])
@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_at_the_end_are_the_same(kind, fields):
    zeroed, late = trained(kind, False, **fields)
    cut, early = trained(kind, True, **fields)
    assert (late.is_cut, early.is_cut) == (False, True)
    assert sum(w.numel() for w in cut.model.parameters()) < sum(w.numel() for w in zeroed.model.parameters())
    assert cut.modifier_list.logs(cut) == zeroed.modifier_list.logs(zeroed)
    for modifier, this in ((late, zeroed), (early, cut)):
        modifier.detach(this)
    assert sizes_of(cut.model) == sizes_of(zeroed.model)
    assert cut.model.config.to_dict() == zeroed.model.config.to_dict()
    ours, theirs = cut.model.state_dict(), zeroed.model.state_dict()
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, atol=1e-7, rtol=1e-6, msg=lambda text, at=name: f"{at}: {text}")


def test_what_goes_on_beside_it_is_the_same():
    """8-bit training from the seventh step on: weights, and ranges of activations."""
    pairs = [trained("Bert", cuts, {"int8": Quantization(start="7 steps")}, steps=9) for cuts in (False, True)]
    (zeroed, _), (cut, early) = pairs
    assert early.is_cut
    left, right = (this.modifier_list.modifiers["int8"].state_dict() for this in (zeroed, cut))
    assert left["settings"] == right["settings"] == {"active": True, "observing": True}
    for name, bound in left["ranges"].items():
        torch.testing.assert_close(right["ranges"][name], bound, atol=1e-4, rtol=1e-3)


def test_moments_are_cut_with_their_parameters():
    """Rows 0 and 2 of 3 stay, and column 1 of 2; of a parameter that is removed nothing stays."""
    model = torch.nn.ModuleDict(
        {"cut": torch.nn.Linear(2, 3), "gone": torch.nn.Linear(1, 1), "kept": torch.nn.Linear(1, 1)}
    )
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    weight = model["cut"].weight
    optimizer.state[weight]["exp_avg"] = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    untouched = copy.deepcopy(optimizer.state[model["kept"].weight])
    gone = {"gone.weight": None, "gone.bias": None}
    cut_moments(optimizer, model, {"cut.weight": lambda values: values[[0, 2]][:, [1]], **gone})
    assert optimizer.state[weight]["exp_avg"].tolist() == [[2.0], [6.0]]
    assert optimizer.state[weight]["exp_avg_sq"].shape == (2, 1)
    assert optimizer.state[weight]["step"] == 1
    assert model["gone"].weight not in optimizer.state
    assert optimizer.state[model["kept"].weight] == untouched


@pytest.mark.parametrize(
    "other",
    [MagnitudePruning(final_sparsity=0.75, update_frequency=0.0), ConstantPruning(min_sparsity=0)],
    ids=["scores", "masks"],
)
def test_pruning_of_weights_keeps_the_shapes_until_the_end(other):
    this, modifier = trained("Bert", True, {"prune": other})
    assert not modifier.is_cut
    this.modifier_list.detach(this)
    assert set(sizes_of(this.model)) == {(1, 8)}


def allows(modifier: Modifier, names: list[str], gone: bool = False) -> bool:
    """Return whether a distillation of these modules lets half of a model go; ``gone``: with its second layer."""
    this, pruning = trained("Bert", False)
    if gone:
        heads, neurons = pruning.masks["bert.encoder.layer.1"]
        pruning.masks["bert.encoder.layer.1"] = torch.zeros_like(heads), torch.zeros_like(neurons)
    modifier.pairs = [(name, name) for name in names]
    return modifier.allows_cuts(this, parameter_cuts(this.model, pruning.blocks, pruning.masks))


@pytest.mark.parametrize(
    ("part", "allowed"),
    [
        ("", True),
        (".output.dense", True),
        (".attention.output.dense", True),
        (".intermediate", False),
        (".intermediate.dense", False),
        (".attention.self.query", False),
    ],
)
def test_hidden_layers_that_are_compared_keep_their_width(part, allowed):
    names = [f"bert.encoder.layer.1{part}"]
    assert allows(PerLayerDistillation(), names) == allowed
    assert not allows(PerLayerDistillation(), names, gone=True)
    assert allows(PerLayerDistillation(), ["bert.embeddings", "bert.encoder.layer.0"], gone=True)


def test_heads_that_are_compared_stay():
    assert not allows(AttentionDistillation(), [])


def test_several_processes_keep_the_shapes():
    this, modifier = attach_pruning()
    cuts = parameter_cuts(this.model, modifier.blocks, modifier.masks)
    assert Run.can_resize(this, cuts)
    this.accelerator.num_processes = 2
    assert not Run.can_resize(this, cuts)


def test_a_compiled_model_keeps_the_shapes():
    this, modifier = attach_pruning()
    this.wrapper = SimpleNamespace(compiled=this.model.forward)
    assert not Run.can_resize(this, parameter_cuts(this.model, modifier.blocks, modifier.masks))


def test_a_removed_layer_leaves_the_names_of_the_others_alone():
    """Other modifiers and the checkpoint know parameters by name."""
    this, modifier = trained("Bert", True, global_sparsity=True, layers=True, final_sparsity=0.775)
    left = [block.name for block, size in zip(modifier.blocks, modifier.current_sizes(), strict=True) if any(size)]
    assert list(encoder_layers(this.model)) == left
    assert len(left) < 4
    assert isinstance(this.modifier_list, ModifierList)
