"""From documents to rows of tokens for pretraining. Pure functions of lists.

A document is a list of sentences, a sentence a list of token numbers. Random numbers come from ``random()`` alone: the
only method of ``random.Random`` whose sequence Python promises to keep.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

Sentence = list[int]
Document = list[Sentence]


def segment_pairs(
    documents: list[Document], length: int, rng: random.Random, short: float = 0.1, random_next: float = 0.5
) -> Iterator[tuple[list[int], list[int], int]]:
    """Pairs of segments (A, B, 0 if B follows A, 1 if it comes from another document) of ``length`` tokens at most.

    As for BERT (Devlin et al. 2019, appendix A.2): sentences are gathered until they fill the row, which for the share
    ``short`` of the documents is shorter, of a random length. The first of them are A; with probability
    ``random_next``, or where there is but one sentence, B comes from another of ``documents``, and what it displaces is
    used again. What is too long is cut at the end of the longer segment. Raises ValueError for a single document.
    """
    if len(documents) < 2:
        raise ValueError(f"{len(documents)} documents: pairs need two at least")
    for number, document in enumerate(documents):
        target = length if rng.random() >= short else 2 + int(rng.random() * (length - 1))
        begin = 0
        while begin < len(document):
            end, size = begin, 0
            while end < len(document) and (size < target or end == begin):
                size += len(document[end])
                end += 1
            cut = begin + 1 + (int(rng.random() * (end - begin - 1)) if end - begin > 1 else 0)
            first = joined(document[begin:cut])
            unrelated = end - begin == 1 or rng.random() < random_next
            if unrelated:
                other = int(rng.random() * (len(documents) - 1))
                elsewhere = documents[other + (other >= number)]
                start = int(rng.random() * len(elsewhere))
                second: list[int] = []
                for sentence in elsewhere[start:]:
                    second += sentence
                    if len(second) >= target - len(first):
                        break
                begin = cut
            else:
                second, begin = joined(document[cut:end]), end
            yield *cut_longest(first, second, length), int(unrelated)


def cut_longest(first: list[int], second: list[int], length: int) -> tuple[list[int], list[int]]:
    """Both without what is too much for ``length`` tokens, taken from the end of the longer, of ``second`` in a tie."""
    keep = min(len(first), max(length - len(second), (length + 1) // 2))
    return first[:keep], second[: length - keep]


def document_rows(documents: list[Document], length: int, separator: int) -> Iterator[list[int]]:
    """Each document as rows of whole sentences with ``separator`` between them, of ``length`` tokens at most.

    A longer sentence is cut into pieces. No row holds tokens of two documents.
    """
    for document in documents:
        row: list[int] = []
        for sentence in document:
            for start in range(0, len(sentence), length):
                piece = sentence[start : start + length]
                if row and len(row) + 1 + len(piece) > length:
                    yield row
                    row = []
                row = [*row, separator, *piece] if row else piece
        if row:
            yield row


def joined(sentences: Document) -> list[int]:
    """The tokens of all sentences."""
    return [token for sentence in sentences for token in sentence]
