"""Quantize a trained model without training: calibrated on training rows, and measured by its own floating point."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_xp.console import say
from sparse_xp.data.table import to_dataset
from sparse_xp.errors import UserError
from sparse_xp.modifiers import Modifier, Quantization
from sparse_xp.settings import Data
from sparse_xp.tasks.base import Task
from sparse_xp.tasks.features import make_features
from sparse_xp.tasks.rows import load_rows

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

    from sparse_xp.evaluation import EvalContext

#: the options of ``quantization=`` that need no training
OPTIONS = "quantization=ptq_int8 (ranges from training rows) or quantization=int8_dynamic (ranges of each batch)"


@dataclass
class PostTraining:
    """How a trained model is to be quantized.

    ``max_loss``: how many points of the task's metric the file may lose against the model in floating point.
    """

    quantization: Quantization
    max_loss: float

    @property
    def option(self) -> str:
        """What was done, for the card: the option and the rows that it saw."""
        rows = self.quantization.calibration_rows
        return f"{self.quantization.option}, after training" + (f", on up to {rows} training rows" if rows else "")

    def quantize(self, context: EvalContext, data: Data) -> None:
        """Quantize the model of ``context``. Raises UserError if rows to calibrate on are needed and there are none."""
        rows = self.quantization.calibration_rows
        batches: Iterable[dict[str, Tensor]] = ()
        if rows is not None:
            from sparse_xp.evaluation import spread_batches

            features = calibration_features(context, data, rows)
            say(f"calibrating on {min(rows, len(features))} of the training rows")
            batches = spread_batches(context, features, rows)
        self.quantization.quantize_trained(context.model, batches)

    def check_loss(self, task: Task, before: dict[str, float], after: dict[str, float]) -> None:
        """Raise UserError if the quantized model has lost more than ``max_loss``. Both: metrics in per cent."""
        loss = before[task.metric] - after[task.metric]
        if not loss <= self.max_loss:
            raise UserError(
                f"In 8 bits the model scores {task.metric} {after[task.metric]:.2f}, in floating point "
                f"{before[task.metric]:.2f}: it loses {loss:.2f} points, and max_loss={self.max_loss:g} is allowed. "
                "Nothing was written. Training in 8 bits loses less (python -m sparse_xp ... quantization=int8); to "
                f"take this file all the same, allow more with max_loss={max(loss, 0) + 0.01:.2f}."
            )


def calibration_features(context: EvalContext, data: Data, rows: int) -> Dataset:
    """Return features of a seeded subset of ``rows`` training rows."""
    fewer = min(rows, context.task.max_train_samples or rows)
    task = replace(context.task, max_train_samples=fewer)
    try:
        loaded = load_rows(task, data, train=True, labelled=context.task)
    except UserError as error:
        raise UserError(
            f"quantization=ptq_int8 takes the ranges of activations from training rows, and cannot read them: {error} "
            "quantization=int8_dynamic needs none."
        ) from error
    return make_features(task, to_dataset(loaded.rows), loaded.fingerprint, context.tokenizer, data, train=True)


def post_training(
    quantization: Modifier | None, overrides: Sequence[str], checkpoint: str, max_loss: float
) -> PostTraining | None:
    """Return how to quantize the model in ``checkpoint``; None if the command does not ask for it.

    ``quantization``: as composed. ``overrides``: as typed. Raises UserError for an option that trains, and for a model
    that is quantized already.
    """
    typed = [word for word in overrides if word.lstrip("+~").split("=")[0].split(".")[0] == "quantization"]
    if not typed or not isinstance(quantization, Quantization):
        return None
    if quantization.calibration_rows is None and not quantization.dynamic:
        raise UserError(
            f"{typed[0]} trains the model in 8 bits, and this command trains nothing. Write {OPTIONS}; or train: "
            f"python -m sparse_xp task=NAME model.checkpoint={checkpoint} recipe=dense {typed[0]}"
        )
    if os.path.lexists(Path(checkpoint) / "quantization.json"):
        raise UserError(
            f"{checkpoint} is quantized already (quantization.json holds its scales). Leave {typed[0]} out: the file "
            "will be int8, as the model was trained. quantization=none exports its weights in floating point."
        )
    return PostTraining(quantization, max_loss)
