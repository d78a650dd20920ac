"""Narrower word embeddings in a run: schedule, choice, errors, and what others make of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparse_xp.clock import Clock
from sparse_xp.errors import UserError
from sparse_xp.functional.cost_model import Costs
from sparse_xp.functional.factored_embeddings import FactoredEmbedding
from sparse_xp.functional.structured.config import removal_summary
from sparse_xp.models.reduced import load_reduced_model
from sparse_xp.modifiers import EmbeddingPruning, MagnitudePruning, Quantization
from sparse_xp.modifiers.embedding_pruning import GATES
from sparse_xp.modifiers.modifier_list import ModifierList
from sparse_xp.modifiers.per_layer_distillation import choose_modules
from sparse_xp.result import Result
from sparse_xp.run import run
from tests.encoders import BATCH, make_encoder
from tests.latency_tables import write_table
from tests.modifiers.structured_runs import attach_pruning, take_step
from tests.runs import SHORT, configure, history
from tests.tiny import make_run


def attached(model=None, others=None, **fields):
    """A modifier over a model with embeddings of 8 dimensions, in a run of 10 steps."""
    clock = Clock(5, 10)
    modifier = EmbeddingPruning(**{"final_sparsity": 0.5, "multiple": 2, "start": 0, "update_frequency": 0.0} | fields)
    recipe = ModifierList({"embeddings": modifier, **(others or {})}, clock)
    this = make_run(5, 10, model=model or make_encoder("Bert"), modifier_list=recipe)
    modifier.attach(this)
    return this, modifier


@pytest.mark.parametrize("score", ["first_order", "second_order", "magnitude"])
def test_it_lands_on_its_target_and_never_goes_back(score):
    this, modifier = attached(score=score)
    left = []
    for number in range(10):
        before = modifier.mask
        take_step(this, modifier, number)
        left.append(modifier.logs(this)["embeddings"])
        assert (modifier.mask <= before).all()
    assert left[0] == 8
    assert left == sorted(left, reverse=True)
    assert (left[-1], set(left)) == (4, {8.0, 6.0, 4.0})
    assert modifier.target_reached(this)
    with torch.no_grad():
        before = this.model.eval()(**BATCH).logits
        modifier.detach(this)
        torch.testing.assert_close(this.model(**BATCH).logits, before, atol=1e-6, rtol=0)
    assert removal_summary(this.model).embeddings == this.model.config.embedding_factor == 4
    modifier.check(this)


@pytest.mark.parametrize(("score", "term"), [("first_order", torch.abs), ("second_order", torch.square)])
def test_scores_by_hand(score, term):
    this, modifier = attached(score=score, decay=0.5)
    pair = modifier.factored
    pair.table.weight.data, pair.projection.weight.data = torch.ones(30, 8), torch.arange(8.0).expand(8, 8).clone()
    assert modifier.scores().tolist() == [30 * 8 * n**2 for n in range(8)]  # magnitude
    expected = torch.zeros(8)
    for _ in range(3):
        pair.projection.weight.grad = torch.randn(8, 8)
        expected = 0.5 * expected + term((pair.projection.weight * pair.projection.weight.grad).sum(0)).detach()
        modifier.before_update(this)
    torch.testing.assert_close(modifier.gate_scores.sums[GATES], expected)
    torch.testing.assert_close(modifier.scores(), expected)


def test_what_matters_least_goes():
    model = make_encoder("Bert")
    for score in ("first_order", "second_order", "magnitude"):
        this, modifier = attached(model, score=score)
        modifier.factored.projection.weight.data[:, 1::2] *= 1e-3
        for number in range(10):
            modifier.before_step(this)
            model(**BATCH, labels=torch.tensor([0, 1])).loss.backward()
            modifier.before_update(this)
            this.progress.step = number + 1
        assert modifier.mask.tolist() == [True, False] * 4
        model.zero_grad()


def test_masks_of_other_pruning_are_cut_too():
    other = MagnitudePruning(final_sparsity=0.75, update_frequency=0.0, params=["__ALL_PRUNABLE__"])
    this, _ = attached(others={"prune": other}, score="magnitude")
    other.attach(this)
    for _ in range(10):
        this.modifier_list.before_step(this)
        this.model(**BATCH, labels=torch.tensor([0, 1])).loss.backward()
        this.modifier_list.before_update(this)
        this.modifier_list.after_update(this)
        this.progress.step += 1
    this.modifier_list.detach(this)
    this.modifier_list.check(this)
    name = "bert.embeddings.word_embeddings.map.weight"
    assert other.masks[name].shape == other.targets[name].shape == (8, 4)


def test_the_map_is_no_layer_to_compare_with_a_teacher():
    model, other = make_encoder("Bert"), make_encoder("Bert")
    attached(model)
    assert list(choose_modules(model, None, "the student")) == list(choose_modules(other, None, "the teacher"))


def test_a_speed_counts_the_map(tmp_path):
    """A neuron takes 0.125 ms, and 4 dimensions multiply as much as 2 neurons."""
    costs = Costs([0.0, 1.0, 2.0], [0.0, *[0.5] * 4, *[0.5 + 0.125 * n for n in range(1, 13)]], rest=3.0)
    assert costs.with_projection(4).rest == 3.0 + 4 / 2 * 0.125
    model = make_encoder("Bert")
    attached(model)
    speed = {"final_sparsity": None, "target_speedup": 4, "latency": write_table(tmp_path)}
    _, modifier = attach_pruning(model, others={"q": Quantization(start="90%")}, **speed)
    assert modifier.target.costs.rest == 0.25
    assert modifier.target.costs.total(modifier.final_sizes) <= modifier.target.budget == 8.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "final_sparsity=None: expected the part of the embeddings' dimensions"),
        ({"final_sparsity": 1.0}, r"final_sparsity=1\.0: expected the part"),
        (
            {"final_sparsity": 0.5, "score": "firstorder"},
            "score=firstorder: expected .* Did you mean 'first_order'",
        ),
        ({"final_sparsity": 0.5, "inter_func": "cubix"}, "inter_func=cubix: expected one of cubic"),
        ({"final_sparsity": 0.5, "multiple": 0}, "multiple=0: expected at least 1"),
        ({"final_sparsity": 0.5, "decay": 2}, "decay=2: expected a factor from 0"),
        ({"final_sparsity": 0.5, "update_frequency": "often"}, "update_frequency='often' is not a time"),
    ],
)
def test_values_that_cannot_be(fields, message):
    with pytest.raises(ValueError, match=message):
        EmbeddingPruning(**fields)


def test_targets_that_cannot_be():
    with pytest.raises(UserError, match=r"final_sparsity=0\.9 leaves no 2 of 8 dimensions"):
        attached(final_sparsity=0.9)
    this, modifier = attached(score="magnitude")
    for number in range(10):
        take_step(this, modifier, number)
    modifier.detach(this)
    with pytest.raises(UserError, match=r"reached with nothing removed: the embeddings of some/checkpoint have 4 of 8"):
        attached(this.model)
    _, more = attached(this.model, final_sparsity=0.75)
    assert (more.initial_dimensions, more.final_dimensions) == (4, 2)


def test_a_revived_weight_is_found():
    this, modifier = attached()
    for number in range(10):
        take_step(this, modifier, number)
    modifier.factored.projection.weight.data[:2].fill_(1.0)
    with pytest.raises(RuntimeError, match="8 removed weights of the embeddings are no longer zero at step 10"):
        modifier.check(this)


def test_grounds_for_a_choice():
    this, modifier = attached()
    modifier.window = lambda clock: (0.0, 0.0)  # a window that has shrunk to its first step
    with pytest.raises(UserError, match=r"nothing is known of the embeddings at the first step.*score=magnitude"):
        modifier.before_step(this)
    this, modifier = attached()
    modifier.factored.projection.weight.requires_grad_(False)
    with pytest.raises(UserError, match=r"the embeddings do not train.*score=magnitude"):
        modifier.before_update(this)
    modifier.gate_scores.sums[GATES] = torch.full((8,), torch.nan)
    with pytest.raises(UserError, match="scores of the embeddings are not finite: training has diverged"):
        modifier.choose(0.5)


# Whole runs

WORDS = (
    *SHORT,
    "task=sst2",
    "teacher=none",
    "+modifier@recipe.modifiers.embeddings=EmbeddingPruning",
    "recipe.modifiers.embeddings.final_sparsity=0.5",
)


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["int8", "ptq_int8", "int8_dynamic"])
def test_a_run_with_narrower_embeddings(tmp_path, quantization):
    """Together with heads and neurons, in integers; and a transfer run that takes away more."""
    words = (
        *WORDS, "recipe=structured50", f"quantization={quantization}",
        f"data.cache={tmp_path}/cache",
    )  # fmt: skip
    result = run(configure(*words), tmp_path / "run")
    assert (result.sparsity.removed.embeddings, result.sparsity.removed.heads) == (32, [2, 2])
    assert Result.read(tmp_path / "run/result.json") == result
    model = load_reduced_model(tmp_path / "run/model")
    pair = model.get_input_embeddings()
    assert isinstance(pair, FactoredEmbedding)
    assert isinstance(pair.table, nn.Embedding)
    assert pair.projection.weight.shape == (64, 32)
    assert result.deployment.max_abs_diff < 0.5
    assert {line["embeddings"] for line in history(tmp_path / "run") if "embeddings" in line} >= {64.0, 32.0}
    assert "; embeddings of 32 dimensions)" in (tmp_path / "run/deployment/model_card.md").read_text()
    if quantization == "int8":
        more = (
            *WORDS, "recipe=dense", "recipe.modifiers.embeddings.final_sparsity=0.75",
            f"model.checkpoint={tmp_path}/run/model", f"data.cache={tmp_path}/cache",
        )  # fmt: skip
        assert run(configure(*more), tmp_path / "more").sparsity.removed.embeddings == 16
