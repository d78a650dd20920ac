"""Rankings of the documents of a query, and subsets of whole queries."""

from __future__ import annotations

import math

import pytest

from sparse_xp.errors import UserError
from sparse_xp.tasks.query_groups import (
    RANKING_METRICS,
    check_relevant,
    check_several_documents,
    score_queries,
    scored_queries,
    whole_queries,
)


def test_documents_are_ranked_within_their_query():
    keys = ["a", "b", "a", "b", "b"]
    # a: its answer is second of two; b: its answer is first of three, whatever the scores of the other query
    found = score_queries(keys, [0.9, 5.0, 0.1, 4.0, 3.0], [0, 1, 1, 0, 0])
    assert list(found) == ["mrr_10", "recall_10", "ndcg_10", "map"]
    assert set(found) == set(RANKING_METRICS)
    assert found == pytest.approx(
        {"mrr_10": 75, "recall_10": 100, "ndcg_10": 100 * (1 / math.log2(3) + 1) / 2, "map": 75}
    )


def test_queries_without_an_answer_do_not_count():
    keys, scores, gains = [1, 1, 2, 2, 3], [1.0, 0.0, 1.0, 0.0, 0.0], [1, 0, 0, 0, 2]
    assert scored_queries(keys, gains) == 2
    assert score_queries(keys, scores, gains) == score_queries([1, 1, 3], [1.0, 0.0, 0.0], [1, 0, 2])


def test_a_constant_model_gains_nothing_by_the_order_of_the_rows():
    first, last = (score_queries(["a"] * 4, [0.5] * 4, gains)["mrr_10"] for gains in ([1, 0, 0, 0], [0, 0, 0, 1]))
    assert first == last == 25


def test_a_subset_has_whole_queries():
    keys = [i // 7 for i in range(700)]
    chosen = whole_queries(keys, 100)
    assert len(chosen) == 98
    assert chosen == sorted(chosen) == whole_queries(keys, 100)
    assert {keys[i] for i in chosen}.isdisjoint(keys[i] for i in range(700) if i not in set(chosen))
    assert len(whole_queries(keys, 3)) == 7


def test_queries_with_one_document_are_counted_and_some_need_two():
    assert check_several_documents(["a", "a", "b", "b"], "the data") == []
    assert check_several_documents(["a", "b", "b", "c"], "the data") == [
        "2 of 3 queries have one document, which every model ranks first"
    ]
    with pytest.raises(UserError, match=r"^the data has one document for each query.* task\.group="):
        check_several_documents(["a", "b"], "the data")


def test_some_document_has_to_answer_its_query():
    check_relevant([0, 0.1], "the data")
    with pytest.raises(UserError, match=r"^the data: no document answers its query"):
        check_relevant([0, 0], "the data")
