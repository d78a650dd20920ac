"""What the teacher answers to the evaluation rows: scores of some tasks compare the model with it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from sparse_xp.cache import ensure_cached
from sparse_xp.evaluation import EvalContext, model_outputs
from sparse_xp.files.checksums import json_digest
from sparse_xp.tasks.base import teacher_column
from sparse_xp.training.teacher import model_digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def add_reference(context: EvalContext, model: PreTrainedModel, cache: Path) -> None:
    """Add the outputs of ``model`` for the evaluation rows to the features, as columns ``teacher_...``.

    They are computed once, in float32, and read from the ``cache`` by every run with the same teacher and rows.
    """
    from datasets import Dataset, concatenate_datasets

    device = context.device
    parts = [model_digest(model), context.eval_features._fingerprint, context.inputs, device.type]
    directory = cache / f"{context.task.name}-{json_digest(parts)}"

    def store(draft: Path) -> None:
        torch.nn.Module.to(model, device)
        values = {field.name: getattr(context, field.name) for field in fields(EvalContext)}
        for name, rows in model_outputs(EvalContext(**{**values, "model": model})).items():
            np.save(draft / f"{name}.npy", np.stack(rows))

    ensure_cached(directory, store)
    columns = {
        teacher_column(name): list(np.load(directory / f"{name}.npy", allow_pickle=False))
        for name in context.task.outputs
    }
    context.eval_features = concatenate_datasets([context.eval_features, Dataset.from_dict(columns)], axis=1)
