"""The recipe that a checkpoint carries (``recipe.yaml`` beside the weights), and what a run from there inherits."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from sparse_xp.errors import UserError, shortened
from sparse_xp.files.model_directory import CHECKPOINT_ADVICE, has_weights, read_json_object, read_safetensors_header
from sparse_xp.files.reading import explain_read_errors, resolve_model_dir
from sparse_xp.files.untrusted_json import is_count, json_type
from sparse_xp.functional.architectures import ARCHITECTURES, IN_LAYER, layer_count
from sparse_xp.modifiers import LayerPruning, Modifier, Quantization
from sparse_xp.recipe.parsed import ParsedRecipe, parse_modifiers
from sparse_xp.recipe.text import read_recipe

FILE = "recipe.yaml"
#: the prefix of the names of inherited modifiers: they are in the checkpoint's recipe, and are not written again
INHERITED = "checkpoint_"


def is_inherited(name: str) -> bool:
    """Return whether a modifier of this name was inherited from the checkpoint."""
    return name.rpartition(".")[2].startswith(INHERITED)


def is_calibrated(modifier: Modifier) -> bool:
    """Return whether a modifier quantizes after training: it has no times."""
    return isinstance(modifier, Quantization) and modifier.calibration_rows is not None


def read_base(checkpoint: str | None) -> ParsedRecipe | None:
    """Return the recipe in a checkpoint's directory, None if there is none.

    Raises UserError for one that cannot be read: it may say that the model is quantized, or lacks layers.
    """
    path = Path(checkpoint or "") / FILE
    if not checkpoint or not os.path.lexists(path) or not has_weights(Path(checkpoint)):
        return None  # a directory without weights is refused when it is loaded
    try:
        with explain_read_errors(path):
            return parse_modifiers(read_recipe(str(path)))
    except UserError as error:  # llm-compressor's files have the same name
        raise UserError(
            "the recipe beside the checkpoint's weights cannot be read, and what it says of 8 bits, removed layers and "
            f"zeros would be lost: {shortened(str(error), 600).rstrip('.')}. Correct the file, or add "
            "recipe.inherit=false to go on without it, in floating point."
        ) from error


def removed_layers(checkpoint: str | None) -> list[str]:
    """Return the names, or ``re:`` patterns, of layers that the recipe of ``checkpoint`` removed.

    None for a recipe that cannot be read: weights that the checkpoint lacks are reported when it is loaded.
    """
    try:
        base = read_base(checkpoint)
    except UserError:
        return []
    modifiers = base.modifiers.values() if base else ()
    return [name for each in modifiers if isinstance(each, LayerPruning) for name in each.layers]


def inherit(checkpoint: str | None, own: Iterable[Modifier]) -> tuple[dict[str, Modifier], list[str]]:
    """Return the modifiers that a run inherits from its checkpoint, by name, and remarks.

    As in SparseML, structural modifiers are inherited: quantization (from the first step on, unless the run's ``own``
    modifiers quantize; of several stages, that of the last) and removed layers. Pruning, learning rates and
    distillation of the earlier run are over. Raises UserError for a recipe that cannot be read.
    """
    checkpoint = resolve_model_dir(checkpoint or "")
    base, remarks = read_base(checkpoint), list[str]()
    inherited: dict[str, Modifier] = {}
    modifiers = base.modifiers if base else {}
    quantizing = [name for name, each in modifiers.items() if isinstance(each, Quantization)]
    quantizes = any(isinstance(each, Quantization) for each in own)
    for name, each in modifiers.items():
        if name in quantizing[-1:] and not quantizes:
            again = each if is_calibrated(each) else replace(each, start=0.0, observers_end=None)  # type: ignore[call-arg]
            inherited[INHERITED + name] = again
            remarks.append(
                f"{checkpoint}/{FILE}: the checkpoint was made in 8 bits, and so is this run, from its first step and "
                "with new ranges. Add recipe.inherit=false to train in floating point"
            )
        if isinstance(each, LayerPruning) and lacks_layers(Path(checkpoint)):
            inherited[INHERITED + name] = each
            remarks.append(
                f"{checkpoint}/{FILE}: layers {', '.join(each.layers)} are missing from the checkpoint and are removed"
            )
    return inherited, remarks


def lacks_layers(checkpoint: Path) -> bool:
    """Return whether the encoder has fewer layers than ``config.json`` says.

    SparseML saved models like that; this package writes the new number. Raises UserError for damaged files.
    """
    path = checkpoint / "config.json"
    config = read_json_object(path)
    layers = layer_count(config)
    if layers is None:
        return False
    if not isinstance(layers, int) or not is_count(layers):
        raise UserError(
            f"{path} is damaged: its number of layers is {json_type(layers)}, expected a whole number. "
            f"{CHECKPOINT_ADVICE}"
        )
    weights = checkpoint / "model.safetensors"
    if not os.path.lexists(weights):
        return True  # pytorch_model.bin: a model that SparseML saved
    names = read_safetensors_header(weights)
    if any(row.shares_layers and re.search(row.layers, name) for row in ARCHITECTURES for name in names):
        return False  # one layer stands for several
    numbers = {match["number"] for name in names if (match := IN_LAYER.search(name))}
    return len(numbers) < layers
