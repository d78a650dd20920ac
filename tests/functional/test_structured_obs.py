"""Removal of groups with repair: by hand, and against the least-squares solution of numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparse_xp.functional.structured.obs import (
    DAMPING,
    InputMoments,
    damped_inverse,
    eliminate_groups,
    group_errors,
    remove_columns,
)

#: rounding in float64
EXACT = {"atol": 1e-9, "rtol": 1e-9}


def problem(width: int, outputs: int = 5, tokens: int = 200, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a weight [outputs, width] and inputs [tokens, width] that depend on each other, float64."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(width, width, generator=generator, dtype=torch.float64)
    inputs = torch.randn(tokens, width, generator=generator, dtype=torch.float64) @ mixed
    return torch.randn(outputs, width, generator=generator, dtype=torch.float64), inputs


def mean_product(inputs: torch.Tensor) -> torch.Tensor:
    """The mean of x x^T over the rows of ``inputs``."""
    return inputs.T @ inputs / len(inputs)


def damped_inputs(inputs: torch.Tensor) -> np.ndarray:
    """Rows whose sum of squares has the damping in it: sqrt(damping) I below x / sqrt(tokens)."""
    damping = DAMPING * np.diag(mean_product(inputs).numpy()).mean()
    width = inputs.shape[1]
    return np.concatenate([inputs.numpy() / np.sqrt(len(inputs)), np.sqrt(damping) * np.eye(width)])


def best_weight(weight: torch.Tensor, inputs: torch.Tensor, kept: list[int]) -> np.ndarray:
    """The W' with zeros outside of the columns ``kept`` that minimizes the error, by numpy's least squares."""
    rows = damped_inputs(inputs)
    found = np.zeros(weight.shape)
    found[:, kept] = np.linalg.lstsq(rows[:, kept], rows @ weight.numpy().T, rcond=None)[0].T
    return found


def measured_error(weight: torch.Tensor, other: np.ndarray, inputs: torch.Tensor) -> float:
    """The error of ``other`` in place of ``weight``, summed row by row."""
    return float(np.square(damped_inputs(inputs) @ (weight.numpy() - other).T).sum())


def test_two_inputs_by_hand():
    """H = [[2, 1], [1, 2]], H^-1 = [[2, -1], [-1, 2]] / 3. Without x_0 the best w_1 is 3 + 1/2 * 2, with x_1 alone."""
    second = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    weight = torch.tensor([[2.0, 3.0]], dtype=torch.float64)
    inverse = damped_inverse(second, damping=0.0)
    torch.testing.assert_close(inverse, torch.tensor([[2.0, -1.0], [-1.0, 2.0]], dtype=torch.float64) / 3, **EXACT)
    # w^2 / (2/3): 6 and 13.5
    torch.testing.assert_close(group_errors(weight, inverse, 1), torch.tensor([6.0, 13.5]).double(), **EXACT)
    found = eliminate_groups(weight, second, size=1, keep=1, damping=0.0)
    assert found.order.tolist() == [0]
    torch.testing.assert_close(found.weight, torch.tensor([[0.0, 4.0]]).double(), **EXACT)
    torch.testing.assert_close(found.errors, torch.tensor([6.0]).double(), **EXACT)
    # then all of what is left: w_1^2 H_11
    both = eliminate_groups(weight, second, size=1, keep=0, damping=0.0)
    torch.testing.assert_close(both.errors, torch.tensor([6.0, 32.0]).double(), **EXACT)
    assert both.errors.sum() == pytest.approx(float(weight @ second @ weight.T))


def test_a_copy_of_another_input_is_worth_nothing_and_its_weight_moves_there():
    second = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 4.0]], dtype=torch.float64)
    weight = torch.tensor([[1.0, 2.0, 0.1]], dtype=torch.float64)
    found = eliminate_groups(weight, second, size=1, keep=2, damping=1e-9)
    assert found.order.tolist() == [0]  # the third has a smaller w^2 H_jj, 0.04, but nothing stands for it
    torch.testing.assert_close(found.weight, torch.tensor([[0.0, 3.0, 0.1]]).double(), atol=1e-6, rtol=0)
    assert found.errors.item() < 1e-6


@pytest.mark.parametrize(("size", "at_once"), [(1, 1), (1, 3), (4, 1), (4, 2)])
@pytest.mark.parametrize("keep", [0, 1, 2])
def test_the_repaired_weight_is_the_least_squares_solution(size, at_once, keep):
    weight, inputs = problem(12)
    found = eliminate_groups(weight, mean_product(inputs), size, keep, at_once)
    groups = 12 // size
    left = sorted(set(range(groups)) - set(found.order.tolist()))
    assert (len(left), len(found.order), len(found.errors)) == (keep, groups - keep, groups - keep)
    kept = [group * size + i for group in left for i in range(size)]
    best = best_weight(weight, inputs, kept)
    np.testing.assert_allclose(found.weight.numpy(), best, atol=1e-8)
    assert measured_error(weight, best, inputs) == pytest.approx(found.errors.sum().item(), rel=1e-8)


@pytest.mark.parametrize("size", [1, 3])
def test_a_score_is_the_increase_of_the_error(size):
    """For every group, of a layer that has lost one already."""
    weight, inputs = problem(9, seed=1)
    inverse, changed = damped_inverse(mean_product(inputs)), weight.clone()
    first = list(range(size))
    added = remove_columns(changed, inverse, torch.tensor(first))
    before = measured_error(weight, changed.numpy(), inputs)
    assert added.sum().item() == pytest.approx(before, rel=1e-8)
    scores = group_errors(changed, inverse, size)
    for group in range(1, 9 // size):
        gone = {*first, *range(group * size, group * size + size)}
        best = best_weight(weight, inputs, [i for i in range(9) if i not in gone])
        assert scores[group].item() == pytest.approx(measured_error(weight, best, inputs) - before, rel=1e-7)


def test_columns_together_are_columns_one_by_one():
    weight, inputs = problem(8, seed=2)
    inverse = damped_inverse(mean_product(inputs))
    one_weight, one_inverse = weight.clone(), inverse.clone()
    one = [remove_columns(one_weight, one_inverse, torch.tensor([column])).item() for column in (5, 0, 6)]
    errors = remove_columns(weight, inverse, torch.tensor([5, 0, 6]))
    torch.testing.assert_close(errors, torch.tensor(one, dtype=torch.float64), **EXACT)
    torch.testing.assert_close(weight, one_weight, **EXACT)
    torch.testing.assert_close(inverse, one_inverse, **EXACT)
    assert not weight[:, [0, 5, 6]].any()


def test_the_group_that_goes_next_is_the_one_of_the_least_error_now():
    weight, inputs = problem(6, seed=3)
    found = eliminate_groups(weight, mean_product(inputs), size=1, keep=0)
    for done in range(5):
        left = found.order[done:].tolist()
        errors = [
            measured_error(weight, best_weight(weight, inputs, [i for i in left if i != column]), inputs)
            for column in left
        ]
        assert int(np.argmin(errors)) == 0


def test_repair_is_better_than_zeros_and_than_a_repair_of_single_columns():
    weight, inputs = problem(16, seed=4)
    found = eliminate_groups(weight, mean_product(inputs), size=1, keep=8)
    zeroed = weight.clone()
    zeroed[:, found.order] = 0
    assert found.errors.sum().item() < 0.7 * measured_error(weight, zeroed.numpy(), inputs)


def test_inputs_that_are_always_zero():
    weight = torch.ones(2, 4, dtype=torch.float64)
    second = torch.diag(torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64))
    found = eliminate_groups(weight, second, size=1, keep=2)
    assert sorted(found.order.tolist()) == [0, 2]
    torch.testing.assert_close(found.weight, torch.tensor([[0.0, 1, 0, 1]] * 2).double(), **EXACT)
    nothing = eliminate_groups(weight, torch.zeros(4, 4, dtype=torch.float64), size=2, keep=1)
    assert nothing.order.tolist() == [1]  # of equal errors the first ones stay
    assert nothing.weight.isfinite().all()


def test_moments_are_those_of_all_tokens():
    inputs = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)) + 2
    moments = InputMoments.of_width(3)
    moments.add(inputs[:7].half().float())
    moments.add(inputs[7:])
    inputs[:7] = inputs[:7].half()
    kept = torch.tensor([True, False, True])
    some = inputs[:, kept].double()
    assert moments.count == 20
    torch.testing.assert_close(moments.mean(kept), some.mean(0), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(moments.second(kept, centred=False), mean_product(some), atol=1e-5, rtol=1e-5)
    variance = torch.cov(some.T, correction=0)
    torch.testing.assert_close(moments.second(kept, centred=True), variance, atol=1e-5, rtol=1e-5)


def test_moments_are_float32_under_autocast():
    inputs = torch.randn(4096, 2, generator=torch.Generator().manual_seed(0))
    moments = InputMoments.of_width(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        moments.add(inputs)
    found = moments.second(torch.tensor([True, True]), centred=True)
    torch.testing.assert_close(found, torch.cov(inputs.double().T, correction=0), atol=1e-6, rtol=1e-5)


def test_a_large_mean_does_not_hide_the_variance():
    inputs = 1000 + torch.randn(4096, 2, generator=torch.Generator().manual_seed(0))
    moments = InputMoments.of_width(2)
    moments.add(inputs[:2000])
    moments.add(inputs[2000:])
    found = moments.second(torch.tensor([True, True]), centred=True)
    torch.testing.assert_close(found, torch.cov(inputs.double().T, correction=0), atol=1e-4, rtol=1e-4)
