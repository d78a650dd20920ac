"""Losses of embedding models. Each is a mean over texts, pairs or queries, computed in float32."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

#: Divides cosines before they are compared by a softmax: the default of sentence-transformers (its scale is 20).
TEMPERATURE = 0.05


def embedding_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return how far the student's embeddings are from the teacher's: 0 if all cosines agree.

    The mean of 1 - cos(student, teacher) over the texts, plus ``similarity_distance``. Where the student's embeddings
    have another size than the teacher's, only the latter can be computed. ``student``, ``teacher``: [texts, size].
    """
    student, teacher = student.float(), teacher.float()
    similarity = similarity_distance(student, teacher)
    if student.shape[-1] != teacher.shape[-1]:
        return similarity
    return (1 - cosine_similarity(student, teacher, dim=-1)).mean() + similarity


def similarity_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the distance of the two matrices of cosines between the texts of a batch (Tung and Mori 2019).

    The mean squared difference, times a quarter of the size of the teacher's embeddings. If each embedding is off by a
    small error of random direction, the result is then as large as the mean of 1 - cos, whatever the size and the
    number of texts: neither term outweighs the other. ``student``, ``teacher``: [texts, any size].
    """
    ours, theirs = (normalize(each, dim=-1) for each in (student, teacher))
    return (ours @ ours.T - theirs @ theirs.T).square().mean() * (teacher.shape[-1] / 4)


def cosent_loss(first: Tensor, second: Tensor, scores: Tensor) -> Tensor:
    """Return the CoSENT loss: of two pairs of texts the one with the higher score should have the higher cosine.

    log(1 + the sum of exp((cos(pair i) - cos(pair j)) / temperature) over all i, j with score i < score j) (Su 2022;
    ``CoSENTLoss`` of sentence-transformers). Only the order of the scores counts, not their scale.
    ``first``, ``second``: the embeddings of the texts of each pair, [pairs, size]. ``scores``: [pairs].
    """
    cosines = cosine_similarity(first.float(), second.float(), dim=-1) / TEMPERATURE
    differences = (cosines[:, None] - cosines[None, :]).masked_fill(scores[:, None] >= scores[None, :], float("-inf"))
    return torch.cat([differences.new_zeros(1), differences.flatten()]).logsumexp(0)


def ranking_loss(queries: Tensor, documents: Tensor, same: Tensor | None = None) -> Tensor:
    """Return the loss of in-batch negatives: the first documents are those of the queries, all others are wrong.

    The cross entropy of a softmax over cos(query, document) / temperature (Henderson et al. 2017, arXiv:1705.00652;
    ``MultipleNegativesRankingLoss`` of sentence-transformers).
    ``queries``: [queries, size]. ``documents``: [at least as many, size]: document i is that of query i, those behind
    are negatives. ``same`` [queries, documents] bool: other documents that are equal to a query's own; they are left
    out, as they are not wrong.
    """
    cosines = normalize(queries.float(), dim=-1) @ normalize(documents.float(), dim=-1).T / TEMPERATURE
    right = torch.arange(len(queries), device=queries.device)
    if same is not None:
        own = torch.nn.functional.one_hot(right, len(documents)).bool()
        cosines = cosines.masked_fill(same & ~own, float("-inf"))
    return cross_entropy(cosines, right)


def equal_rows(rows: Tensor, others: Tensor) -> Tensor:
    """Return which rows of two matrices of token ids are equal, [rows, others] bool. They have one width."""
    return (rows[:, None] == others[None]).all(-1)
