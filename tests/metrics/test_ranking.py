"""Scores of rankings on cases worked out by hand, and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sparse_xp.metrics.ranking import order_by_score, ranked_gains, ranking_metrics, relevant_ranks, retrieval_metrics


def gains(*values: float) -> np.ndarray:
    return np.array(values, float)


@pytest.mark.parametrize(
    ("ranking", "k", "expected"),
    [
        ([1.0, 0.0], 10, {"mrr_10": 1, "recall_10": 1, "ndcg_10": 1, "map": 1}),
        # second of two; discounts 1 / log2(2) = 1, 1 / log2(3) = 0.631
        ([0.0, 1.0], 10, {"mrr_10": 1 / 2, "recall_10": 1, "ndcg_10": 1 / math.log2(3), "map": 1 / 2}),
        # precision 1/2 at rank 2 and 2/4 at rank 4
        (
            [0.0, 1.0, 0.0, 1.0],
            10,
            {
                "mrr_10": 1 / 2,
                "recall_10": 1,
                "ndcg_10": (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3)),
                "map": 1 / 2,
            },
        ),
        # only the first two ranks count, but for the mean precision: 1/3 at rank 3, 2/4 at rank 4
        ([0.0, 0.0, 1.0, 1.0], 2, {"mrr_2": 0, "recall_2": 0, "ndcg_2": 0, "map": (1 / 3 + 1 / 2) / 2}),
        # one of three relevant ones is found: the best order would have gained 1 + 1 / log2(3) by rank 2
        (
            [1.0, 0.0, 1.0, 1.0],
            2,
            {"mrr_2": 1, "recall_2": 1 / 3, "ndcg_2": 1 / (1 + 1 / math.log2(3)), "map": (1 + 2 / 3 + 3 / 4) / 3},
        ),
        # graded gains count as they are: 1 + 3 / log2(3) of 3 + 1 / log2(3)
        (
            [1.0, 3.0, 0.0],
            10,
            {
                "mrr_10": 1,
                "recall_10": 1,
                "ndcg_10": (1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)),
                "map": 1,
            },
        ),
    ],
)
def test_scores_of_one_query(ranking: list[float], k: int, expected: dict[str, float]) -> None:
    found = ranking_metrics([gains(*ranking)], k)
    assert found == pytest.approx({name: 100 * value for name, value in expected.items()})


def test_scores_are_means_over_the_queries_that_have_a_relevant_document() -> None:
    first, third = gains(1, 0), gains(0, 0, 1)
    found = ranking_metrics([first, gains(0, 0), third, gains()])
    assert found["mrr_10"] == pytest.approx(100 * (1 + 1 / 3) / 2)
    assert found == ranking_metrics([third, first])


def test_the_eleventh_rank_does_not_count_but_in_the_mean_precision() -> None:
    found = ranking_metrics([gains(*[0] * 10, 1)])
    assert found == pytest.approx({"mrr_10": 0, "recall_10": 0, "ndcg_10": 0, "map": 100 / 11})


@pytest.mark.parametrize("relevances", [[], [gains(0, 0)], [gains()]])
def test_without_a_relevant_document_there_is_no_score(relevances: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="no query has a relevant document"):
        ranking_metrics(relevances)


def test_a_negative_gain_is_refused() -> None:
    with pytest.raises(ValueError, match="a gain below 0"):
        ranking_metrics([gains(1, -1)])


def test_retrieval_is_the_ranking_of_documents_that_are_relevant_or_not() -> None:
    # ranks from 0: a query with one relevant document at the third rank, one with two, one with none
    found = retrieval_metrics([[2], [3, 0], []])
    assert found == ranking_metrics([gains(0, 0, 1, 0, 0), gains(1, 0, 0, 1)])
    assert found["mrr_10"] == pytest.approx(100 * (1 / 3 + 1) / 2)
    assert retrieval_metrics([[2_000]], k=5)["map"] == pytest.approx(100 / 2_001)


# Scores of a model


def test_gains_follow_the_scores_highest_first() -> None:
    assert ranked_gains(gains(0.1, 0.9, -2, 0.5), gains(0, 1, 3, 2)).tolist() == [1, 2, 0, 3]


@pytest.mark.parametrize("relevances", [[1, 0, 0, 0], [0, 0, 0, 1]])
def test_a_constant_model_gets_the_score_of_the_worst_order(relevances: list[float]) -> None:
    ranking = ranked_gains(np.zeros(4), gains(*relevances))
    assert ranking.tolist() == [0, 0, 0, 1]
    assert ranking_metrics([ranking])["mrr_10"] == 25


def test_ties_are_broken_among_equals_alone() -> None:
    assert ranked_gains(gains(1, 1, 2, 2), gains(3, 0, 1, 0)).tolist() == [0, 1, 0, 3]


def test_a_score_of_nan_is_the_last() -> None:
    assert ranked_gains(gains(math.nan, -5, 1), gains(2, 0, 0)).tolist() == [0, 0, 2]
    assert relevant_ranks(gains(math.nan, -5, 1), [0]) == [2]
    assert order_by_score(gains(math.nan, -5, 1)).tolist() == [2, 1, 0]


def test_the_order_to_show_keeps_equals_as_they_are() -> None:
    assert order_by_score(gains(1, 2, 1, 2)).tolist() == [1, 3, 0, 2]


def test_ranks_of_the_relevant_documents_are_those_of_the_ranking() -> None:
    assert relevant_ranks(gains(0.5, 0.9, 0.5, 0.1, 0.5), [4, 1]) == [0, 3]
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores, relevant = rng.integers(0, 5, 20), rng.choice(20, 3, replace=False)
        ranking = ranked_gains(scores.astype(float), np.isin(np.arange(20), relevant).astype(float))
        assert relevant_ranks(scores, relevant.tolist()) == ranking.nonzero()[0].tolist()


def test_scores_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    for k in (1, 3, 10):
        scores = [rng.permutation(15) / 15 for _ in range(20)]  # without ties, which scikit-learn averages over
        graded = [rng.integers(0, 4, 15).astype(float) for _ in range(20)]
        found = ranking_metrics([ranked_gains(*query) for query in zip(scores, graded, strict=True)], k)
        assert found[f"ndcg_{k}"] == pytest.approx(100 * metrics.ndcg_score(graded, scores, k=k))
        precisions = [metrics.average_precision_score(of > 0, by) for of, by in zip(graded, scores, strict=True)]
        assert found["map"] == pytest.approx(100 * np.mean(precisions))
