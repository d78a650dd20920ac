"""The record of removed heads, neurons and layers in config.json.

``structure``: {"heads": [...], "neurons": [...]} of the remaining layers, "full": [heads, neurons] of a layer of the
full model, and "gone": the numbers of removed layers in the full model, if there are any.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from sparse_xp.errors import shortened
from sparse_xp.files.untrusted_json import is_count, json_type
from sparse_xp.functional.architectures import is_matrix, neurons_key
from sparse_xp.functional.cost_model import LayerShape, parameter_costs
from sparse_xp.functional.factored_embeddings import FACTOR_KEY
from sparse_xp.functional.measured import Removed
from sparse_xp.functional.structured.blocks import encoder_blocks, linear_at, sizes_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

#: the key of config.json
STRUCTURE_KEY = "structure"
#: the most heads or neurons that a layer of a configuration may have
MAX_GROUPS = 10_000_000


def is_reduced(config: PreTrainedConfig) -> bool:
    """Return whether something was removed from the model with this ``config``."""
    return bool(getattr(config, STRUCTURE_KEY, None) or getattr(config, FACTOR_KEY, None))


def is_structured(config: PreTrainedConfig) -> bool:
    """Return whether heads, neurons or layers were removed from the model with this ``config``."""
    return bool(getattr(config, STRUCTURE_KEY, None))


def full_shape(model: PreTrainedModel) -> LayerShape:
    """Return the shape of a layer from which nothing has been removed, now or in an earlier run."""
    structure = getattr(model.config, STRUCTURE_KEY, None)
    block = encoder_blocks(model)[0]
    hidden = linear_at(model, block.down).out_features
    if structure:
        heads, neurons = structure["full"]
    else:
        heads = linear_at(model, block.output).in_features // block.head_size
        neurons = int(getattr(model.config, neurons_key(model.config)))
    return LayerShape(
        hidden,
        heads,
        block.head_size,
        neurons,
        gated=block.architecture.is_gated,
        relative_positions=relative_positions(model),
        head_matrices=len(block.inputs) * block.input_parts + 1,
    )


def relative_positions(model: nn.Module) -> int:
    """Return the number of relative positions that a layer's queries and keys are multiplied with; 0 for none."""
    tables = (module for name, module in model.named_modules() if isinstance(module, nn.Embedding) and is_matrix(name))
    return sum(table.num_embeddings for table in tables)


def removed_layer_numbers(model: PreTrainedModel) -> list[int]:
    """Return the layers that were removed whole, now or in an earlier run, by their numbers in the full model."""
    return list((getattr(model.config, STRUCTURE_KEY, None) or {}).get("gone", ()))


def removal_summary(model: PreTrainedModel, dropped_layers: Sequence[int] = ()) -> Removed | None:
    """Return what was removed from ``model``, in this run and before; None if nothing.

    ``dropped_layers``: the numbers of layers that this run took out as a whole (``LayerPruning``).
    """
    if not (is_reduced(model.config) or dropped_layers):
        return None
    sizes, shape = sizes_of(model), full_shape(model)
    layers = sorted({*removed_layer_numbers(model), *dropped_layers})
    costs = parameter_costs(shape)
    full = costs.total([(shape.heads, shape.neurons)] * (len(sizes) + len(layers)))
    return Removed(
        1 - costs.total(sizes) / full,
        [heads for heads, _ in sizes],
        [neurons for _, neurons in sizes],
        layers,
        getattr(model.config, FACTOR_KEY, None),
    )


def record_structure(model: PreTrainedModel, shape: LayerShape, removed_layers: Sequence[int]) -> None:
    """Write the sizes of ``model`` into its configuration.

    Where all layers have the same number of neurons, the key of the stock class is updated too: if all heads are left,
    stock ``from_pretrained`` can load the model.
    """
    sizes, config = sizes_of(model), model.config
    structure = {
        "heads": [heads for heads, _ in sizes],
        "neurons": [neurons for _, neurons in sizes],
        "full": [shape.heads, shape.neurons],
    }
    setattr(config, STRUCTURE_KEY, {**structure, "gone": list(removed_layers)} if removed_layers else structure)
    if len({neurons for _, neurons in sizes}) == 1:
        setattr(config, neurons_key(config), sizes[0][1])


def structure_error(structure: object) -> str:
    """Return what is wrong with the ``structure`` of a config.json, as the end of a sentence; "" if it is valid."""
    if not structure:
        return ""
    if not isinstance(structure, dict):
        return f"is {json_type(structure)} in place of an object"
    for name in ("heads", "neurons", "full", *(["gone"] if "gone" in structure else [])):
        values = structure.get(name)
        if not isinstance(values, list) or not all(is_count(value) and value <= MAX_GROUPS for value in values):
            return (
                f"{shortened(str(structure), 200)} has {name!r} that is no list of whole numbers up to {MAX_GROUPS:,}"
            )
    if len(structure["full"]) != 2 or 0 in structure["full"]:
        return f"{shortened(str(structure), 200)} has 'full' that is not two numbers above 0"
    heads, neurons = structure["full"]
    if any(n > heads for n in structure["heads"]) or any(n > neurons for n in structure["neurons"]):
        return f"{shortened(str(structure), 200)} has layers larger than 'full'"
    layers = structure.get("gone", [])
    if len(set(layers)) < len(layers) or any(number >= len(structure["heads"]) + len(layers) for number in layers):
        return f"{shortened(str(structure), 200)} has 'gone' that is not numbers of layers"
    return ""
