"""Measuring compression: the nonzero weights of a model, at the bits that its file has for them, against dense fp32.

The unpruned model is the one with all heads, neurons, layers and embeddings. Zeros are those of the model in floating
point, as in ``sparsity.py``: a weight that int8 rounds to zero still counts. Scales and zero points do not count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import nn

from sparse_xp.functional.cost_model import parameter_costs
from sparse_xp.functional.factored_embeddings import find_factored
from sparse_xp.functional.layers import encoder_layers
from sparse_xp.functional.measured import DENSE_BITS, Compression, StoredWeights, compressed_part
from sparse_xp.functional.quant_modules import quantized_modules
from sparse_xp.functional.selection import select_parameters
from sparse_xp.functional.sparsity import count_zeros
from sparse_xp.functional.structured.blocks import encoder_blocks, linear_at, sizes_of
from sparse_xp.functional.structured.config import full_shape, is_structured, removed_layer_numbers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: bits that a file has for a weight of a quantized module, whatever its range is
QUANTIZED_BITS = 8


def measure_compression(
    model: nn.Module, dropped_layers: int = 0, encoder: PreTrainedModel | None = None
) -> Compression:
    """Return the compression of ``model``, each tied tensor counted once.

    ``encoder``: the model of transformers inside ``model``; None for ``model`` itself.
    ``dropped_layers``: encoder layers that were left out without a record in its configuration (``LayerPruning``).
    """
    quantized = {id(module.weight) for _, module in quantized_modules(model)}
    matrices = {id(weight) for weight in select_parameters(model, "__ENCODER__", strict=False).values()}
    inside: list[StoredWeights] = []
    everything: list[StoredWeights] = []
    for weight in model.parameters():
        bits = QUANTIZED_BITS if id(weight) in quantized else DENSE_BITS
        tensor = StoredWeights(weight.numel(), weight.numel() - count_zeros(weight), bits)
        everything.append(tensor)
        if id(weight) in matrices:
            inside.append(tensor)
    taken = count_removed(encoder or cast("PreTrainedModel", model), dropped_layers)
    return Compression(
        encoder=compressed_part(sum(tensor.size for tensor in inside) + taken[0], inside),
        model=compressed_part(sum(tensor.size for tensor in everything) + taken[1], everything),
    )


def count_removed(model: PreTrainedModel, dropped_layers: int = 0) -> tuple[int, int]:
    """Return how many weights of the encoder's matrices, and how many parameters in all, were removed from ``model``.

    ``dropped_layers``: see ``measure_compression``.
    """
    gone = len(removed_layer_numbers(model)) + dropped_layers
    missing = removed_from_layers(model) if is_structured(model.config) else []
    matrices, parameters = sum(each for each, _ in missing), sum(each for _, each in missing)
    if gone:  # each was like the last one before pruning; the first layer of ModernBERT lacks a norm
        layer = list(encoder_layers(model).values())[-1]
        missing_there = missing[-1] if missing else (0, 0)
        linears = [module for module in layer.modules() if isinstance(module, nn.Linear)]
        matrices += gone * (sum(module.weight.numel() for module in linears) + missing_there[0])
        parameters += gone * (sum(parameter.numel() for parameter in layer.parameters()) + missing_there[1])
    if factored := find_factored(model):
        table, projection = factored.factors
        dense = table.weight.shape[0] * projection.weight.shape[0]
        parameters += dense - table.weight.numel() - projection.weight.numel()
    return matrices, parameters


def removed_from_layers(model: PreTrainedModel) -> list[tuple[int, int]]:
    """Return, for each layer, the number of removed weights of its matrices and of all its removed parameters."""
    shape = full_shape(model)
    costs = parameter_costs(shape)
    full = costs.total([(shape.heads, shape.neurons)])
    counts = []
    for block, (heads, neurons) in zip(encoder_blocks(model), sizes_of(model), strict=True):
        weights = int(full - costs.total([(heads, neurons)]))
        head_biases = sum(linear_at(model, name).bias is not None for name in block.inputs) * block.input_parts
        neuron_biases = sum(linear_at(model, name).bias is not None for name in block.ups) * block.up_parts
        biases = head_biases * block.head_size * (shape.heads - heads) + neuron_biases * (shape.neurons - neurons)
        counts.append((weights, weights + biases))
    return counts
