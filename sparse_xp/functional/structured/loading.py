"""Building a reduced model from its config.json, and expanding it to its full shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from sparse_xp.errors import UserError
from sparse_xp.files.model_directory import CHECKPOINT_ADVICE
from sparse_xp.functional.architectures import neurons_key
from sparse_xp.functional.cost_model import LayerShape, Size
from sparse_xp.functional.factored_embeddings import FACTOR_KEY, resize_embeddings, unfactor
from sparse_xp.functional.structured.blocks import (
    Block,
    LayerMask,
    LinearMask,
    encoder_blocks,
    linear_at,
    sizes_of,
)
from sparse_xp.functional.structured.config import STRUCTURE_KEY, full_shape, is_reduced, structure_error
from sparse_xp.functional.structured.heads import head_numbers, select_head_bias, set_head_count

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

M = TypeVar("M", bound="PreTrainedModel")


def reduced_class(cls: type[M], config: PreTrainedConfig) -> type[M]:
    """Return a subclass of ``cls`` whose modules have the reduced sizes of ``config``; ``cls`` for a full model.

    Raises UserError for impossible sizes.
    """
    if not is_reduced(config):
        return cls
    structure, dimensions = getattr(config, STRUCTURE_KEY, None), getattr(config, FACTOR_KEY, None)
    if wrong := structure_error(structure):
        raise UserError(f"config.json is damaged: its {STRUCTURE_KEY!r} {wrong}. {CHECKPOINT_ADVICE}")

    def __init__(self: M, config: PreTrainedConfig, *args: object, **kwargs: object) -> None:
        cls.__init__(self, config, *args, **kwargs)
        if dimensions:
            resize_embeddings(self, dimensions)
        if not structure:
            return
        try:
            resize_layers(self, list(zip(structure["heads"], structure["neurons"], strict=True)))
        except (KeyError, ValueError) as error:
            raise UserError(
                f"config.json is damaged: its {STRUCTURE_KEY!r} {structure} is of other layers. {CHECKPOINT_ADVICE}"
            ) from error

    # The name of the stock class: save_pretrained writes it into config.json as the architecture.
    return type(cls.__name__, (cls,), {"__init__": __init__, "__module__": cls.__module__})


def resize_layers(model: PreTrainedModel, sizes: Sequence[Size]) -> None:
    """Give each encoder layer Linears for so many heads and neurons. Those that change have fresh weights."""
    for block, (heads, neurons) in zip(encoder_blocks(model), sizes, strict=True):
        hidden, width = linear_at(model, block.down).out_features, heads * block.head_size
        shapes = {
            **dict.fromkeys(block.inputs, (hidden, width * block.input_parts)),
            block.output: (width, hidden),
            **dict.fromkeys(block.ups, (hidden, neurons * block.up_parts)),
            block.down: (neurons, hidden),
        }
        set_head_count(model, block, heads)
        is_full = heads == model.config.num_attention_heads
        select_head_bias(model, block, None if is_full else torch.arange(heads))
        for name, (inputs, outputs) in shapes.items():
            old = linear_at(model, name)
            if (old.in_features, old.out_features) != (inputs, outputs):
                parent, _, child = name.rpartition(".")
                new = nn.Linear(inputs, outputs, bias=old.bias is not None, device=old.weight.device)
                setattr(model.get_submodule(parent), child, new)


def expand_model(model: PreTrainedModel) -> None:
    """Undo removal in place, with the same logits: removed heads and neurons come back as zeros.

    They come back behind the others, and where a head has a bias of its own, in their old places.

    Layers get their full shape, which stock ``from_pretrained`` loads, and are as slow as before. Layers that were
    removed whole stay removed: no weights make a layer with LayerNorms the identity. Factored embeddings become one
    table.
    """
    unfactor(model)
    if not getattr(model.config, STRUCTURE_KEY, None):
        return
    shape, sizes, blocks = full_shape(model), sizes_of(model), encoder_blocks(model)
    kept = [_kept_groups(model, block, size, shape) for block, size in zip(blocks, sizes, strict=True)]
    old = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    resize_layers(model, [(shape.heads, shape.neurons)] * len(blocks))
    for block, groups in zip(blocks, kept, strict=True):
        for name, mask in block.linear_masks(*groups).items():
            _fill(linear_at(model, name), old[name], mask)
    setattr(model.config, neurons_key(model.config), shape.neurons)
    delattr(model.config, STRUCTURE_KEY)


def _kept_groups(model: nn.Module, block: Block, size: Size, shape: LayerShape) -> LayerMask:
    """Return masks of the full ``shape``: True for the heads and neurons that the layer of this ``size`` has."""
    heads, neurons = torch.zeros(shape.heads, dtype=torch.bool), torch.arange(shape.neurons) < size[1]
    heads[head_numbers(model, block, size[0]).cpu()] = True
    return heads, neurons


@torch.no_grad()
def _fill(module: nn.Linear, old: nn.Linear, mask: LinearMask) -> None:
    """Copy the weights of ``old`` to the rows and columns of ``module`` that ``mask`` keeps; the others become zero."""
    if module is old:
        return
    rows, columns = (
        torch.arange(size) if kept is None else kept.nonzero().flatten()
        for size, kept in zip(module.weight.shape, mask, strict=True)
    )
    module.weight.zero_()
    module.weight[rows[:, None], columns] = old.weight
    if module.bias is not None:
        module.bias.zero_()
        module.bias[rows] = old.bias
