"""The rows of a query together: rankings of its documents, and subsets of whole queries. Pure functions.

A row is a query with one of its documents. ``keys`` has, for each row, what names its query.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from sparse_xp.errors import UserError
from sparse_xp.metrics.ranking import ranked_gains, ranking_metrics
from sparse_xp.tasks.holdout import permutation

#: metrics of the rankings of all queries, in per cent
RANKING_METRICS = ("ndcg_10", "mrr_10", "map", "recall_10")


def rows_of_queries(keys: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    """Return the numbers of the rows of each query."""
    rows: dict[Hashable, list[int]] = {}
    for number, key in enumerate(keys):
        rows.setdefault(key, []).append(number)
    return rows


def whole_queries(keys: Sequence[Hashable], limit: int) -> list[int]:
    """Return the numbers of at most ``limit`` rows: all of each of some queries, and at least one query.

    The draw is the same every time.
    """
    members = list(rows_of_queries(keys).values())
    chosen: list[int] = []
    for number in permutation(len(members)):
        if chosen and len(chosen) + len(members[number]) > limit:
            break
        chosen += members[number]
    return sorted(chosen)


def check_several_documents(keys: Sequence[Hashable], where: str) -> list[str]:
    """Return a warning about queries that have one document, which every model ranks first.

    Raises UserError if there is no other query. ``where``: begins the message.
    """
    sizes = [len(rows) for rows in rows_of_queries(keys).values()]
    single = sizes.count(1)
    if single == len(sizes):
        raise UserError(
            f"{where} has one document for each query, so that there is nothing to rank. Give several rows to a query; "
            "task.group= names the column in which they have the same value."
        )
    return [f"{single} of {len(sizes)} queries have one document, which every model ranks first"] if single else []


def check_relevant(gains: Sequence[float], where: str) -> None:
    """Raise UserError if no document is relevant. ``where``: begins the message."""
    if not any(gain > 0 for gain in gains):
        raise UserError(
            f"{where}: no document answers its query, so that no ranking is right. Labels are 0 for a document that "
            "does not, and more for one that does; of two classes the last one does."
        )


def score_queries(keys: Sequence[Hashable], scores: Sequence[float], gains: Sequence[float]) -> dict[str, float]:
    """Return the ``RANKING_METRICS`` of the documents of all queries, ranked by ``scores``; all are [rows]."""
    import numpy as np

    by_score, by_gain = np.asarray(scores, float), np.asarray(gains, float)
    rankings = [ranked_gains(by_score[rows], by_gain[rows]) for rows in rows_of_queries(keys).values()]
    return ranking_metrics(rankings)


def scored_queries(keys: Sequence[Hashable], gains: Sequence[float]) -> int:
    """Return the number of queries with a relevant document, which alone count in ``score_queries``."""
    return len({key for key, gain in zip(keys, gains, strict=True) if gain > 0})
