"""``!QuantizationModifier``: two SparseML classes share this name; the fields decide which one is meant.

The older class had a field for each choice (``weight_bits``, ``quantize_embeddings``). The newer one has schemes
(``quantization_scheme``). A modifier is always written with the fields of the older class.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sparse_xp.modifiers import Modifier, Quantization
from sparse_xp.recipe.fields import Fields, to_boolean, to_epoch, to_integer, to_names
from sparse_xp.recipe.quantization_scheme import SCHEME_FIELDS, read_scheme
from sparse_xp.recipe.tag_row import START, Argument, TagRow, argument, read_arguments


def read_reduce_range(fields: Fields) -> bool:
    """Return ``reduce_range``, with a remark on what it narrows here."""
    reduce_range = fields.take("reduce_range", to_boolean, False)
    if reduce_range:
        fields.remark(
            "reduce_range: true narrows the weights to 7 bits; SparseML narrowed the activations. Both rule out "
            "overflow on CPUs without VNNI, and for weights the exported file proves it"
        )
    return reduce_range


OBSERVERS_END = argument("disable_quantization_observer_epoch", to_epoch, None, name="observers_end")
#: the fields of the older class, in the order in which they are written
ARGUMENTS = (
    argument("submodules", to_names, None),
    argument("weight_bits", to_integer, 8),
    argument("activation_bits", to_integer, 8),
    Argument("reduce_range", "reduce_range", read_reduce_range),
    START,
    OBSERVERS_END,
    argument("quantize_embeddings", to_boolean, True),
    argument("quantize_embedding_activations", to_boolean, True, name="embedding_outputs"),
    argument("quantize_linear_activations", to_boolean, True, name="linear_outputs"),
    argument("exclude_module_types", to_names, [], name="exclude"),
)
#: fields of the older class that choose classes of torch.ao
TORCH_AO = ("activation_qconfig_kwargs", "weight_qconfig_kwargs")
#: fields of the older class for layers that an encoder does not have
UNUSED = ("quantize_conv_activations", "exclude_batchnorm", "custom_quantizable_module_types")
#: fields of both classes for other layers, or for a calibration that comes before the training
UNUSED_IN_BOTH = (
    "freeze_bn_stats_epoch",
    "model_fuse_fn_name",
    "model_fuse_fn_kwargs",
    "num_calibration_steps",
    "strict",
)
#: a field of these makes the tag one of the older class
OLDER_CLASS = {each.key for each in ARGUMENTS if each not in (START, OBSERVERS_END)} | {*TORCH_AO, *UNUSED, "tensorrt"}


def read_quantization(fields: Fields) -> Iterable[Modifier]:
    """Return the modifier of either class of this name."""
    if fields.take("end_epoch", to_epoch, -1) != -1:  # a composed recipe of SparseML has one, and must be readable
        fields.remark("end_epoch is not used: a model stays quantized once it is")
    fields.ignore(*UNUSED_IN_BOTH)
    given = fields.untaken.keys()
    if given & OLDER_CLASS and not given & SCHEME_FIELDS:
        values = read_older(fields) | {"per_channel": False}
    else:
        values = read_arguments(fields, (START, OBSERVERS_END)) | read_scheme(fields) | {"reduce_range": False}
    fields.remark("LayerNorm and attention's own products stay in floating point, where integers make no engine faster")
    yield Quantization(**values)


def read_older(fields: Fields) -> dict[str, Any]:
    """Return the settings of the older class. Raises RecipeError for what only torch.ao or TensorRT could do."""
    for key in TORCH_AO:
        if fields.take(key, lambda value: value, None):
            raise fields.error(
                key, f"{key}: classes of torch.ao, which is not used here; weight_bits and activation_bits are"
            )
    if fields.take("tensorrt", to_boolean, False):
        raise fields.error("tensorrt", "tensorrt: true is not supported: activations are unsigned and asymmetric here")
    fields.ignore(*UNUSED)
    return read_arguments(fields, ARGUMENTS)


QUANTIZATION_TAG = TagRow("QuantizationModifier", read_quantization, Quantization, ARGUMENTS)
