"""Optimal Brain Surgeon on blocks of weights, as pure functions (Kurtic et al. 2022, arXiv:2203.07259).

The Fisher information of d weights is approximated by its diagonal blocks of B consecutive weights (row-major). Only
the inverse of the blocks is stored: [ceil(d / B), B, B], which is d * B floats. All tensors are float32, detached.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: added to the denominator of a score, as in SparseML
EPSILON = torch.finfo(torch.float32).eps


def in_blocks(values: Tensor, size: int) -> Tensor:
    """Return the elements row by row, float32 [blocks, size]; the last block is padded with zeros."""
    flat = values.detach().float().flatten()
    return torch.nn.functional.pad(flat, (0, -flat.numel() % size)).view(-1, size)


def first_inverse(weights: int, size: int, damp: float, device: torch.device | None = None) -> Tensor:
    """Return the inverse before any gradient: (1 / damp) * identity in each of [ceil(weights / size), size, size]."""
    blocks = -(-weights // size)
    return torch.eye(size, device=device).div_(damp).repeat(blocks, 1, 1)


def add_gradient(inverse: Tensor, gradient: Tensor, num_grads: int) -> None:
    """Add one of ``num_grads`` gradients (any shape) to ``inverse`` [blocks, B, B], in place.

    F^-1 <- F^-1 - (F^-1 g)(F^-1 g)^T / (m + g^T F^-1 g) in each block: Sherman-Morrison for adding g g^T / m
    (Kurtic et al. 2022, eq. 5). After m gradients this is the inverse of damp * I + the mean of g g^T.
    """
    g = in_blocks(gradient, inverse.shape[-1])
    step = torch.bmm(inverse, g.unsqueeze(2)).squeeze(2)
    # The product is negative only by rounding.
    step /= (num_grads + (g * step).sum(1, keepdim=True).clamp_(min=0)).sqrt_()
    # One product of v with itself: the blocks stay symmetric to the last bit.
    inverse.baddbmm_(step.unsqueeze(2), step.unsqueeze(1), alpha=-1)


def obs_scores(inverse: Tensor, weight: Tensor, group: int = 1) -> Tensor:
    """Return the expected rise of the loss without a weight, or without its ``group`` of consecutive weights.

    w^2 / (2 [F^-1]_ww + eps), or 1/2 w_Q^T (F^-1_QQ)^-1 w_Q for all weights of group Q (Kurtic et al. 2022, eq. 3 and
    section 3.2). Shaped like ``weight``, float32. ``group`` divides B and the number of weights.
    """
    w = in_blocks(weight, inverse.shape[-1])
    if group == 1:
        scores = w.square() / (2 * _diagonal(inverse) + EPSILON)
    else:
        coefficients = _group_solution(inverse, w, group)
        scores = (0.5 * (w * coefficients).unflatten(1, (-1, group)).sum(-1)).repeat_interleave(group, dim=1)
    return scores.flatten()[: weight.numel()].view_as(weight)


def prune_and_compensate(inverse: Tensor, weight: Tensor, pruned: Tensor, group: int = 1) -> Tensor:
    """Return ``weight`` with the ``pruned`` elements (bool, same shape) zero and the others of their block corrected.

    w - F^-1[:, Q] (F^-1_QQ)^-1 w_Q, summed over the pruned weights (or groups) of a block as if each were pruned alone
    (Kurtic et al. 2022, eq. 4; SparseML does the same). Shaped and typed like ``weight``.
    """
    size = inverse.shape[-1]
    w, removed = in_blocks(weight, size), in_blocks(pruned, size).bool()
    coefficients = w / (_diagonal(inverse) + EPSILON) if group == 1 else _group_solution(inverse, w, group)
    change = torch.bmm(inverse, (coefficients * removed).unsqueeze(2)).squeeze(2)
    corrected = (w - change).masked_fill_(removed, 0.0)
    return corrected.flatten()[: weight.numel()].view_as(weight).to(weight.dtype)


def _diagonal(inverse: Tensor) -> Tensor:
    """Return the diagonal [blocks, B]. Huge curvature makes it negative by rounding; 0 then gives a large score."""
    return inverse.diagonal(dim1=1, dim2=2).clamp(min=0)


def _group_solution(inverse: Tensor, w: Tensor, group: int) -> Tensor:
    """Return (F^-1_QQ)^-1 w_Q for every group Q of consecutive weights, [blocks, B]."""
    blocks, size = w.shape
    tiles = inverse.view(blocks, size // group, group, size // group, group)
    small = tiles.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)  # [blocks, groups, group, group]
    # In double precision, because a small damp leaves these blocks nearly singular; they are only group x group.
    solved: Tensor = torch.linalg.solve_ex(small.double(), w.view(blocks, -1, group, 1).double()).result
    return solved.float().view(blocks, size)
