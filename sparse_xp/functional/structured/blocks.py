"""Encoder layers as blocks of Linears, and which rows and columns of them belong to a head or a neuron."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from sparse_xp.errors import UserError
from sparse_xp.functional.architectures import architecture_of, known_models
from sparse_xp.functional.cost_model import Size
from sparse_xp.functional.layers import encoder_layers

#: Bool masks of the rows (outputs) [out] and of the columns (inputs) [in] of a Linear; True keeps, None keeps all.
LinearMask = tuple[Tensor | None, Tensor | None]
#: Bool masks of the heads [heads] and of the neurons [neurons] of a layer; True keeps.
LayerMask = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Block:
    """The Linears of one encoder layer, by their names in the model."""

    name: str
    head_size: int
    inputs: tuple[str, ...]  # query, key, value
    output: str
    up: str
    down: str

    def linear_masks(self, heads: Tensor, neurons: Tensor) -> dict[str, LinearMask]:
        """Return the mask of each Linear for these ``heads`` [heads] and ``neurons`` [neurons], bool; True keeps."""
        columns = heads.repeat_interleave(self.head_size)
        return {
            **dict.fromkeys(self.inputs, (columns, None)),
            self.output: (None, columns),
            self.up: (neurons, None),
            self.down: (None, neurons),
        }


def encoder_blocks(model: nn.Module) -> list[Block]:
    """Return the encoder layers of ``model`` in order. Raises UserError unless all are of a known architecture."""
    layers = encoder_layers(model)
    blocks = []
    for name, layer in layers.items():
        modules = dict(layer.named_modules())
        architecture = architecture_of(modules)
        if architecture is None:
            break
        block = Block(
            name,
            head_size=int(modules[architecture.self_attention].attention_head_size),
            inputs=tuple(f"{name}.{path}" for path in architecture.query_key_value),
            output=f"{name}.{architecture.attention_output}",
            up=f"{name}.{architecture.up}",
            down=f"{name}.{architecture.down}",
        )
        blocks.append(block)
    if not blocks or len(blocks) != len(layers):
        raise UserError(
            f"{type(model).__name__}: structured pruning knows the layers of {known_models()}, and finds none of "
            "theirs here."
        )
    return blocks


def linear_at(model: nn.Module, name: str) -> nn.Linear:
    """Return the Linear ``name`` of ``model``."""
    module = model.get_submodule(name)
    assert isinstance(module, nn.Linear)
    return module


def sizes_of(model: nn.Module) -> list[Size]:
    """Return heads and neurons of each encoder layer as it is now."""
    return [
        (linear_at(model, block.inputs[0]).out_features // block.head_size, linear_at(model, block.up).out_features)
        for block in encoder_blocks(model)
    ]
