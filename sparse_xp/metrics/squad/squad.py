"""SQuAD v1.1 exact match and F1 as an ``evaluate`` module that needs no network.

``evaluate.load("<checkout>/sparse_xp/metrics/squad")``, or the class itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import datasets
import evaluate

from sparse_xp.metrics.scores import squad_scores

T = TypeVar("T")
Row = dict[str, Any]

DESCRIPTION = "Exact match and F1 of extracted answers, by the rules of the official SQuAD v1.1 script."

INPUTS = """
Args:
    predictions: list of {"id": question id, "prediction_text": answer}.
    references: list of {"id": question id, "answers": {"text": gold answers, "answer_start": their offsets}}.
Returns:
    exact_match: percent of the questions, 0 to 100.
    f1: mean over the questions in percent, 0 to 100.
"""

CITATION = """\
@inproceedings{rajpurkar-etal-2016-squad,
    title = {{SQ}u{AD}: 100,000+ Questions for Machine Comprehension of Text},
    author = {Rajpurkar, Pranav and Zhang, Jian and Lopyrev, Konstantin and Liang, Percy},
    booktitle = {Proceedings of EMNLP},
    year = {2016},
}
"""


class Squad(evaluate.Metric):
    """Takes the inputs of the hub's ``squad`` and returns its ``exact_match`` and ``f1``, in percent.

    A question id that is given twice, or on one side only, is a ``ValueError``.
    """

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        answers = {"text": datasets.List(text), "answer_start": datasets.List(datasets.Value("int32"))}
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(
                {
                    "predictions": {"id": text, "prediction_text": text},
                    "references": {"id": text, "answers": answers},
                }
            ),
        )

    def _compute(self, predictions: list[Row], references: list[Row]) -> dict[str, float]:
        return squad_scores(
            _by_id((row["id"], row["prediction_text"]) for row in predictions),
            _by_id((row["id"], row["answers"]["text"]) for row in references),
        )


def _by_id(rows: Iterable[tuple[str, T]]) -> dict[str, T]:
    by_id: dict[str, T] = {}
    for question, value in rows:
        if question in by_id:
            raise ValueError(f"question {question!r} is given twice")
        by_id[question] = value
    return by_id
