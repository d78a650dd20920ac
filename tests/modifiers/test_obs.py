"""Pruning by second-order costs: recorded examples end to end, sampling that leaves no trace, whole simulated runs."""

from __future__ import annotations

import copy
import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor, nn

from sparse_xp.errors import UserError
from sparse_xp.modifiers import MagnitudePruning, OBSPruning
from tests.simulation import bert_run, num_zeros, simulate, through_a_file
from tests.tiny import make_run, plain_task

#: recorded from SparseML
GRADIENTS = [[1, 0, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 1, 1, 0, 0]]
WEIGHT = [1.0, 1, 1, 1, 1, 2, 0, 1]
TWO_BLOCKS = {"fisher_block_size": 4, "damp": 0.5, "num_grads": 2, "grad_batch_size": 1, "params": ["weight"]}


class Product(nn.Module):
    """The loss is the mean of weight * row, so that the gradient is the mean of the rows."""

    def __init__(self, weight: list[float]):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight).view(2, -1))

    def forward(self, input_ids: Tensor) -> Any:
        return SimpleNamespace(loss=(input_ids.float() @ self.weight.flatten()).mean())


def with_rows(run: Any, columns: dict[str, list], seed: int = 42) -> Any:
    """The run with training features and what describes them."""
    more = {
        "seed": seed,
        "train_features": Dataset.from_dict(columns),
        "lengths": [len(row) for row in columns["input_ids"]],
        "inputs": ["input_ids"],
        "padding": {"input_ids": 0},
        "task": plain_task(*(name for name in columns if name != "input_ids")),
        "tokenizer": None,
        "train": SimpleNamespace(batch_size=4, group_by_length=False),
        "device": torch.device("cpu"),
    }
    vars(run).update(more)
    return run


def product_run(weight: list[float], rows: list[list[int]], total_steps: int = 1) -> Any:
    return with_rows(make_run(1, total_steps, model=Product(weight)), {"input_ids": rows})


def taught_run(steps_per_epoch: int, total_steps: int, seed: int = 42) -> Any:
    """A BERT that can draw gradients from 32 rows."""
    generator = torch.Generator().manual_seed(7)
    rows = torch.randint(5, 20, (32, 6), generator=generator)
    columns = {"input_ids": rows.tolist(), "labels": (rows[:, 0] % 2).tolist()}
    return with_rows(bert_run(steps_per_epoch, total_steps), columns, seed)


def make(run: Any, **fields: Any) -> OBSPruning:
    modifier = OBSPruning(**{"final_sparsity": 0.5, "num_grads": 8, "fisher_block_size": 8} | fields)
    modifier.attach(run)
    return modifier


def close(found: Tensor, expected: list) -> None:
    torch.testing.assert_close(found.detach().flatten(), torch.tensor(expected), rtol=0, atol=1e-6)


# Recorded examples


def test_one_block_of_two():
    run = product_run([1.0, 2.0], [[1, 1]])
    make(run, fisher_block_size=2, damp=1.0, num_grads=1, grad_batch_size=1, params=["weight"]).before_step(run)
    close(run.model.weight, [0.0, 2.5])


def test_costs_of_weights():  # recorded from SparseML 1.x
    run = product_run(WEIGHT, GRADIENTS)
    modifier = make(run, **TWO_BLOCKS)
    scores = modifier.scores_from(modifier.inverse_fisher(run, 1), 0)["weight"]
    close(scores, [0.5, 0.5, 0.25, 0.25, 0.375, 1.5, 0, 0.25])


def test_costs_of_groups_and_the_cheaper_one_goes():  # recorded from SparseML 1.x
    run = product_run(WEIGHT, GRADIENTS)
    modifier = make(run, **TWO_BLOCKS, mask_type="block4")
    close(modifier.scores_from(modifier.inverse_fisher(run, 1), 0)["weight"], [1.5] * 4 + [3.75] * 4)
    modifier.before_step(run)
    close(run.model.weight, [0.0, 0, 0, 0, 1, 2, 0, 1])


def test_pruned_weights_stay_pruned_and_cost_less_than_any():
    run = product_run(WEIGHT, GRADIENTS)
    modifier = make(run, **TWO_BLOCKS, final_sparsity=0.25)
    first = torch.ones(2, 4, dtype=torch.bool)
    first[0, 1] = first[1, 0] = False  # two weights that are not the cheapest
    modifier.masks = {"weight": first}
    run.model.weight.data.mul_(first)
    modifier.prune(run, {"weight": 0.375})  # one more of eight
    # With no gradient in a pruned place the inverse is diag(1, 2, 2, 2) and diag(2, 1, 2, 2): costs 0.5 - 0.25 0.25
    # and - 2 0 0.25, where the 0 goes.
    assert modifier.masks["weight"].int().tolist() == [[1, 0, 1, 1], [0, 1, 0, 1]]
    close(run.model.weight, [1.0, 0, 1, 1, 0, 2, 0, 1])


def test_of_two_weights_that_do_the_same_one_goes_and_the_other_takes_over():
    # Rows in which the first two inputs are always equal: only the sum of their weights matters.
    rows = [[i % 5 + 1, i % 5 + 1, (i * 7) % 11 - 5, (i * 3) % 7 - 3] for i in range(40)]
    run = product_run([0.9, 1.0, 1.0, 1.0], rows)
    make(run, final_sparsity=0.25, fisher_block_size=4, num_grads=40, grad_batch_size=1, params=["weight"]).before_step(
        run
    )
    torch.testing.assert_close(
        run.model.weight.detach().flatten(), torch.tensor([0.0, 1.9, 1.0, 1.0]), rtol=0, atol=1e-2
    )


# Sampling


def test_gradients_are_those_of_the_task_loss_without_dropout():
    run = taught_run(1, 1)
    for module in run.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    modifier = make(run, num_grads=2)
    run.model.train()
    drawn = list(modifier.gradients(run, 1))
    run.model.eval()
    for rows, gradients in zip(run.gradient_rows(2, None, 1), drawn, strict=True):
        batch = run.train_features[rows]
        run.model.zero_grad()
        run.model(input_ids=torch.tensor(batch["input_ids"]), labels=torch.tensor(batch["labels"])).loss.backward()
        for name, weight in modifier.targets.items():
            torch.testing.assert_close(gradients[name], weight.grad)


def test_sampling_leaves_no_trace():
    run = taught_run(1, 4)
    steps = simulate(run, make(run, start=3))
    next(steps)
    run.model.train()
    weight = run.model.classifier.weight
    weight.grad = torch.ones_like(weight)
    modifier = make(run)
    before = copy.deepcopy([run.model.state_dict(), run.optimizer.state_dict()])
    states = torch.get_rng_state(), random.getstate()
    modifier.inverse_fisher(run, 1)
    assert torch.get_rng_state().equal(states[0])
    assert random.getstate() == states[1]
    assert [name for name, each in run.model.named_parameters() if each.grad is not None] == ["classifier.weight"]
    assert weight.grad.eq(1).all()
    assert run.model.training
    torch.testing.assert_close([run.model.state_dict(), run.optimizer.state_dict()], before, rtol=0, atol=0)


def test_rows_depend_on_seed_step_and_part_alone():
    def drawn(seed: int = 42, step: int = 3, part: int = 1) -> list[list[int]]:
        run = taught_run(1, 8, seed)
        run.progress.step = step
        torch.manual_seed(random.randrange(1000))
        return list(run.gradient_rows(20, None, part))

    assert drawn() == drawn()
    assert all(drawn(**{name: value}) != drawn() for name, value in {"seed": 43, "step": 4, "part": 2}.items())
    batches = drawn()
    assert [len(batch) for batch in batches] == [4] * 20
    for first in (0, 8):  # an epoch of 32 rows has each of them once
        assert sorted(row for batch in batches[first : first + 8] for row in batch) == list(range(32))
    assert batches[:8] != batches[8:16]


@pytest.mark.parametrize(("fields", "size"), [({}, 4), ({"grad_batch_size": 5}, 5)])
def test_rows_of_a_gradient(fields, size):
    run = taught_run(1, 1)
    batches = run.gradient_batches(1, make(run, **fields).grad_batch_size, 1)
    assert len(next(batches)["input_ids"]) == size


# Schedules


def test_a_run_prunes_ever_more_and_revives_nothing():
    run = taught_run(4, 10)
    modifier = make(run, final_sparsity=0.8, inter_func="linear", end="8 steps", update_frequency="2 steps")
    before = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in modifier.targets.items()}
    seen = []
    for step in simulate(run, modifier):
        seen.append(sum(int((weight == 0).sum()) for weight in modifier.targets.values()))
        for name, mask in modifier.masks.items():
            assert not (mask & ~before[name]).any(), f"{name} at step {step}"
        before = modifier.masks
        modifier.check(run)
    assert seen == [0, 0, 102, 102, 205, 205, 307, 307, 410, 410]  # of 512, all together
    assert modifier.target_reached(run)


def test_per_tensor_and_in_groups():
    run = taught_run(1, 2)
    modifier = make(run, final_sparsity=0.75, end=1, update_frequency=1, global_sparsity=False, mask_type="block4")
    list(simulate(run, modifier))
    assert num_zeros(modifier) == {64: {48}, 128: {96}}
    for weight in modifier.targets.values():
        assert set((weight.view(-1, 4) == 0).sum(1).tolist()) == {0, 4}


@pytest.mark.parametrize("global_sparsity", [True, False])
def test_recomputations_go_in_equal_parts_from_what_is_pruned(global_sparsity, monkeypatch):
    run = taught_run(1, 3)
    modifier = make(
        run,
        init_sparsity=0.25,
        final_sparsity=0.75,
        inter_func="linear",
        end=1,
        update_frequency=1,
        num_recomputations=4,
        global_sparsity=global_sparsity,
    )
    levels, parts = [], []
    select, inverse = modifier.select, modifier.inverse_fisher
    monkeypatch.setattr(modifier, "select", lambda scores, each: levels.append(each) or select(scores, each))
    monkeypatch.setattr(modifier, "inverse_fisher", lambda run, part: parts.append(part) or inverse(run, part))
    list(simulate(run, modifier))
    assert parts == [1, 2, 3, 4] * 2
    assert [set(each.values()) for each in levels] == [{k / 16} for k in (1, 2, 3, 4)] + [{k / 8} for k in (3, 4, 5, 6)]


def test_nothing_is_drawn_to_prune_nothing(monkeypatch):
    run = taught_run(1, 2)
    modifier = make(run)
    monkeypatch.setattr(modifier, "gradients", lambda *_: pytest.fail("drew gradients"))
    modifier.before_step(run)
    assert all(mask.all() for mask in modifier.masks.values())


def test_levels_of_the_obert_recipe():  # recorded from SparseML: from 70 % to 90 % over 24 epochs, every 4
    modifier = make(taught_run(1, 27), init_sparsity=0.7, final_sparsity=0.9, start=2, end=26, update_frequency=4)
    found = [set(modifier.levels(k / 6).values()).pop() for k in range(7)]
    assert found == pytest.approx([0.7, 0.7842592593, 0.8407407407, 0.875, 0.8925925926, 0.8990740741, 0.9])


def test_an_interrupted_run_continues_identically():
    fields = {"end": "8 steps", "update_frequency": "2 steps"}
    straight_run = taught_run(4, 10)
    straight = make(straight_run, **fields)
    list(simulate(straight_run, straight))

    run = taught_run(4, 10)
    modifier = make(run, **fields)
    for step in simulate(run, modifier):
        if step == 3:
            break
    state = through_a_file([run.model.state_dict(), run.optimizer.state_dict(), modifier.state_dict()])
    run = taught_run(4, 10)
    modifier = make(run, **fields)
    for each, part in zip((run.model, run.optimizer, modifier), state, strict=True):
        each.load_state_dict(part)
    list(simulate(run, modifier, first=4))
    torch.testing.assert_close(run.model.state_dict(), straight_run.model.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(modifier.state_dict(), straight.state_dict(), rtol=0, atol=0)


class Regression(Product):
    """Least squares: half the mean square of what the weights leave unexplained."""

    def forward(self, input_ids: Tensor, labels: Tensor) -> Any:
        return SimpleNamespace(loss=(input_ids.float() @ self.weight.flatten() - labels).square().mean() / 2)


@pytest.mark.parametrize("mask_type", ["unstructured", "block4"])
def test_at_once_it_costs_less_than_by_magnitude(mask_type):
    """Half of a solved regression on inputs that resemble each other goes in one step: the loss right after it.

    Corrections are made as if each weight went alone, so what eight of one block gain comes with recomputations.
    """
    generator = torch.Generator().manual_seed(3)
    mix = torch.randn(16, 16, generator=generator)
    x = (torch.randn(400, 16, generator=generator) @ mix).round()
    y = x @ torch.randn(16, generator=generator) + torch.randn(400, generator=generator)
    solved = torch.linalg.lstsq(x, y[:, None]).solution.flatten()

    def loss_after(kind: type, **fields: Any) -> float:
        columns = {"input_ids": x.long().tolist(), "labels": y.tolist()}
        run = with_rows(make_run(1, 1, model=Regression(solved.tolist())), columns)
        modifier = kind(final_sparsity=0.5, global_sparsity=True, mask_type=mask_type, params=["weight"], **fields)
        modifier.attach(run)
        modifier.before_step(run)
        assert int((run.model.weight == 0).sum()) == 8
        return run.model(x, y).loss.item()

    one_by_one = {"num_grads": 400, "grad_batch_size": 1, "fisher_block_size": 16, "damp": 1e-3}
    in_parts = loss_after(OBSPruning, **one_by_one, num_recomputations=4)
    assert in_parts < 0.75 * loss_after(OBSPruning, **one_by_one)
    assert in_parts < 0.75 * loss_after(MagnitudePruning)


# Refusals


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"final_sparsity": 80}, r"OBSPruning\.final_sparsity=80: .*such as 0\.8 for 80 %"),
        ({"mask_type": "2:4"}, r"OBSPruning\.mask_type='2:4': expected one of unstructured, block4"),
        ({"mask_type": [1, 4]}, r"OBSPruning\.mask_type=\[1, 4\]: expected one of unstructured, block4"),
        ({"num_grads": 0}, r"OBSPruning\.num_grads=0: expected at least 1"),
        ({"num_recomputations": 0}, r"OBSPruning\.num_recomputations=0: expected at least 1"),
        ({"grad_batch_size": 0}, r"OBSPruning\.grad_batch_size=0: expected at least 1"),
        ({"fisher_block_size": 0}, r"OBSPruning\.fisher_block_size=0: expected at least 1"),
        (
            {"fisher_block_size": 50, "mask_type": "block4"},
            r"fisher_block_size=50: mask_type=block4 .* such as 48",
        ),
        ({"damp": 0}, r"OBSPruning\.damp=0\.0: expected a small number above 0"),
        ({"damp": float("nan")}, r"OBSPruning\.damp=nan: expected a small number above 0"),
    ],
)
def test_refusals_name_the_key(fields, message):
    with pytest.raises(ValueError, match=message):
        OBSPruning(**{"final_sparsity": 0.5} | fields)


def test_defaults_are_those_of_sparseml():
    modifier = OBSPruning(final_sparsity=0.5, damp="1e-6")
    assert (modifier.global_sparsity, modifier.fisher_block_size, modifier.num_grads) == (True, 1, 1024)
    assert (modifier.num_recomputations, modifier.mask_type, modifier.leave_enabled) == (1, "unstructured", True)
    assert modifier.damp == 1e-6
    assert OBSPruning(final_sparsity=0.5).damp == 1e-7


def test_rows_that_do_not_divide_into_groups_are_refused_before_training():
    run = product_run([1.0, 2, 3, 4, 5, 6], [[1] * 6])
    with pytest.raises(UserError, match=r"mask_type=block4: 'weight' has 3 inputs, .* multiple of 4"):
        make(run, mask_type="block4", params=["weight"])


def test_gradients_that_rounding_does_not_survive_are_a_user_error():
    run = product_run([1.0, 1, 1, 1], [[9999, -9999, 8000, 1], [9999, 7000, 1, 1], [1, 1, 1, 10000], [5000, 1, 2, 3]])
    modifier = make(run, fisher_block_size=4, num_grads=100, grad_batch_size=1, params=["weight"])
    with pytest.raises(UserError, match=r"'weight' at step 0\. .*damp=1e-07 is too small.*sparsity\.damp=1e-4"):
        modifier.before_step(run)
