"""Scores of rankings: reciprocal rank, recall, nDCG and average precision of queries, as pure functions.

A ranking is the *gains* of a query's documents, best-ranked first: 0 for a document that does not answer the query, a
larger number for one that does. A document with a gain above 0 is called relevant. Scores of one ranking are fractions,
0 to 1; those of many (``ranking_metrics``, ``retrieval_metrics``) are their means in percent.

nDCG takes gains as they are, not ``2**gain - 1``, as trec_eval and ``sklearn.metrics.ndcg_score`` do. The two forms
agree for gains of 0 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

# numpy is imported late: composing a configuration loads this module.
if TYPE_CHECKING:
    import numpy as np


def ranking_metrics(relevances: Sequence[np.ndarray], k: int = 10) -> dict[str, float]:
    """Return ``mrr_10``, ``recall_10``, ``ndcg_10`` and ``map`` in percent, the means over all queries.

    ``relevances``: for each query the gains of all its candidates in the order of their rank, best first. ``k``: how
    many ranks count for the first three; it is in their names. A query without a relevant candidate is left out, as no
    ranking of it is better than another. Raises ValueError for negative gains, and if no query is left.
    """
    if any((gains < 0).any() for gains in relevances):
        raise ValueError("a gain below 0: expected 0 for a document that is not relevant, more for one that is")
    judged = [gains for gains in relevances if gains.any()]
    if not judged:
        raise ValueError("no query has a relevant document: the score of its ranking is undefined")
    each = {
        f"mrr_{k}": [reciprocal_rank(gains, k) for gains in judged],
        f"recall_{k}": [recall(gains, k) for gains in judged],
        f"ndcg_{k}": [ndcg(gains, k) for gains in judged],
        "map": [average_precision(gains) for gains in judged],
    }
    return {name: 100.0 * sum(values) / len(values) for name, values in each.items()}


def retrieval_metrics(ranks: Sequence[Sequence[int]], k: int = 10) -> dict[str, float]:
    """Return the scores of ``ranking_metrics`` for documents that are relevant or not.

    ``ranks``: for each query the ranks of its relevant documents among all documents, from 0, in any order.
    """
    import numpy as np

    relevances = [np.zeros(1 + max(of_query, default=0)) for of_query in ranks]
    for gains, of_query in zip(relevances, ranks, strict=True):
        gains[list(of_query)] = 1.0
    return ranking_metrics(relevances, k)


def ranked_gains(scores: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Return ``gains`` [documents] in the order of the ``scores`` [documents] of a model, highest first.

    Of documents with the same score the least relevant comes first: a model that cannot tell them apart gets the score
    of the worst order, whatever the order in the file. A score of nan comes last.
    """
    import numpy as np

    return gains[np.lexsort((gains, -_without_nan(scores)))]


def relevant_ranks(scores: np.ndarray, relevant: Sequence[int]) -> list[int]:
    """Return the ranks, from 0, that the ``relevant`` documents have by ``scores`` [documents], best first.

    ``relevant``: their numbers, each once. Ties and nan are as in ``ranked_gains``; nothing is sorted but ``relevant``.
    """
    import numpy as np

    scores, numbers = _without_nan(scores), list(relevant)
    others = np.delete(scores, numbers)
    return [int((others >= score).sum()) + i for i, score in enumerate(sorted(scores[numbers], reverse=True))]


def order_by_score(scores: np.ndarray) -> np.ndarray:
    """Return the numbers of the documents, the highest of the ``scores`` first; equal ones stay in their order.

    This is the order to show. ``ranked_gains`` is the one to score: here a constant model keeps the order it is given.
    """
    import numpy as np

    return np.argsort(-_without_nan(scores), kind="stable")


def reciprocal_rank(gains: np.ndarray, k: int) -> float:
    """Return 1 / rank of the first relevant document, counted from 1; 0 if none is among the first ``k``."""
    found = gains[:k].nonzero()[0]
    return 1.0 / (1 + int(found[0])) if len(found) else 0.0


def recall(gains: np.ndarray, k: int) -> float:
    """Return the share of all relevant documents that is among the first ``k``. There must be one."""
    return float((gains[:k] > 0).sum() / (gains > 0).sum())


def ndcg(gains: np.ndarray, k: int) -> float:
    """Return the discounted gain of the first ``k`` documents as a share of the best order's. One must be relevant."""
    import numpy as np

    best = -np.sort(-gains)
    return _discounted(gains[:k]) / _discounted(best[:k])


def average_precision(gains: np.ndarray) -> float:
    """Return the mean, over the ranks of relevant documents, of the share of relevant ones up to there."""
    import numpy as np

    places = gains.nonzero()[0] + 1
    return float((np.arange(1, len(places) + 1) / places).mean())


def _discounted(gains: np.ndarray) -> float:
    """Return the sum of gain / log2(1 + rank), with ranks from 1."""
    import numpy as np

    return float((gains / np.log2(np.arange(2, len(gains) + 2))).sum())


def _without_nan(scores: np.ndarray) -> np.ndarray:
    """Return the scores as floats, with -inf in place of nan."""
    import numpy as np

    return np.where(np.isnan(scores), -np.inf, scores)
