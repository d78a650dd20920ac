"""Predictions of a model on the evaluation rows, and their metrics.

Training evaluates the PyTorch model here (``evaluate``), several processes together (``training/shared_evaluation``).
The export gate calls ``predict`` with onnxruntime's ``forward``. All see the same batches, and the same ``Task.score``
reads their outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sparse_xp.data.batches import collate, evaluation_batches
from sparse_xp.data.flat_columns import flat_columns
from sparse_xp.functional.model_calls import sent
from sparse_xp.tasks import Task

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


#: by the name of an output, one array for each evaluation feature; None for one that another process computes
Outputs = dict[str, list[Any]]


@dataclass(kw_only=True)
class EvalContext:
    """A model with the rows and features that it is evaluated on.

    ``device``: of the model. ``threads``: cores for the engines of exported files, None for all.
    """

    task: Task
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    eval_rows: Dataset
    eval_features: Dataset
    eval_batch_size: int
    device: torch.device
    threads: int | None = None

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
    return score(context, model_outputs(context))


def score(context: EvalContext, outputs: Outputs) -> dict[str, float]:
    """Return the task's metrics of the outputs of all evaluation features."""
    return context.task.score(context.eval_rows, context.eval_features, outputs)


def model_outputs(context: EvalContext, rank: int = 0, processes: int = 1) -> Outputs:
    """Return the outputs of the model in float32, without autocast, for the share of a process: see ``predict``.

    On a GPU that is float32 without TF32, as PyTorch's default is.
    """

    def forward(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            outputs = context.model(**to_device(context, {k: torch.from_numpy(v) for k, v in batch.items()}))
        return {name: outputs[name].float().cpu().numpy() for name in context.task.outputs}

    context.model.train(False)
    return predict(context, forward, rank, processes)


def predict(
    context: EvalContext,
    forward: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]],
    rank: int = 0,
    processes: int = 1,
) -> Outputs:
    """Return each output of ``forward``, one array per evaluation feature, without padding.

    ``forward``: from int64 [rows, tokens] by the names of the inputs to arrays by the names of the outputs. ``rank``
    of so many ``processes`` computes every so-many-th batch; the features of the others have None.
    """
    features, task = context.eval_features, context.task
    columns = flat_columns(features, context.inputs)
    outputs: Outputs = {name: [None] * len(features) for name in task.outputs}
    for indices in list(evaluation_batches(features, context.eval_batch_size))[rank::processes]:
        batch = {k: v.numpy() for k, v in collate(columns, indices, context.inputs, context.padding).items()}
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
    columns = flat_columns(chosen, context.inputs)
    for indices in evaluation_batches(chosen, context.eval_batch_size):
        yield to_device(context, collate(columns, indices, context.inputs, context.padding))


def to_device(context: EvalContext, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the batch on the model's device."""
    return {name: sent(value, context.device) for name, value in batch.items()}
