"""Write a model that a recipe has finished into a directory."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_model
from transformers import PreTrainedTokenizerBase

from sparse_xp.files.directories import atomic_directory
from sparse_xp.files.writing import write_text
from sparse_xp.functional.quant_file import save_quantization
from sparse_xp.recipe.inherit import FILE
from sparse_xp.recipe.saved import write_recipe
from sparse_xp.sparsifier.context import LoopContext

#: the remedy where something else is in the way
ELSEWHERE = "Name a directory that is not there yet, or one that save() wrote."


def save_model_directory(
    context: LoopContext, directory: str | Path, tokenizer: PreTrainedTokenizerBase | None
) -> None:
    """Write weights, quantization and recipe of a model, and ``tokenizer`` unless that is None.

    A model with ``save_pretrained`` writes itself (of transformers, of sentence-transformers). Any other module becomes
    ``model.safetensors`` alone.
    """
    with atomic_directory(Path(directory), "model", ELSEWHERE) as draft:
        save_pretrained = getattr(context.model, "save_pretrained", None)
        if callable(save_pretrained):
            save_pretrained(str(draft))
        else:
            save_model(context.model, str(draft / "model.safetensors"))
        if tokenizer is not None:
            tokenizer.save_pretrained(draft)
        save_quantization(context.model, draft)
        write_text(draft / FILE, write_recipe(context.modifier_list.modifiers, context.clock, None, {}))
