"""Load a model from which heads, neurons or layers were removed: ``sparse_xp.structured.load(directory)``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sparse_xp.models import reduced
from sparse_xp.recipe.inherit import removed_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load(directory: str | Path) -> PreTrainedModel:
    """Return the saved model of ``directory`` in eval mode, also if structured pruning made it smaller.

    Stock ``from_pretrained`` loads models of full shape only. Raises UserError for a directory without a model, or
    with a damaged one.
    """
    return reduced.load_reduced_model(directory, removed_layers(str(directory)))
