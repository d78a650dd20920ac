"""Find the checkpoint of a run: a directory, a hub id, or a tiny model that is built first."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sparse_xp.cache import ensure_cached
from sparse_xp.data.hub import is_local_checkpoint
from sparse_xp.errors import UserError
from sparse_xp.files.checksums import json_digest
from sparse_xp.files.reading import resolve_model_dir
from sparse_xp.settings import Model, TinyModel
from sparse_xp.tasks import all_generated_words


def resolve_checkpoint(model: Model, cache: Path) -> str:
    """Return the directory or hub id that ``model`` is loaded from; a tiny model is built in ``cache``.

    Raises UserError for a directory without a model, and for a model without a checkpoint.
    """
    if model.checkpoint:
        checkpoint = resolve_model_dir(model.checkpoint)
        is_local_checkpoint(checkpoint)  # raises for a directory without a model
        return checkpoint
    if isinstance(model, TinyModel):
        return str(build_tiny_model(model, cache))
    raise UserError(f"model={model.name} has no checkpoint: give model.checkpoint=, a hub id or a local directory.")


def build_tiny_model(model: TinyModel, cache: Path) -> Path:
    """Return the directory of a tiny model with random weights, built in ``cache`` unless it is there."""
    # torch is imported late: resolving the path of a checkpoint need not load it
    from sparse_xp.synthetic.model import SPARSE, build_checkpoint, vocabulary

    words = vocabulary(all_generated_words())
    shape = {name: getattr(model, name) for name in ("sparsity", "layers", "hidden", "heads", "intermediate")}
    directory = cache / f"tiny-{json_digest([shape, SPARSE, model.init_seed, words])}"
    ensure_cached(directory, lambda draft: build_checkpoint(draft, words, seed=model.init_seed, **shape))
    return directory


def from_pretrained_options(checkpoint: str) -> dict[str, Any]:
    """Return the options of every ``from_pretrained``.

    No code of a checkpoint is run. The hub is asked neither for a local directory nor if it is unreachable.
    """
    offline = bool(os.environ.get("HF_HUB_OFFLINE"))
    return {"trust_remote_code": False, "local_files_only": offline or os.path.isdir(checkpoint)}
