"""Masks from scores, as pure functions.

Sparsity is a fraction in [0, 1], never per cent. A mask is a bool tensor shaped like its weight; True keeps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparse_xp.functional.patterns import Pattern


def magnitude_scores(weight: Tensor) -> Tensor:
    """Return |w| in float32, detached, shaped like ``weight``."""
    return weight.detach().float().abs()


def multiply_weights(parameters: list[nn.Parameter], factors: list[Tensor]) -> None:
    """Multiply each parameter by its factor, in place; all in one call, which a GPU starts once."""
    torch._foreach_mul_([parameter.data for parameter in parameters], factors)


def multiply_gradients(parameters: list[nn.Parameter], factors: list[Tensor]) -> None:
    """Multiply the gradient of each parameter that has one by its factor, in place."""
    pairs = [(each.grad, factor) for each, factor in zip(parameters, factors, strict=True) if each.grad is not None]
    if pairs:
        torch._foreach_mul_([gradient for gradient, _ in pairs], [factor for _, factor in pairs])


def mask_from_scores(scores: Tensor, sparsity: float, pattern: Pattern) -> Tensor:
    """Return a bool mask that prunes the ``round(n * sparsity)`` lowest of n scores, or of n blocks; True keeps.

    ``round`` is Python's: halves round to the even count, as in SparseML. The score of a block is the mean of its
    elements; ``block4`` makes the remainder of a row one shorter block. Of equal scores the first flat indices are
    kept, without random numbers. SparseML does the same, with one exception: if the threshold is the lowest score of
    all, it draws with ``random.Random(42)``.

    N:M ignores the level: for any ``sparsity`` above 0, every run of M inputs keeps its N highest scores, of equal
    scores the *last* ones, again as in SparseML.

    Raises ValueError for a sparsity outside [0, 1], NaN scores, or a shape the pattern does not divide.
    """
    return global_masks({"weight": scores}, sparsity, pattern)["weight"]


def global_masks(scores: dict[str, Tensor], sparsity: float, pattern: Pattern) -> dict[str, Tensor]:
    """Return masks under one threshold for all tensors: :func:`mask_from_scores` of their joined (block) scores.

    N:M has no threshold: its masks are the same as tensor by tensor.
    """
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity={sparsity}; expected a fraction in [0, 1]")
    if pattern.kind == "n_m" or not scores:
        return {name: _n_m_mask(name, matrix, sparsity, pattern) for name, matrix in scores.items()}
    units = {name: _unit_scores(name, matrix, pattern) for name, matrix in scores.items()}
    keep = _keep_highest(torch.cat([unit.flatten() for unit in units.values()]), sparsity)
    parts = keep.split([unit.numel() for unit in units.values()])
    masks = (part.view_as(unit) for part, unit in zip(parts, units.values(), strict=True))
    return {name: _spread(mask, pattern, scores[name].shape) for name, mask in zip(units, masks, strict=True)}


def _keep_highest(scores: Tensor, sparsity: float) -> Tensor:
    """Return a flat mask without the ``round(n * sparsity)`` lowest of n flat scores."""
    num_pruned = round(scores.numel() * sparsity)
    if num_pruned == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    # A stable sort would be simpler and ten times slower; kthvalue may not run deterministically on CUDA.
    num_kept = scores.numel() - num_pruned
    threshold = scores.topk(num_kept + 1, sorted=False).values.min()
    keep = scores > threshold
    if num_ties_kept := num_kept - int(keep.sum()):
        ties = (scores == threshold).nonzero().squeeze(1)
        keep[ties[:num_ties_kept]] = True
    return keep


def _unit_scores(name: str, scores: Tensor, pattern: Pattern) -> Tensor:
    """Return the scores to rank: the scores themselves, or the mean of each tile [out / rows, in / cols]."""
    scores = scores.detach().float()
    if pattern.kind == "unstructured":
        return _checked(name, scores)
    rows, cols = pattern.rows, pattern.cols
    _checked(name, scores, (rows, 1 if pattern.pad else cols), f"blocks [{rows}, {cols}]")
    num_tiles, remainder = divmod(scores.shape[1], cols)
    full, rest = scores.split([num_tiles * cols, remainder], dim=1)
    means = full.unflatten(1, (num_tiles, cols)).unflatten(0, (-1, rows)).mean(dim=(1, 3))
    # Padding the rest with its own mean, as block4 is defined, leaves that mean as the score.
    return torch.cat([means, rest.mean(dim=1, keepdim=True)], dim=1) if remainder else means


def _spread(unit_mask: Tensor, pattern: Pattern, shape: torch.Size) -> Tensor:
    """Expand a mask of units to ``shape`` [out, in]: repeat each unit over its tile and cut off the padding."""
    if pattern.kind == "unstructured":
        return unit_mask.clone()  # a view would carry the storage of every tensor into a checkpoint
    mask = unit_mask.repeat_interleave(pattern.rows, dim=0).repeat_interleave(pattern.cols, dim=1)
    return mask[:, : shape[1]].contiguous()


def _n_m_mask(name: str, scores: Tensor, sparsity: float, pattern: Pattern) -> Tensor:
    """Return a mask [out, in] that keeps the n highest of every m inputs; all of them for a ``sparsity`` of 0."""
    _checked(name, scores, (1, pattern.m), f"the runs of mask_type '{pattern.n}:{pattern.m}'")
    runs = scores.unflatten(1, (-1, pattern.m))
    keep = torch.ones_like(runs, dtype=torch.bool)
    if sparsity > 0:
        lowest = runs.argsort(dim=-1, stable=True)[..., : pattern.m - pattern.n]
        keep.scatter_(-1, lowest, False)
    return keep.flatten(1)


def _checked(name: str, scores: Tensor, tile: tuple[int, int] | None = None, tiles: str = "") -> Tensor:
    """Return ``scores``. Raises ValueError for NaN, and (given a tile) unless they are a matrix that it divides."""
    if tile and scores.dim() != 2:
        raise ValueError(
            f"'{name}' of shape {tuple(scores.shape)} is no matrix [out, in], which {tiles} are for. Leave it out "
            "(exclude), or write mask_type=unstructured"
        )
    if tile and (scores.shape[0] % tile[0] or scores.shape[1] % tile[1]):
        raise ValueError(f"'{name}' of shape {tuple(scores.shape)} (out, in) does not divide into {tiles}")
    if scores.isnan().any():
        raise ValueError(f"the scores of '{name}' hold NaN: its weights hold NaN, training has diverged")
    return scores
