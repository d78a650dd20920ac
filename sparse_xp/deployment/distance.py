"""How far the logits of an exported file are from the model's in PyTorch.

``export`` measures it for each engine and refuses a file past the limits of ``settings.Export``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from sparse_xp.data.batches import collate
from sparse_xp.deployment.bundle import LogitLimits
from sparse_xp.deployment.engines import Batch
from sparse_xp.evaluation import EvalContext
from sparse_xp.settings import Export


@dataclass
class Distance:
    """The distance of the logits of two models.

    ``highest``: the largest difference of a logit. ``rms``: the root mean square of all differences, divided by the
    standard deviation of the logits.
    """

    highest: float
    rms: float

    def criterion(self, integers: bool) -> tuple[str, float]:
        """Return the name of the limit that applies, and the value it limits: ``rms`` for int8, else ``highest``.

        Rounding ties flip between engines, so that single logits of an int8 file may differ widely.
        """
        return ("max_rms_diff_int8", self.rms) if integers else ("max_abs_diff", self.highest)

    def excess(self, settings: Export, integers: bool) -> str:
        """Return a message if the distance is past its limit, else an empty string."""
        key, value = self.criterion(integers)
        limit: float = getattr(settings, key)
        if value <= limit:  # false for nan
            return ""
        how = f"logits differ by {value:.3g} of their spread" if integers else f"a logit differs by {value:.3g}"
        return f"{how}, export.{key} allows {limit:.3g}."

    def limits(self, settings: Export, integers: bool) -> LogitLimits:
        """Return the limits for the recorded samples on another machine (``verify``).

        The same kernels may round in another order there. The effect on int8 is about as large as the distance from
        PyTorch to onnxruntime here: three times that is allowed, within the limit of the export.
        """
        rms = min(settings.max_rms_diff_int8, max(0.03, 3 * self.rms))
        return (
            LogitLimits(max_abs_diff=None, max_rms_diff=rms) if integers else LogitLimits(settings.max_abs_diff, None)
        )


def measure_distance(context: EvalContext, forward: Callable[[Batch], Batch]) -> Distance:
    """Return the distance of an exported file to PyTorch in real logits, over real batches of several shapes.

    ``forward``: computes the file, int64 arrays [rows, tokens] by name to outputs by name.
    """
    # Kept as sums: the logits of a language model fill gigabytes.
    highest, count, squared_differences, total, squares = 0.0, 0, 0.0, 0.0, 0.0
    rows_available = len(context.eval_features)
    for size in (1, 3, 8, 32):
        rows = list(range(0, rows_available, max(1, rows_available // size)))[:size]
        batch = collate(context.eval_features, rows, context.inputs, context.padding)
        with torch.no_grad():
            expected = context.model(**batch)
        computed = forward({name: value.numpy() for name, value in batch.items()})
        classes, tokens = context.task.class_mask(batch), context.task.token_mask(batch)
        mask = tokens if classes is None else classes
        for name in context.task.outputs:
            logits = expected[name].numpy()
            # A file of a fixed shape computes more rows and tokens than the batch has.
            difference = logits - computed[name][: logits.shape[0], : logits.shape[1]]
            # A mask of tokens keeps all classes of each; an output with one entry a row has no tokens.
            kept = mask.numpy() if mask is not None and logits.shape[: mask.dim()] == mask.shape else ...
            logits, difference = logits[kept].ravel(), difference[kept].ravel()
            highest = float(np.maximum(highest, np.abs(difference).max(initial=0.0)))  # nan stays nan
            count += logits.size
            squared_differences += float(np.einsum("i,i->", difference, difference, dtype=np.float64))
            total += float(logits.sum(dtype=np.float64))
            squares += float(np.einsum("i,i->", logits, logits, dtype=np.float64))
    spread = math.sqrt(max(squares / count - (total / count) ** 2, 0.0))
    return Distance(highest, math.sqrt(squared_differences / count) / max(spread, 1e-9))
