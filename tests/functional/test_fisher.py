"""The inverse of the Fisher information in blocks, on numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparse_xp.functional.fisher import add_gradient, first_inverse, in_blocks, obs_scores, prune_and_compensate


def estimate(gradients: list[list[float]], size: int, damp: float) -> Tensor:
    inverse = first_inverse(len(gradients[0]), size, damp)
    for gradient in gradients:
        add_gradient(inverse, torch.tensor(gradient), len(gradients))
    return inverse


def close(found: Tensor, expected: list) -> None:
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-6)


#: recorded from SparseML: two blocks of four weights, two gradients, damp 0.5
GRADIENTS = [[1.0, 0, 0, 0, 0, 0, 0, 0], [0.0, 1, 0, 0, 1, 1, 0, 0]]
WEIGHT = [1.0, 1, 1, 1, 1, 2, 0, 1]


def test_blocks_are_row_major_and_the_last_is_filled_up_with_zeros():
    assert in_blocks(torch.arange(1, 7).view(2, 3), 4).tolist() == [[1, 2, 3, 4], [5, 6, 0, 0]]
    assert in_blocks(torch.arange(1, 5).view(2, 2), 4).tolist() == [[1, 2, 3, 4]]


def test_the_inverse_before_any_gradient():
    assert first_inverse(3, 2, 0.5).tolist() == [[[2, 0], [0, 2]], [[2, 0], [0, 2]]]


def test_one_block_of_two():  # the inverse of [[2, 1], [1, 2]]
    inverse = estimate([[1.0, 1.0]], size=2, damp=1.0)
    close(inverse, [[[2 / 3, -1 / 3], [-1 / 3, 2 / 3]]])
    weight = torch.tensor([1.0, 2.0])
    close(obs_scores(inverse, weight), [0.75, 3.0])
    close(prune_and_compensate(inverse, weight, torch.tensor([True, False])), [0.0, 2.5])


def test_two_blocks_of_four():  # recorded from SparseML 1.x
    inverse = estimate(GRADIENTS, size=4, damp=0.5)
    close(inverse[0], torch.diag(torch.tensor([1.0, 1, 2, 2])).tolist())
    close(inverse[1], [[4 / 3, -2 / 3, 0, 0], [-2 / 3, 4 / 3, 0, 0], [0, 0, 2, 0], [0, 0, 0, 2]])
    weight = torch.tensor(WEIGHT)
    close(obs_scores(inverse, weight), [0.5, 0.5, 0.25, 0.25, 0.375, 1.5, 0, 0.25])
    pruned = torch.zeros(8, dtype=torch.bool)
    pruned[[1, 4]] = True
    close(prune_and_compensate(inverse, weight, pruned), [1.0, 0, 1, 1, 0, 2.5, 0, 1])


def test_groups_of_four():  # recorded from SparseML 1.x
    inverse = estimate(GRADIENTS, size=4, damp=0.5)
    weight = torch.tensor(WEIGHT).view(1, 8)
    close(obs_scores(inverse, weight, group=4), [[1.5] * 4 + [3.75] * 4])
    pruned = torch.tensor([[True] * 4 + [False] * 4])
    close(prune_and_compensate(inverse, weight, pruned, group=4), [[0.0, 0, 0, 0, 1, 2, 0, 1]])


def test_two_groups_in_one_block_make_up_for_each_other():
    # F = I + g g^T with g = (1, 0, 0, 0, 1, 0, 0, 0) has the inverse I - g g^T / 3: the first weight of either group
    # has 2/3 on the diagonal and -1/3 between. So without the second group, whose first weight is 3, the first
    # weight of the first gets -(-1/3) * 3 / (2/3) = 1.5 more; the group's cost is (3 * 3 / (2/3) + 0) / 2 = 6.75.
    inverse = estimate([[1.0, 0, 0, 0, 1, 0, 0, 0]], size=8, damp=1.0)
    weight = torch.tensor([1.0, 2, 0, 0, 3, 0, 0, 0])
    close(obs_scores(inverse, weight, group=4), [(1 * 1.5 + 4) / 2] * 4 + [6.75] * 4)
    pruned = torch.tensor([False] * 4 + [True] * 4)
    close(prune_and_compensate(inverse, weight, pruned, group=4), [2.5, 2, 0, 0, 0, 0, 0, 0])


def test_it_is_the_inverse_of_damp_and_the_mean_of_outer_products():
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(20, 10, generator=generator)  # blocks of 4: two whole ones, and two weights over
    inverse = estimate(gradients.tolist(), size=4, damp=0.1)
    fisher = 0.1 * torch.eye(10, dtype=torch.float64) + (gradients.double().T @ gradients.double()) / 20
    assert inverse.shape == (3, 4, 4)
    for block, part in enumerate((slice(0, 4), slice(4, 8), slice(8, 10))):
        n = part.stop - part.start
        expected = torch.linalg.inv(fisher[part, part]).float()
        torch.testing.assert_close(inverse[block, :n, :n], expected, rtol=1e-4, atol=1e-5)
    close(inverse[2, 2:, :], [[0.0, 0, 10, 0], [0.0, 0, 0, 10]])  # nothing is known of what is not there
    assert inverse.equal(inverse.transpose(1, 2))


def test_the_correction_is_the_best_one_for_a_single_weight():
    # Among all changes that set weight 1 to zero, w - F^-1 e w / F^-1_qq has the least dw^T F dw: its gradient
    # F dw is zero in all other places.
    generator = torch.Generator().manual_seed(1)
    gradients = torch.randn(6, 4, generator=generator)
    weight = torch.randn(4, generator=generator)
    inverse = estimate(gradients.tolist(), size=4, damp=0.5)
    change = prune_and_compensate(inverse, weight, torch.tensor([False, True, False, False])) - weight
    fisher = 0.5 * torch.eye(4) + gradients.T @ gradients / 6
    close((fisher @ change)[[0, 2, 3]], [0.0, 0.0, 0.0])
    # and the loss that it costs is the score
    assert 0.5 * change @ fisher @ change == pytest.approx(obs_scores(inverse, weight)[1].item(), rel=1e-5)


@pytest.mark.parametrize("size", [1, 3, 50])
def test_results_have_the_shape_of_the_weight(size):
    weight = torch.randn(3, 5, dtype=torch.bfloat16)
    inverse = first_inverse(15, size, 1e-7)
    add_gradient(inverse, torch.randn(3, 5), 1)
    assert obs_scores(inverse, weight).shape == (3, 5)
    corrected = prune_and_compensate(inverse, weight, torch.eye(3, 5, dtype=torch.bool))
    assert (corrected.shape, corrected.dtype) == ((3, 5), torch.bfloat16)
    assert corrected[torch.eye(3, 5, dtype=torch.bool)].eq(0).all()


def test_blocks_of_one_are_the_diagonal():
    # 1 / (0.5 + (4 + 0) / 2) = 0.4 and 1 / (0.5 + (0 + 9) / 2) = 0.2
    inverse = estimate([[2.0, 0.0], [0.0, 3.0]], size=1, damp=0.5)
    close(inverse, [[[0.4]], [[0.2]]])
    weight = torch.tensor([1.0, 0.5])
    close(obs_scores(inverse, weight), [1.25, 0.625])
    close(
        prune_and_compensate(inverse, weight, torch.tensor([True, False])), [0.0, 0.5]
    )  # no neighbour to make up for it
