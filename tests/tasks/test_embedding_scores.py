"""Scores of embeddings, on numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sparse_xp.tasks.embedding_scores import agreement, pair_scores, retrieval_scores, unit_vectors

EAST, NORTH, NORTH_EAST = [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]


def test_pairs_are_scored_by_the_ranks_of_their_cosines():
    # Cosines 1, 0 and 0.6.
    first, second = np.array([EAST, EAST, EAST]), np.array([EAST, NORTH, NORTH_EAST])

    assert pair_scores(first, second, [5.0, 0.0, 1.0])["spearman"] == pytest.approx(100)
    assert pair_scores(first, second, [1.0, 0.0, 5.0])["spearman"] == pytest.approx(50)


def test_a_query_is_scored_by_the_rank_of_its_document():
    # By cosine, the first query has its document first. The second has (0.6, 0.8) before (1, 0), which it should find.
    queries = np.array([EAST, NORTH])
    documents = np.array([EAST, NORTH_EAST])

    found = retrieval_scores(queries, documents, ["east", "east"], ["east", "north-east"])

    assert found == {"mrr_10": pytest.approx(75), "recall_10": 100, "ndcg_10": pytest.approx(50 * (1 + 1 / np.log2(3)))}


def test_a_document_that_stands_there_twice_counts_once():
    queries, documents = np.array([NORTH]), np.array([EAST, NORTH_EAST, NORTH_EAST])

    found = retrieval_scores(queries, documents, ["east"], ["east", "north-east", "north-east"])

    assert found["mrr_10"] == pytest.approx(50)


def test_documents_that_cannot_be_told_apart_come_before_the_right_one():
    found = retrieval_scores(np.array([EAST]), np.array([NORTH] * 20), ["3"], [str(number) for number in range(20)])

    assert found == {"mrr_10": 0, "recall_10": 0, "ndcg_10": 0}


def test_a_model_agrees_with_itself():
    vectors = unit_vectors(np.random.default_rng(0).normal(size=(30, 8)))

    assert agreement(vectors, vectors) == {"teacher_overlap_10": 100, "teacher_cosine": pytest.approx(100)}


def test_the_overlap_is_the_share_of_the_nearest_texts_that_both_have():
    # 21 texts on a circle; a model that turns all of them by the same angle has the same neighbours.
    angles = np.linspace(0, 3, 21)
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1)
    turned = np.stack([np.cos(angles + 1), np.sin(angles + 1)], 1)
    # Texts in another order along the circle: each text has half of its neighbours by chance.
    shuffled = vectors[np.random.default_rng(0).permutation(21)]

    assert agreement(turned, vectors)["teacher_overlap_10"] == pytest.approx(100)
    assert agreement(turned, vectors)["teacher_cosine"] == pytest.approx(100 * np.cos(1))
    assert 40 < agreement(shuffled, vectors)["teacher_overlap_10"] < 60


def test_few_texts_are_compared_by_all_others():
    vectors = unit_vectors(np.random.default_rng(0).normal(size=(3, 4)))

    assert agreement(vectors, vectors[::-1].copy())["teacher_overlap_10"] == 100


def test_queries_are_compared_by_their_nearest_documents():
    vectors = np.array([EAST, *([NORTH] * 10), *([NORTH_EAST] * 10)])
    other = np.array([NORTH, *([NORTH] * 10), *([NORTH_EAST] * 10)])
    query = np.arange(21) == 0

    assert agreement(vectors, other, (query, ~query))["teacher_overlap_10"] == 0


def test_embeddings_of_two_sizes_have_no_cosine():
    vectors = unit_vectors(np.random.default_rng(0).normal(size=(12, 4)))

    assert agreement(vectors[:, :2], vectors).keys() == {"teacher_overlap_10"}
