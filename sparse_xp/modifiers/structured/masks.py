"""The masks of a model's heads and neurons: applied, checked, and handed on when the groups are cut out.

Masks are by name of the layer: bool [heads] and [neurons], True keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from sparse_xp.functional.cost_model import Size
from sparse_xp.functional.structured.blocks import Block, LayerMask, LinearMask, linear_at
from sparse_xp.functional.structured.removal import count_nonzero_groups, group_factors, is_removed, select_groups


def full_masks(model: nn.Module, blocks: Sequence[Block], sizes: Sequence[Size]) -> dict[str, LayerMask]:
    """Return masks that keep everything, on the device of the model."""
    device = linear_at(model, blocks[0].down).weight.device
    return {
        block.name: (
            torch.ones(heads, dtype=torch.bool, device=device),
            torch.ones(neurons, dtype=torch.bool, device=device),
        )
        for block, (heads, neurons) in zip(blocks, sizes, strict=True)
    }


def masked_linears(
    model: nn.Module, blocks: Sequence[Block], masks: Mapping[str, LayerMask]
) -> Iterator[tuple[str, nn.Linear, LinearMask]]:
    """Yield name, module and mask of every Linear; none as long as there are no masks."""
    for block in blocks if masks else ():
        for name, mask in block.linear_masks(*masks[block.name]).items():
            yield name, linear_at(model, name), mask


def removal_factors(
    model: nn.Module, blocks: Sequence[Block], masks: Mapping[str, LayerMask]
) -> tuple[list[nn.Parameter], list[Tensor]]:
    """Return the parameters with weights of removed groups, and what to multiply each of them with."""
    pairs = [pair for _, module, mask in masked_linears(model, blocks, masks) for pair in group_factors(module, mask)]
    return [parameter for parameter, _ in pairs], [factor for _, factor in pairs]


def check_removed(model: nn.Module, blocks: Sequence[Block], masks: Mapping[str, LayerMask], step: int) -> None:
    """Raise RuntimeError if a removed weight is not zero after ``step``."""
    for name, module, mask in masked_linears(model, blocks, masks):
        if revived := count_nonzero_groups(module, mask):
            raise RuntimeError(f"{revived} removed weights of {name} are no longer zero at step {step}.")


def parameter_cuts(
    model: nn.Module, blocks: Sequence[Block], masks: Mapping[str, LayerMask]
) -> dict[str, Callable[[Tensor], Tensor] | None]:
    """Return, by name of the parameter, a function that cuts a tensor of its shape; None where a layer is removed."""
    cuts: dict[str, Callable[[Tensor], Tensor] | None] = {
        f"{name}.{parameter}": partial(select_groups, mask=mask)
        for name, _, mask in masked_linears(model, blocks, masks)
        for parameter in ("weight", "bias")
    }
    removed = tuple(f"{name}." for name, mask in masks.items() if is_removed(mask))
    return cuts | {name: None for name, _ in model.named_parameters() if name.startswith(removed)}
