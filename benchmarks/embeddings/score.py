"""Score exported files:  python -m benchmarks.embeddings.score RESULTS.json FILE... --data DATA

A FILE is ``LABEL:DIR``, ``LABEL@SEED:DIR`` or the directory of a run named ``LABEL,seed=SEED``. Its folder has
``model.onnx`` (output ``sentence_embedding``) and ``tokenizer.json``. The first one is the reference (fp32). Labels
become rows of the table. RESULTS.json gets, in per cent:

- ``spearman``: of the cosine on the 1,500 pairs of STS-B's validation rows
- ``mrr_10``, ``recall_10``, ``ndcg_10``: 10,570 questions of SQuAD dev against its 2,067 paragraphs
- ``overlap_10``: share of the reference's ten nearest paragraphs that are among the file's ten nearest
- ``cosine``: with the reference's embedding of the same text; with fewer dimensions, of the reference's first ones

``--cut 256 128`` adds rows of the reference's own first dimensions.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from benchmarks.embeddings.collections import Pairs, Retrieval, read_pairs, read_retrieval
from benchmarks.embeddings.encode import embed_once
from benchmarks.embeddings.entries import parse_entry
from benchmarks.embeddings.results import add_results
from sparse_xp.metrics.ranking import relevant_ranks, retrieval_metrics
from sparse_xp.tasks.embedding_scores import unit_vectors

#: how many nearest paragraphs are compared
NEAREST = 10


def main() -> None:
    """Score the files one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("files", nargs="+", type=parse_entry)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / "embeddings-cache",
        help="embeddings, to run it again",
    )
    parser.add_argument("--cut", nargs="*", type=int, default=[], help="numbers of dimensions of the reference")
    options = parser.parse_args()
    pairs, retrieval = read_pairs(options.data), read_retrieval(options.data)
    texts = all_texts(pairs, retrieval)
    reference = embed_once(options.files[0].folder, texts, options.cache)
    for entry in options.files:
        begin = time.perf_counter()
        embeddings = embed_once(entry.folder, texts, options.cache)
        scores = score(embeddings, reference, texts, pairs, retrieval)
        size = entry.model.stat().st_size / 1e6
        add_results(options.results, "scores", {entry.name: {**scores, "megabytes": size}})
        print(f"{entry.name}: {describe(scores)}; {time.perf_counter() - begin:.0f} s", flush=True)
    for dimensions in options.cut:
        name = f"{options.files[0].name}, {dimensions} dimensions"
        scores = score(cut(reference, dimensions), reference, texts, pairs, retrieval)
        add_results(options.results, "scores", {name: scores})
        print(f"{name}: {describe(scores)}", flush=True)


def all_texts(pairs: Pairs, retrieval: Retrieval) -> list[str]:
    """Return the texts that are embedded, each once."""
    return list(dict.fromkeys([*pairs.first, *pairs.second, *retrieval.questions, *retrieval.paragraphs]))


def score(
    embeddings: np.ndarray, reference: np.ndarray, texts: list[str], pairs: Pairs, retrieval: Retrieval
) -> dict[str, float]:
    """Return all scores of a file. Embeddings: float32 [texts, dimensions], of length 1."""
    number = {text: place for place, text in enumerate(texts)}
    first, second, questions, paragraphs = (
        np.array([number[text] for text in part])
        for part in (pairs.first, pairs.second, retrieval.questions, retrieval.paragraphs)
    )
    cosines = (embeddings[first] * embeddings[second]).sum(1)
    found = embeddings[questions] @ embeddings[paragraphs].T
    expected = reference[questions] @ reference[paragraphs].T
    ranks = [relevant_ranks(row, [answer]) for row, answer in zip(found, retrieval.answers, strict=True)]
    return {
        "spearman": 100 * float(spearmanr(cosines, pairs.scores).statistic),
        **retrieval_metrics(ranks),
        "overlap_10": 100 * overlap(found, expected),
        "cosine": 100 * float((embeddings * cut(reference, embeddings.shape[1])).sum(1).mean()),
    }


def overlap(found: np.ndarray, expected: np.ndarray, nearest: int = NEAREST) -> float:
    """Return the mean share of the ``nearest`` columns by ``expected`` that are also nearest by ``found``.

    Both: similarities [questions, paragraphs].
    """
    own, other = (np.argsort(-each, axis=1, kind="stable")[:, :nearest] for each in (found, expected))
    return float((own[:, :, None] == other[:, None, :]).any(2).mean())


def cut(embeddings: np.ndarray, dimensions: int) -> np.ndarray:
    """Return the first dimensions of embeddings, of length 1 again."""
    return unit_vectors(embeddings[:, :dimensions])


def describe(scores: dict[str, float]) -> str:
    """Return the scores on one line."""
    return ", ".join(f"{name} {value:.2f}" for name, value in scores.items())


if __name__ == "__main__":
    main()
