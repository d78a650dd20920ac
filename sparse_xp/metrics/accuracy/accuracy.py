"""Accuracy as an ``evaluate`` module that needs no network.

``evaluate.load("<checkout>/sparse_xp/metrics/accuracy")``, or the class itself.
"""

from __future__ import annotations

import datasets
import evaluate

from sparse_xp.metrics import scores

DESCRIPTION = "The share of labels that are right."

INPUTS = """
Args:
    predictions: list of int labels.
    references: list of int labels, as many.
Returns:
    accuracy: fraction of the labels that agree, 0 to 1.
"""


class Accuracy(evaluate.Metric):
    """Takes int labels and returns ``accuracy`` as a fraction, as the hub's ``accuracy`` does.

    Mind the unit: ``sparse_xp.metrics.scores.accuracy`` is in percent. The hub's ``normalize`` and
    ``sample_weight`` are not offered; passing one is a ``TypeError``.
    """

    def _info(self) -> evaluate.MetricInfo:
        label = datasets.Value("int32")
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": label, "references": label}),
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"accuracy": scores.accuracy(predictions, references)["accuracy"] / 100}
