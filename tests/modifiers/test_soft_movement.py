"""Soft movement pruning against the paper's own form: masked layers, straight-through gradients, Adam on the scores."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparse_xp.clock import Clock
from sparse_xp.errors import UserError
from sparse_xp.modifiers import SoftMovementPruning
from sparse_xp.run import run
from tests.runs import SHORT, configure, history
from tests.simulation import through_a_file
from tests.tiny import make_run


class Threshold(torch.autograd.Function):
    """Sanh et al.'s ThresholdBinarizer with a sigmoid: the gradient passes as if there were no threshold."""

    @staticmethod
    def forward(context, scores, threshold):
        return (scores.sigmoid() > threshold).float()

    @staticmethod
    def backward(context, gradient):
        return gradient, None


INPUTS, TARGETS = torch.randn(30, 16, 6, generator=torch.Generator().manual_seed(1)), torch.ones(16, 4)


def thresholds(steps):
    """Cubic from 0 at step 2 to 0.4 at step 22."""
    return [0.4 * (1 - (1 - min(max((step - 2) / 20, 0), 1)) ** 3) for step in range(steps)]


def paper(weight, steps, strength):
    """Train as the paper does: the weights dense behind their masks, the scores as parameters."""
    weight, scores = (nn.Parameter(values.clone()) for values in (weight, torch.zeros_like(weight)))
    learns, scored = torch.optim.AdamW([weight], lr=0.01, weight_decay=0.0), torch.optim.Adam([scores], lr=0.05)
    for step, threshold in enumerate(thresholds(steps)):
        mask = Threshold.apply(scores, threshold) if step >= 2 else Threshold.apply(scores, 0.0)
        loss = ((INPUTS[step] @ (weight * mask).T - TARGETS) ** 2).mean()
        loss = loss + strength * threshold / 0.4 * scores.sigmoid().mean()
        loss.backward()
        for optimizer in (learns, scored):
            optimizer.step()
            optimizer.zero_grad()
        if step == 21:
            final = (scores.sigmoid() > 0.4).detach()
    return final


@pytest.fixture
def modifier():
    return SoftMovementPruning(
        params=["weight"], start="2 steps", end="22 steps", final_threshold=0.4, final_lambda=2.0,
        score_learning_rate=0.05,
    )  # fmt: skip


def matrix(steps=30):
    layer = nn.Linear(6, 4, bias=False)
    layer.weight.data = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW([{"params": [layer.weight]}], lr=0.01, weight_decay=0.0)
    return make_run(10, steps, model=layer, optimizer=optimizer)


def train(this, modifier, first, last):
    """Make steps ``first`` to ``last`` as the loop does; yields after each."""
    for step in range(first, last):
        this.progress.step = step
        modifier.before_step(this)
        ((this.model(INPUTS[step]) - TARGETS) ** 2).mean().backward()
        modifier.before_update(this)
        this.optimizer.step()
        this.optimizer.zero_grad()
        modifier.after_update(this)
        yield step


def test_masks_are_those_of_the_paper(modifier):
    """Momentum aside, which moves a pruned weight there and not here: so few are pruned before the end."""
    this = matrix()
    final = paper(this.model.weight.detach(), 30, 2.0)
    modifier.attach(this)
    seen = []
    for _ in train(this, modifier, 0, 30):
        modifier.check(this)
        seen.append(int((this.model.weight == 0).sum()))
    assert modifier.masks["weight"].equal(final)
    assert seen[:2] == [0, 0]  # before the start
    assert 0 < seen[22] < 24
    assert seen[22:] == [seen[22]] * 8  # final


def test_the_scores_of_two_steps_by_hand():
    """Adam's first steps are the learning rate in size; the second one by its moments."""
    this = make_run(1, 10, model=nn.Linear(2, 1, bias=False))
    weight = this.model.weight
    weight.data = torch.tensor([[2.0, -3.0]])
    modifier = SoftMovementPruning(
        params=["weight"], start=0, end=5, final_threshold=0.4, final_lambda=8.0, score_learning_rate=0.1
    )
    modifier.attach(this)
    weight.grad = torch.tensor([[0.5, 0.5]])  # 0.5 * 2 > 0 lowers the first score, 0.5 * -3 < 0 raises the second
    modifier.before_update(this)
    torch.testing.assert_close(modifier.scores["weight"], torch.tensor([[-0.1, 0.1]]))
    this.progress.step = 1  # a fifth of the ramp is over: 1 - 0.8 ** 3 = 0.488
    weight.grad = torch.tensor([[0.0, 0.0]])
    modifier.before_update(this)
    first, second = [], []
    for score, movement in ((-0.1, 1.0), (0.1, -1.5)):
        chance = 1 / (1 + 2.718281828**-score)
        penalty = 8 * 0.488 / 2 * chance * (1 - chance)
        mean, square = 0.9 * 0.1 * movement + 0.1 * penalty, 0.999 * 0.001 * movement**2 + 0.001 * penalty**2
        first.append(score)
        second.append(score - 0.1 * (mean / (1 - 0.9**2)) / ((square / (1 - 0.999**2)) ** 0.5 + 1e-8))
    assert modifier.scores["weight"].tolist()[0] == pytest.approx(second, rel=1e-5)
    assert first != second


def test_a_pruned_weight_comes_back_with_its_value():
    this = make_run(10, 100, model=nn.Linear(2, 1, bias=False))
    weight = this.model.weight
    weight.data = torch.tensor([[2.0, -3.0]])
    modifier = SoftMovementPruning(params=["weight"])
    modifier.attach(this)
    modifier.scores["weight"].data = torch.tensor([[-5.0, 1.0]])
    modifier.update_masks(0.1)
    assert weight.tolist() == [[0.0, -3.0]]
    weight.grad = torch.tensor([[-1.0, 0.0]])  # growing would help
    modifier.learn(this, 0.0)
    assert modifier.scores["weight"][0, 0] > -5.0
    modifier.scores["weight"].data = torch.tensor([[0.0, 1.0]])
    modifier.update_masks(0.1)
    assert weight.tolist() == [[2.0, -3.0]]


@pytest.mark.parametrize("at", [1, 10, 25])
def test_an_interrupted_run_continues_identically(modifier, at):
    straight, broken = matrix(), matrix()
    modifier.attach(straight)
    list(train(straight, modifier, 0, 30))
    expected = straight.model.weight.detach().clone()
    modifier.attach(broken)
    list(train(broken, modifier, 0, at))
    state = through_a_file(modifier.state_dict())
    modifier.attach(broken)
    modifier.load_state_dict(state)
    list(train(broken, modifier, at, 30))
    assert broken.model.weight.equal(expected)


@pytest.mark.usefixtures("trained_only")
def test_a_larger_lambda_makes_a_sparser_model(tmp_path):
    found = {}
    for strength in (0, 400):
        words = (f"sparsity.final_lambda={strength}", "sparsity.score_learning_rate=0.5", "teacher=none")
        result = run(configure(*SHORT, "task=sst2", "recipe=soft_movement", *words), tmp_path / str(strength))
        lines = [line for line in history(tmp_path / str(strength)) if "loss" in line]
        assert lines[-1]["sparsity"] == pytest.approx(result.sparsity.prunable)
        assert (lines[0]["threshold"], lines[-1]["threshold"]) == (0.0, 0.1)
        found[strength] = result.sparsity.prunable
    assert 0.02 < found[0] < found[400] - 0.1
    assert found[400] < 1


def test_a_run_that_could_prune_nothing_is_refused_before_it_starts():
    with pytest.raises(
        ValueError, match=r"in 80 steps at score_learning_rate=0.01 no score can .* rate to 0.04 or more"
    ):
        SoftMovementPruning(end="80%").window(Clock(10, 100))
    assert SoftMovementPruning(end="80%").window(Clock(10, 300)) == (0.0, 24.0)


def test_nothing_pruned_at_the_end_is_an_error(modifier):
    this = matrix()
    modifier.score_learning_rate = 0.03
    modifier.attach(this)
    modifier.scores["weight"].data += 5.0
    with pytest.raises(UserError, match=r"final at step 22, and no score has fallen to final_threshold=0\.4"):
        list(train(this, modifier, 0, 30))


def test_a_model_of_zeros_is_an_error(modifier):
    this = matrix()
    modifier.attach(this)
    modifier.scores["weight"].data -= 50.0
    with pytest.raises(UserError, match=r"at step 22 every score has fallen to the threshold: all weights would be"):
        list(train(this, modifier, 0, 30))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("final_threshold", 0.0), ("final_threshold", 1.0), ("final_lambda", -1.0), ("final_lambda", float("nan")),
        ("score_learning_rate", 0.0), ("inter_func", "square"), ("update_frequency", "often"),
    ],
)  # fmt: skip
def test_refusals_name_the_key(field, value):
    with pytest.raises(ValueError, match=f"SoftMovementPruning.{field}"):
        SoftMovementPruning(**{field: value})
