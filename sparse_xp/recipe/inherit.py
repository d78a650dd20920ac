"""The recipe that a checkpoint carries (``recipe.yaml`` beside the weights), and what it asks of a run from there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from sparse_xp.data.hub import AGAIN, is_count, kind, read_header, read_object
from sparse_xp.errors import UserError, shortened
from sparse_xp.files import of_run, reading
from sparse_xp.modifiers import LayerPruning, Modifier, Quantization
from sparse_xp.recipe.sparseml import Plan, plan_of
from sparse_xp.recipe.text import read_recipe

FILE = "recipe.yaml"
#: how modifiers that a run has from its checkpoint are named: they are in the checkpoint's recipe already
INHERITED = "checkpoint_"


def is_inherited(name: str) -> bool:
    """Whether a modifier of a run comes from its checkpoint's recipe."""
    return name.rpartition(".")[2].startswith(INHERITED)


def read_base(checkpoint: str | None) -> tuple[Plan | None, list[str]]:
    """The recipe in a checkpoint's directory, if there is one that can be read, and what is to be told of it."""
    path = Path(checkpoint or "") / FILE
    if not checkpoint or not os.path.lexists(path):
        return None, []
    try:
        # What a file may hold has no end; the numbers of one of them may be too large for what is computed of them.
        with reading(path):
            try:
                return plan_of(read_recipe(str(path))), []
            except ArithmeticError as error:
                raise ValueError(str(error)) from error
    except UserError as error:  # llm-compressor's files have the same name
        return None, [f"the recipe of the checkpoint is not used: {shortened(str(error), 600)}"]


def removed_layers(checkpoint: str | None) -> list[str]:
    """Return the names, or ``re:`` patterns, of layers that the recipe of ``checkpoint`` removed."""
    base, _ = read_base(checkpoint)
    return (
        [name for each in base.modifiers.values() if isinstance(each, LayerPruning) for name in each.layers]
        if base
        else []
    )


def inherit(checkpoint: str | None, taken: Iterable[Modifier]) -> tuple[dict[str, Modifier], list[str]]:
    """The modifiers that a run from ``checkpoint`` has beside those ``taken`` already, and what is to be told.

    As in SparseML they are those of its structure: 8 bits, from the first step on, unless the run has quantization of
    its own; and the layers that it lacks. Pruning, learning rates and distillation of the earlier run are over.
    """
    checkpoint = of_run(checkpoint or "")
    base, remarks = read_base(checkpoint)
    found: dict[str, Modifier] = {}
    quantized = any(isinstance(each, Quantization) for each in taken)
    for name, each in base.modifiers.items() if base else ():
        if isinstance(each, Quantization) and not quantized:
            found[INHERITED + name] = each if each.late else replace(each, start=0.0, observers_end=None)
            remarks.append(
                f"{checkpoint}/{FILE}: the checkpoint was made in 8 bits, and so is this run, from its first step and "
                "with new ranges. Remove that file to train in floating point"
            )
        if isinstance(each, LayerPruning) and lacks_layers(Path(checkpoint)):
            found[INHERITED + name] = each
            remarks.append(
                f"{checkpoint}/{FILE}: without the layers that the checkpoint lacks ({', '.join(each.layers)})"
            )
    return found, remarks


def lacks_layers(checkpoint: Path) -> bool:
    """Whether the encoder has fewer layers than ``config.json`` says: SparseML saved it like that, this package not."""
    path = checkpoint / "config.json"
    config = read_object(path)
    layers = config.get("num_hidden_layers", config.get("n_layers"))
    if layers is not None and not is_count(layers):
        raise UserError(f"{path} is damaged: its number of layers is {kind(layers)}, want a whole number. {AGAIN}")
    weights = checkpoint / "model.safetensors"
    if layers is None or not os.path.lexists(weights):
        return layers is not None  # pytorch_model.bin: SparseML's
    names = read_header(weights)
    there = {found[1] for name in names if (found := re.search(r"(?:encoder|transformer)\.layer\.(\d+)\.", name))}
    return len(there) < int(layers)
