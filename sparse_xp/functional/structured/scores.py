"""Importance scores of groups of weights: derivatives by a gate, or sums of squares."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sparse_xp.functional.structured.blocks import Block, linear_at


def gate_gradients(weight: Tensor, gradient: Tensor, size: int) -> Tensor:
    """Return dL/dg for a gate g = 1 on each group of ``size`` inputs: the sum of weight * gradient over its columns.

    ``weight``, ``gradient``: [out, groups * size] of the Linear that reads the groups; returns [groups], float32. With
    one gate per head this is the quantity of Michel et al. 2019, arXiv:1905.10650, for a batch instead of a row.
    """
    columns: Tensor = torch.linalg.vecdot(weight.detach().float(), gradient.detach().float(), dim=0)
    return columns if size == 1 else columns.view(-1, size).sum(1)


def squared_norms(matrices: Sequence[tuple[Tensor, Tensor | None]], output: Tensor, size: int) -> Tensor:
    """Return the sum of squares of all weights of each group, [groups], float32.

    ``matrices``: weight [groups * size, in] and bias [groups * size] of the Linears that write the groups. ``output``:
    weight [out, groups * size] of the Linear that reads them.
    """
    total = output.detach().float().square().sum(0)
    for weight, bias in matrices:
        total = total + weight.detach().float().square().sum(1)
        if bias is not None:
            total = total + bias.detach().float().square()
    return total.view(-1, size).sum(1)


def block_norms(model: nn.Module, block: Block) -> tuple[Tensor, Tensor]:
    """Return ``squared_norms`` of the heads [heads] and of the neurons [neurons] of a layer."""
    inputs, ups = (
        [matrix for name in names for matrix in matrices_of(linear_at(model, name), parts)]
        for names, parts in ((block.inputs, block.input_parts), (block.ups, block.up_parts))
    )
    return (
        squared_norms(inputs, linear_at(model, block.output).weight, block.head_size),
        squared_norms(ups, linear_at(model, block.down).weight, 1),
    )


def matrices_of(module: nn.Linear, parts: int) -> list[tuple[Tensor, Tensor | None]]:
    """Return weight [out / parts, in] and bias [out / parts] of each of the ``parts`` that a fused Linear stacks."""
    weights = module.weight.chunk(parts)
    return list(zip(weights, [None] * parts if module.bias is None else module.bias.chunk(parts), strict=True))


def without_lowest(scores: Tensor, alive: Tensor, keep: int) -> Tensor:
    """Return ``alive`` [groups], bool, without its lowest ``scores``, so that ``keep`` groups are left.

    Of equal scores the first ones are kept.
    """
    ranked = scores.masked_fill(~alive, -torch.inf).argsort(descending=True, stable=True)
    kept = torch.zeros_like(alive)
    kept[ranked[:keep]] = True
    return kept & alive
