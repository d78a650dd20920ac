"""Losses of embedding models, on numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import tensor

from sparse_xp.functional.embedding_losses import (
    cosent_loss,
    embedding_distance,
    equal_rows,
    ranking_loss,
    similarity_distance,
)

EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]


def test_equal_embeddings_have_no_distance_whatever_their_length():
    vectors = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))

    assert embedding_distance(3 * vectors, vectors).item() == pytest.approx(0, abs=1e-6)


def test_the_distance_is_one_minus_the_cosine_and_the_difference_of_the_similarities():
    # Cosines with the teacher: 1 and 0. Similarity of the two texts: the student's 1, the teacher's 0; of four entries
    # of the matrix two differ by 1, times a quarter of the size 2.
    student, teacher = tensor([EAST, EAST]), tensor([EAST, NORTH])

    assert similarity_distance(student, teacher).item() == pytest.approx(0.5 * 2 / 4)
    assert embedding_distance(student, teacher).item() == pytest.approx(0.5 + 0.25)


def test_embeddings_of_another_size_are_compared_by_their_similarities_alone():
    student, teacher = tensor([[1.0], [1.0]]), tensor([EAST, NORTH])

    assert embedding_distance(student, teacher).item() == pytest.approx(0.25)


def test_small_errors_of_random_direction_weigh_as_much_in_both_terms():
    generator = torch.Generator().manual_seed(0)
    teacher = torch.nn.functional.normalize(torch.randn(256, 384, generator=generator), dim=-1)
    student = teacher + 0.1 * torch.randn(256, 384, generator=generator) / 384**0.5

    cosine = (1 - torch.nn.functional.cosine_similarity(student, teacher)).mean()

    assert similarity_distance(student, teacher).item() == pytest.approx(cosine.item(), rel=0.1)


def test_cosent_counts_pairs_whose_cosines_contradict_their_scores():
    # Cosines 1 and 0, times 20. The pair with the higher score has the lower cosine: log(1 + exp(20)).
    first, second = tensor([EAST, EAST]), tensor([EAST, NORTH])

    assert cosent_loss(first, second, tensor([1.0, 4.0])).item() == pytest.approx(math.log(1 + math.exp(20)), abs=1e-4)
    assert cosent_loss(first, second, tensor([4.0, 1.0])).item() == pytest.approx(math.log(1 + math.exp(-20)), abs=1e-6)


def test_cosent_passes_over_pairs_of_one_score():
    first, second = tensor([EAST, EAST]), tensor([EAST, NORTH])

    assert cosent_loss(first, second, tensor([2.0, 2.0])).item() == 0


def test_in_batch_negatives_are_a_softmax_over_all_documents():
    # The first query has cosines 1 and 0, the second 0 and 1 with the two documents, and -1 and 0 with the negative.
    queries, documents = tensor([EAST, NORTH]), tensor([EAST, NORTH, WEST])
    first = math.log(math.exp(20) + 1 + math.exp(-20)) - 20
    second = math.log(math.exp(20) + 2) - 20

    assert ranking_loss(queries, documents).item() == pytest.approx((first + second) / 2, abs=1e-6)


def test_a_document_that_equals_the_right_one_is_no_wrong_answer():
    queries, documents = tensor([EAST, EAST]), tensor([EAST, EAST])
    tokens = tensor([[5, 6, 0], [5, 6, 0]])

    assert ranking_loss(queries, documents).item() == pytest.approx(math.log(2))
    assert ranking_loss(queries, documents, equal_rows(tokens, tokens)).item() == 0


def test_equal_rows_compares_whole_rows():
    assert equal_rows(tensor([[1, 2], [1, 3]]), tensor([[1, 2], [1, 2], [1, 3]])).tolist() == [
        [True, True, False],
        [False, False, True],
    ]


def test_losses_agree_with_sentence_transformers():
    library = pytest.importorskip("sentence_transformers.util")
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.randn(6, 5, generator=generator) for _ in range(2))
    scores = tensor([0.0, 1.0, 5.0, 3.0, 3.0, 2.0])

    # The formulas of CoSENTLoss and MultipleNegativesRankingLoss, written with the library's own similarities.
    cosines = 20 * library.pairwise_cos_sim(first, second)
    differences = cosines[:, None] - cosines[None, :] - (1 - (scores[:, None] < scores[None, :]).float()) * 1e12
    expected = torch.logsumexp(torch.cat([torch.zeros(1), differences.view(-1)]), 0)
    ranked = torch.nn.functional.cross_entropy(20 * library.cos_sim(first, second), torch.arange(6))

    assert cosent_loss(first, second, scores).item() == pytest.approx(expected.item(), rel=1e-5)
    assert ranking_loss(first, second).item() == pytest.approx(ranked.item(), rel=1e-5)
