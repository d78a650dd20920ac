"""Zeroing groups while a model trains, and cutting them out of it at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sparse_xp.functional.layers import bypass_layers, remove_bypassed
from sparse_xp.functional.masks import multiply_gradients, multiply_weights
from sparse_xp.functional.quant_modules import QuantLinear
from sparse_xp.functional.structured.blocks import LayerMask, LinearMask, encoder_blocks, linear_at
from sparse_xp.functional.structured.config import full_shape, record_structure, removed_layer_numbers
from sparse_xp.functional.structured.heads import head_numbers, select_head_bias, set_head_count

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def group_factors(module: nn.Linear, mask: LinearMask) -> list[tuple[nn.Parameter, Tensor]]:
    """Return the parameters of ``module`` that lose rows or columns by ``mask``, each with what to multiply it with.

    On a CPU a factor has one number for each row or column. Elsewhere it has the shape of the parameter, because a GPU
    multiplies many tensors in one call only by tensors of their shapes.
    """
    rows, columns = mask
    factor = torch.ones_like(module.weight.data[:1, :1])
    for kept in (None if rows is None else rows[:, None], columns):
        factor = factor if kept is None else factor * kept
    pairs = [(module.get_parameter("weight"), factor)]
    if rows is not None and module.bias is not None:
        pairs.append((module.get_parameter("bias"), factor[:, 0]))
    if factor.device.type != "cpu":
        pairs = [(parameter, values.expand_as(parameter).contiguous()) for parameter, values in pairs]
    return [] if factor.all() else pairs


def zero_groups(module: nn.Linear, mask: LinearMask, gradients: bool = False) -> None:
    """Zero the rows and columns of ``module`` that ``mask`` does not keep; with ``gradients`` those of the gradient."""
    multiply = multiply_gradients if gradients else multiply_weights
    for parameter, factor in group_factors(module, mask):
        multiply([parameter], [factor])


def count_nonzero_groups(module: nn.Linear, mask: LinearMask) -> int:
    """Return how many weights of ``module`` that ``mask`` does not keep differ from zero."""
    rows, columns = mask
    count = 0 if rows is None else int(module.weight.detach()[~rows].count_nonzero())
    count += 0 if rows is None or module.bias is None else int(module.bias.detach()[~rows].count_nonzero())
    return count + (0 if columns is None else int(module.weight.detach()[:, ~columns].count_nonzero()))


def select_groups(values: Tensor, mask: LinearMask) -> Tensor:
    """Return the rows and columns of a matrix that ``mask`` keeps; of a vector the rows."""
    rows, columns = mask
    values = values if rows is None else values[rows]
    return (values if columns is None or values.ndim == 1 else values[:, columns]).contiguous()


def replace_values(parameter: Tensor, values: Tensor) -> None:
    """Give ``parameter`` other ``values``, of any shape and its own type; it can train on with them.

    As long as something holds the graph of an earlier step, PyTorch keeps what adds up the gradients of the parameter,
    which knows the old shape. It makes a new one only when the type changes.
    """
    other = torch.float32 if values.dtype == torch.float16 else torch.float16
    parameter.data = values.new_empty(0, dtype=other)
    parameter.data = values


def shrink(module: nn.Linear, mask: LinearMask) -> None:
    """Cut ``module`` down to ``mask`` in place; its parameters stay the same objects, and lose their gradients."""
    for parameter in (module.weight, module.bias):
        if parameter is not None:
            parameter.grad = None
            replace_values(parameter, select_groups(parameter.data, mask))
    module.out_features, module.in_features = module.weight.shape
    # A frozen scale for each output row is cut like the bias.
    if isinstance(module, QuantLinear) and module.quant.scale is not None and module.quant.scale.ndim:
        module.quant.scale = select_groups(module.quant.scale, mask)


def is_removed(mask: LayerMask) -> bool:
    """Return whether a layer has no head and no neuron left."""
    return not any(bool(groups.any()) for groups in mask)


def remove_groups(model: PreTrainedModel, kept: Mapping[str, LayerMask]) -> None:
    """Remove the heads and neurons that are not ``kept`` (masks by layer), and record it in the configuration.

    A layer without remaining heads and neurons is removed as a whole; the layers after it are renumbered.
    """
    cut_groups(model, kept)
    remove_bypassed(model)


def cut_groups(model: PreTrainedModel, kept: Mapping[str, LayerMask]) -> None:
    """Do as ``remove_groups``, but leave a ``Bypass`` for a removed layer, so that the others keep their names."""
    shape, removed, blocks = full_shape(model), removed_layer_numbers(model), encoder_blocks(model)
    # The numbers that the layers of this model have in the full model.
    numbers = [number for number in range(len(blocks) + len(removed)) if number not in removed]
    for number, block in zip(numbers, blocks, strict=True):
        if is_removed(kept[block.name]):
            bypass_layers(model, [block.name])
            removed.append(number)
            continue
        heads = kept[block.name][0]
        numbers_of_heads = head_numbers(model, block, len(heads))
        for name, mask in block.linear_masks(*kept[block.name]).items():
            shrink(linear_at(model, name), mask)
        set_head_count(model, block, int(heads.sum()))
        left = numbers_of_heads.to(heads.device)[heads]
        select_head_bias(model, block, None if len(left) == shape.heads else left)
    record_structure(model, shape, sorted(removed))
