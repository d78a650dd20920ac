"""Building a reduced model from its config.json, and expanding it to its full shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from torch import nn

from sparse_xp.errors import UserError
from sparse_xp.files.model_directory import CHECKPOINT_ADVICE
from sparse_xp.functional.architectures import neurons_key
from sparse_xp.functional.cost_model import Size
from sparse_xp.functional.factored_embeddings import FACTOR_KEY, resize_embeddings, unfactor
from sparse_xp.functional.structured.blocks import encoder_blocks, linear_at
from sparse_xp.functional.structured.config import STRUCTURE_KEY, full_shape, is_reduced, structure_error

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


def resize_layers(model: nn.Module, sizes: Sequence[Size]) -> None:
    """Give each encoder layer Linears for so many heads and neurons. Those that change have fresh weights."""
    for block, (heads, neurons) in zip(encoder_blocks(model), sizes, strict=True):
        hidden, width = linear_at(model, block.down).out_features, heads * block.head_size
        shapes = {
            **dict.fromkeys(block.inputs, (hidden, width)),
            block.output: (width, hidden),
            block.up: (hidden, neurons),
            block.down: (neurons, hidden),
        }
        for name, (inputs, outputs) in shapes.items():
            old = linear_at(model, name)
            if (old.in_features, old.out_features) != (inputs, outputs):
                parent, _, child = name.rpartition(".")
                new = nn.Linear(inputs, outputs, bias=old.bias is not None, device=old.weight.device)
                setattr(model.get_submodule(parent), child, new)


def expand_model(model: PreTrainedModel) -> None:
    """Undo removal in place, with the same logits: removed heads and neurons come back as zeros, behind the others.

    Layers get their full shape, which stock ``from_pretrained`` loads, and are as slow as before. Layers that were
    removed whole stay removed: no weights make a layer with LayerNorms the identity. Factored embeddings become one
    table.
    """
    unfactor(model)
    if not getattr(model.config, STRUCTURE_KEY, None):
        return
    shape = full_shape(model)
    old = {name: value.clone() for name, value in model.state_dict().items()}
    resize_layers(model, [(shape.heads, shape.neurons)] * len(encoder_blocks(model)))
    for name, value in model.state_dict().items():
        value.zero_()
        value[tuple(slice(0, size) for size in old[name].shape)] = old[name]
    setattr(model.config, neurons_key(model.config), shape.neurons)
    delattr(model.config, STRUCTURE_KEY)
