"""F1 of two classes as an ``evaluate`` module that needs no network.

``evaluate.load("<checkout>/sparse_xp/metrics/f1")``, or the class itself.
"""

from __future__ import annotations

import datasets
import evaluate

from sparse_xp.metrics.scores import class_f1

DESCRIPTION = "The harmonic mean of precision and recall of class 1 of two, as GLUE scores QQP and MRPC."

INPUTS = """
Args:
    predictions: list of int labels, 0 or 1.
    references: list of int labels, 0 or 1, as many.
Returns:
    f1: of class 1, a fraction, 0 to 1.
"""


class F1(evaluate.Metric):
    """Takes labels 0 and 1 and returns ``f1`` as a fraction, as the hub's ``f1`` does by default.

    Mind the unit: ``sparse_xp.metrics.scores.class_f1`` is in percent. The hub's options (``average``, ``labels``,
    ``pos_label``, ``sample_weight``) are not offered; passing one is a ``TypeError``.
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
        return {"f1": class_f1(predictions, references, 2)["f1"] / 100}
