"""What a model predicts on the evaluation rows, and what that scores: in PyTorch and through onnxruntime alike."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sparse_xp.data.batches import collate, evaluation_batches
from sparse_xp.tasks import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(kw_only=True)
class Subject:
    """A model, and the rows it is examined on."""

    task: Task
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    rows: Dataset
    eval_features: Dataset
    eval_batch_size: int
    device: torch.device

    @cached_property
    def inputs(self) -> list[str]:
        """The model's inputs among the features."""
        return [name for name in self.tokenizer.model_input_names if name in self.eval_features.column_names]

    @cached_property
    def padding(self) -> dict[str, int]:
        """What fills up each column of a batch."""
        return {"input_ids": int(self.tokenizer.pad_token_id or 0), **self.task.padding}


def evaluate(subject: Subject) -> dict[str, float]:
    """The task's metrics of the model as it is, in float32."""

    def forward(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            outputs = subject.model(**to_device(subject, {k: torch.from_numpy(v) for k, v in batch.items()}))
        return {name: outputs[name].float().cpu().numpy() for name in subject.task.outputs}

    subject.model.eval()
    return subject.task.score(subject.rows, subject.eval_features, predict(subject, forward))


def predict(
    subject: Subject, forward: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
) -> dict[str, list[np.ndarray]]:
    """Each output of ``forward``, one array per evaluation feature, without its padding.

    ``forward`` takes and gives numpy arrays by name, int64 [rows, tokens] in; PyTorch and onnxruntime share it.
    """
    features, task = subject.eval_features, subject.task
    found: dict[str, list[Any]] = {name: [None] * len(features) for name in task.outputs}
    for indices in evaluation_batches(features, subject.eval_batch_size):
        batch = {k: v.numpy() for k, v in collate(features, indices, subject.inputs, subject.padding).items()}
        lengths = batch["attention_mask"].sum(1)
        for name, values in forward(batch).items():
            for i, length, value in zip(indices, lengths, values, strict=True):
                found[name][i] = task.kept(name, value, length, features, i)
    return found


def to_device(subject: Subject, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch where the model is."""
    return {name: value.to(subject.device, non_blocking=True) for name, value in batch.items()}
