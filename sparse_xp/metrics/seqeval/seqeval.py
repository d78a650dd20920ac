"""Entity precision, recall and F1 as an ``evaluate`` module that needs no network.

``evaluate.load("<checkout>/sparse_xp/metrics/seqeval")``, or the class itself.
"""

from __future__ import annotations

import datasets
import evaluate

from sparse_xp.metrics.scores import entity_scores

DESCRIPTION = "Precision, recall and F1 of entities in the BIO scheme (CoNLL-2000 rules), and accuracy of the tags."

INPUTS = """
Args:
    predictions: list of rows, each a list of tags such as "O", "B-PER", "I-PER".
    references: the same for the gold tags, as many rows with as many tags.
Returns:
    overall_precision, overall_recall, overall_f1: of all entities, fractions, 0 to 1.
    overall_accuracy: fraction of the tags that agree, 0 to 1.
"""

CITATION = """\
@misc{seqeval,
    title = {{seqeval}: A Python framework for sequence labeling evaluation},
    author = {Hiroki Nakayama},
    year = {2018},
    url = {https://github.com/chakki-works/seqeval},
}
"""


class Seqeval(evaluate.Metric):
    """Takes lists of tags and returns the hub's ``overall_*`` fractions; its scores by entity type are left out.

    Mind the unit: ``sparse_xp.metrics.scores.entity_scores`` is in percent. The hub's options (``suffix``, ``scheme``,
    ``mode``, ``sample_weight``, ``zero_division``) are not offered; passing one is a ``TypeError``.
    """

    def _info(self) -> evaluate.MetricInfo:
        tags = datasets.List(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": tags, "references": tags}),
        )

    def _compute(self, predictions: list[list[str]], references: list[list[str]]) -> dict[str, float]:
        found = entity_scores(predictions, references)
        return {f"overall_{name}": found[name] / 100 for name in ("precision", "recall", "f1", "accuracy")}
