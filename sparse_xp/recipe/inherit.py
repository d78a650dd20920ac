"""The recipe that a checkpoint carries (``recipe.yaml`` beside the weights), and what it asks of a run from there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from sparse_xp.errors import UserError
from sparse_xp.files import of_run
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
    if not checkpoint or not path.is_file():
        return None, []
    try:
        return plan_of(read_recipe(str(path))), []
    except UserError as error:  # llm-compressor's files have the same name
        return None, [f"the recipe of the checkpoint is not used: {error}"]


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
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    layers = config.get("num_hidden_layers", config.get("n_layers"))
    weights = checkpoint / "model.safetensors"
    if layers is None or not weights.is_file():
        return layers is not None  # pytorch_model.bin: SparseML's
    with weights.open("rb") as file:  # a length of 8 bytes, then JSON with a key for each tensor
        names = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    there = {found[1] for name in names if (found := re.search(r"(?:encoder|transformer)\.layer\.(\d+)\.", name))}
    return len(there) < layers
