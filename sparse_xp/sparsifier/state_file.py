"""``sparsifier.pt``: the state of a recipe in a checkpoint of a ``Trainer``, and what belongs beside the weights."""

from __future__ import annotations

import io
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparse_xp.errors import UserError
from sparse_xp.files.reading import explain_library_errors
from sparse_xp.files.writing import write_bytes, write_text
from sparse_xp.functional.quant_file import save_quantization
from sparse_xp.recipe.inherit import FILE
from sparse_xp.recipe.saved import write_recipe
from sparse_xp.sparsifier.checks import check_state
from sparse_xp.sparsifier.sparsifier import Sparsifier

STATE = "sparsifier.pt"


def check_zeros(sparsifier: Sparsifier) -> None:
    """Raise UserError if a weight that the recipe has pruned is not zero."""
    try:
        sparsifier.modifier_list.check(sparsifier.context)
    except RuntimeError as error:
        raise UserError(
            f"The model is not saved: {error} Something beside the recipe has written into them."
        ) from error


def write_beside_weights(sparsifier: Sparsifier, directory: Path) -> None:
    """Write ``recipe.yaml``, and ``quantization.json`` of a quantized model, beside the weights in ``directory``."""
    context = sparsifier.context
    acting = {name: each for name, each in sparsifier.modifiers.items() if not each.is_pending(context)}
    write_text(directory / FILE, write_recipe(acting, context.clock))
    if len(acting) == len(sparsifier.modifiers):
        save_quantization(context.model, directory)


def digest(model: nn.Module | None) -> str | None:
    """Return a checksum of the weights of a teacher, None without one."""
    if model is None:
        return None
    checksum = sha256()
    for weight in model.parameters():
        checksum.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return checksum.hexdigest()


def save_state(sparsifier: Sparsifier, directory: Path, teacher: str | None = None) -> None:
    """Write the state of an unfinished recipe into the directory of a checkpoint.

    Weights of a model of changed structure are part of it: its checkpoint may not load into a model of the old one.
    ``teacher``: the checksum of the teacher.
    """
    changed = any(modifier.changes_structure for modifier in sparsifier.modifiers.values())
    content = {
        "steps_per_epoch": sparsifier.context.clock.steps_per_epoch,
        "sparsifier": sparsifier.state_dict(),
        "teacher": teacher,
        "model": sparsifier.context.model.state_dict() if changed else None,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(directory / STATE, buffer.getvalue())


def read_state(directory: Path) -> dict[str, Any]:
    """Return what ``save_state`` wrote. Raises UserError if there is none, or it is damaged."""
    path = directory / STATE
    if not path.is_file():
        raise UserError(
            f"{directory} has no {STATE}: it is no checkpoint of a training with a recipe, which cannot be resumed "
            "from it. Load its weights as the model of a new training."
        )
    damaged = UserError(f"{path} is damaged. Resume from an earlier checkpoint.")
    with explain_library_errors(lambda _: damaged):
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if not {"steps_per_epoch", "sparsifier", "teacher", "model"} <= set(content):
            raise damaged
    return content


def check_fits(state: dict[str, Any], sparsifier: Sparsifier, directory: Path) -> None:
    """Raise UserError if the state in the checkpoint ``directory`` is of a training with another recipe or length."""
    try:
        check_state(state["sparsifier"], sparsifier.modifiers, sparsifier.context.clock)
    except UserError as error:
        reason = str(error).removesuffix("Make the Sparsifier as it was made when the state was saved.").strip()
        raise UserError(
            f"{directory} is a checkpoint of another training. {reason} Resume with the recipe, the data and the "
            "training arguments of that one, or load its weights as the model of a new training."
        ) from error
