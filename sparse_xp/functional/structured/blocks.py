"""Encoder layers as blocks of Linears, and which rows and columns of them belong to a head or a neuron."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from sparse_xp.errors import UserError
from sparse_xp.functional.architectures import Architecture, architecture_of, known_models
from sparse_xp.functional.cost_model import Size
from sparse_xp.functional.layers import encoder_layers, model_type_of, weighted_paths

#: Bool masks of the rows (outputs) [out] and of the columns (inputs) [in] of a Linear; True keeps, None keeps all.
LinearMask = tuple[Tensor | None, Tensor | None]
#: Bool masks of the heads [heads] and of the neurons [neurons] of a layer; True keeps.
LayerMask = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Block:
    """The Linears of one encoder layer, by their names in the model.

    ``inputs``: those whose rows belong to heads (query, key, value), ``ups``: those whose rows belong to neurons. A
    fused Linear stacks several matrices with these rows: ``input_parts`` and ``up_parts`` of them.
    """

    name: str
    architecture: Architecture
    head_size: int
    inputs: tuple[str, ...]
    output: str
    ups: tuple[str, ...]
    down: str

    @property
    def input_parts(self) -> int:
        return self.architecture.attention_parts

    @property
    def up_parts(self) -> int:
        return self.architecture.up_parts

    @property
    def self_attention(self) -> str:
        """Name of the module that splits hidden states into heads."""
        return f"{self.name}.{self.architecture.self_attention}"

    def linear_masks(self, heads: Tensor, neurons: Tensor) -> dict[str, LinearMask]:
        """Return the mask of each Linear for these ``heads`` [heads] and ``neurons`` [neurons], bool; True keeps."""
        columns = heads.repeat_interleave(self.head_size)
        return {
            **dict.fromkeys(self.inputs, (columns.repeat(self.input_parts), None)),
            self.output: (None, columns),
            **dict.fromkeys(self.ups, (neurons.repeat(self.up_parts), None)),
            self.down: (None, neurons),
        }


def encoder_blocks(model: nn.Module) -> list[Block]:
    """Return the encoder layers of ``model`` in order.

    Raises UserError unless all are of a known architecture in which every layer has matrices of its own.
    """
    blocks = []
    for name, layer in encoder_layers(model).items():
        architecture = architecture_of(model_type_of(model), weighted_paths(layer))
        block = None if architecture is None or architecture.shares_layers else block_of(name, layer, architecture)
        if block is None or not has_equal_heads(model, block):
            shared = architecture is not None and architecture.shares_layers
            raise no_blocks(model, "uses one layer several times" if shared else "has layers of an unknown kind")
        blocks.append(block)
    if not blocks:
        raise no_blocks(model, "has no encoder layers that are known")
    return blocks


def block_of(name: str, layer: nn.Module, architecture: Architecture) -> Block:
    """Return the Linears of the encoder layer ``name``."""
    weighted = weighted_paths(layer)
    inputs = (*architecture.query_key_value, *architecture.position_projections)
    return Block(
        name,
        architecture,
        head_size=int(getattr(layer.get_submodule(architecture.self_attention), architecture.head_size)),
        inputs=tuple(f"{name}.{path}" for path in inputs if path in weighted),
        output=f"{name}.{architecture.attention_output}",
        ups=tuple(f"{name}.{path}" for path in architecture.up),
        down=f"{name}.{architecture.down}",
    )


def has_equal_heads(model: nn.Module, block: Block) -> bool:
    """Return whether queries, keys and values have one head each for every head: grouped queries share keys."""
    width = linear_at(model, block.output).in_features * block.input_parts
    return all(linear_at(model, name).out_features == width for name in block.inputs)


def no_blocks(model: nn.Module, reason: str) -> UserError:
    """Return the error that nothing can be removed from the layers of ``model``, because it ``reason``."""
    return UserError(
        f"{type(model).__name__} {reason}, so that heads, neurons and layers cannot be removed from it: it can have "
        "sparse weights (recipe=gradual80) and 8 bits (recipe=prune70_quant), and smaller layers are for "
        f"{known_models(structured=True)}."
    )


def linear_at(model: nn.Module, name: str) -> nn.Linear:
    """Return the Linear ``name`` of ``model``."""
    module = model.get_submodule(name)
    assert isinstance(module, nn.Linear)
    return module


def sizes_of(model: nn.Module) -> list[Size]:
    """Return heads and neurons of each encoder layer as it is now."""
    return [
        (
            linear_at(model, block.output).in_features // block.head_size,
            linear_at(model, block.down).in_features,
        )
        for block in encoder_blocks(model)
    ]
