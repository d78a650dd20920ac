"""Predictions of a model on the evaluation rows, and their metrics.

Training evaluates the PyTorch model here (``evaluate``). The export gate calls ``predict`` with onnxruntime's
``forward``. Both see the same batches, and the same ``Task.score`` reads their outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sparse_xp.data.batches import collate, evaluation_batches
from sparse_xp.tasks import Task

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(kw_only=True)
class EvalContext:
    """A model with the rows and features that it is evaluated on."""

    task: Task
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    eval_rows: Dataset
    eval_features: Dataset
    eval_batch_size: int
    device: torch.device

    @cached_property
    def inputs(self) -> list[str]:
        """The model's inputs among the features."""
        return [name for name in self.tokenizer.model_input_names if name in self.eval_features.column_names]

    @cached_property
    def padding(self) -> dict[str, int]:
        """The padding value of each column of a batch; 0 where none is given."""
        return {"input_ids": int(self.tokenizer.pad_token_id or 0), **self.task.padding}


def evaluate(context: EvalContext) -> dict[str, float]:
    """Return the task's metrics of the model as it is, in float32."""

    def forward(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            outputs = context.model(**to_device(context, {k: torch.from_numpy(v) for k, v in batch.items()}))
        return {name: outputs[name].float().cpu().numpy() for name in context.task.outputs}

    context.model.train(False)
    return context.task.score(context.eval_rows, context.eval_features, predict(context, forward))


def predict(
    context: EvalContext, forward: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
) -> dict[str, list[np.ndarray]]:
    """Return each output of ``forward``, one array per evaluation feature, without padding.

    ``forward``: from int64 [rows, tokens] by the names of the inputs to arrays by the names of the outputs.
    """
    features, task = context.eval_features, context.task
    outputs: dict[str, list[Any]] = {name: [None] * len(features) for name in task.outputs}
    for indices in evaluation_batches(features, context.eval_batch_size):
        batch = {k: v.numpy() for k, v in collate(features, indices, context.inputs, context.padding).items()}
        lengths = batch["attention_mask"].sum(1)
        for name, values in forward(batch).items():
            for i, length, value in zip(indices, lengths, values, strict=True):
                outputs[name][i] = task.unpad(name, value, length, features, i)
    return outputs


def spread_batches(context: EvalContext, features: Dataset, rows: int) -> Iterator[dict[str, torch.Tensor]]:
    """Yield batches of inputs of so many ``features``, spread evenly over all of them, on the model's device."""
    total = len(features)
    count = min(rows, total)
    chosen = features.select([i * total // count for i in range(count)])
    for indices in evaluation_batches(chosen, context.eval_batch_size):
        yield to_device(context, collate(chosen, indices, context.inputs, context.padding))


def to_device(context: EvalContext, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the batch on the model's device."""
    return {name: value.to(context.device, non_blocking=True) for name, value in batch.items()}
