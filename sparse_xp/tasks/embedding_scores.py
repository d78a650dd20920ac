"""Scores of embeddings: correlation with scores of pairs, retrieval, agreement with a teacher. Numpy alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparse_xp.metrics import scores
from sparse_xp.metrics.ranking import relevant_ranks, retrieval_metrics

# numpy is imported late: composing a configuration loads this module.
if TYPE_CHECKING:
    import numpy as np

#: how many nearest texts are compared
NEAREST = 10
#: rows of a matrix of cosines that are computed at once
CHUNK = 1024


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Return the vectors [texts, size] with length 1, so that products are cosines."""
    import numpy as np

    unit: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


def pair_scores(first: np.ndarray, second: np.ndarray, gold: list[float]) -> dict[str, float]:
    """Return the correlations of cosines and gold scores, times 100. ``first``, ``second``: unit vectors by pair."""
    import numpy as np

    cosines = np.einsum("ij,ij->i", first, second).tolist()
    return scores.spearman(cosines, gold) | scores.pearson(cosines, gold)


def retrieval_scores(
    queries: np.ndarray, documents: np.ndarray, wanted: list[str], there: list[str]
) -> dict[str, float]:
    """Return MRR, recall and nDCG at 10, in per cent, of queries against a collection of documents.

    ``queries``, ``documents``: unit vectors. ``wanted``: the text of the document that each query should find.
    ``there``: the texts of the documents; a text that stands there twice counts as one document.
    """
    places: dict[str, int] = {}
    for place, text in enumerate(there):
        places.setdefault(text, place)
    numbers = {text: number for number, text in enumerate(places)}
    collection = documents[list(places.values())]
    ranks: list[list[int]] = []
    for begin in range(0, len(queries), CHUNK):
        cosines = queries[begin : begin + CHUNK] @ collection.T
        ranks += [relevant_ranks(row, [numbers[text]]) for row, text in zip(cosines, wanted[begin:], strict=False)]
    found = retrieval_metrics(ranks, NEAREST)
    return {name: value for name, value in found.items() if name != "map"}


def agreement(
    ours: np.ndarray, theirs: np.ndarray, sides: tuple[np.ndarray, np.ndarray] | None = None
) -> dict[str, float]:
    """Return how far two models agree: ``teacher_overlap_10`` and ``teacher_cosine``, times 100.

    ``ours``, ``theirs``: unit vectors of the same texts. ``sides``: which of them are queries, and which the documents
    that their nearest are looked for in; None: among all other texts. The cosine is left out for embeddings of two
    sizes.
    """
    import numpy as np

    shares = []
    asked = np.arange(len(ours)) if sides is None else np.flatnonzero(sides[0])
    among = np.arange(len(ours)) if sides is None else np.flatnonzero(sides[1])
    count = min(NEAREST, len(among) - (sides is None))
    for begin in range(0, len(asked), CHUNK):
        rows = asked[begin : begin + CHUNK]
        itself = rows if sides is None else None
        nearest = [_nearest(each[rows] @ each[among].T, itself, count) for each in (ours, theirs)]
        shares += [len(np.intersect1d(one, other)) / max(1, count) for one, other in zip(*nearest, strict=True)]
    found = {f"teacher_overlap_{NEAREST}": 100 * float(np.mean(shares))}
    if ours.shape == theirs.shape:
        found["teacher_cosine"] = 100 * float(np.einsum("ij,ij->i", ours, theirs).mean())
    return found


def _nearest(cosines: np.ndarray, own: np.ndarray | None, count: int) -> np.ndarray:
    """Return the numbers of the ``count`` nearest texts of each row, in any order. ``own``: the text that a row is."""
    import numpy as np

    if own is not None:
        cosines[np.arange(len(own)), own] = -np.inf
    if not 0 < count < cosines.shape[1]:
        return np.argsort(-cosines, axis=1)[:, :count]
    return np.argpartition(-cosines, count - 1, axis=1)[:, :count]
