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
    """Yield pairs of segments (A, B, label) of ``length`` tokens at most; label 0: B follows A, 1: it does not.

    As for BERT (Devlin et al. 2019, appendix A.2): sentences are gathered until they fill the row. For the share
    ``short`` of the documents the row is shorter, of a random length. The first sentences are A. With probability
    ``random_next``, or if there is only one sentence, B comes from another document, and the sentences that it
    displaces are used again. Too long pairs are cut at the end of the longer segment. Raises ValueError for a single
    document.
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
                second, begin = random_segment(documents, number, target - len(first), rng), cut
            else:
                second, begin = joined(document[cut:end]), end
            yield *cut_longest(first, second, length), int(unrelated)


def random_segment(documents: list[Document], excluded: int, length: int, rng: random.Random) -> list[int]:
    """Return sentences of a random document, not that of number ``excluded``, until they have ``length`` tokens."""
    number = int(rng.random() * (len(documents) - 1))
    document = documents[number + (number >= excluded)]
    segment: list[int] = []
    for sentence in document[int(rng.random() * len(document)) :]:
        segment += sentence
        if len(segment) >= length:
            break
    return segment


def cut_longest(first: list[int], second: list[int], length: int) -> tuple[list[int], list[int]]:
    """Return both segments cut to ``length`` tokens together: the longer one loses its end, in a tie ``second``."""
    keep = min(len(first), max(length - len(second), (length + 1) // 2))
    return first[:keep], second[: length - keep]


def pack_documents(documents: list[Document], length: int, separator: int) -> Iterator[list[int]]:
    """Yield each document as rows of whole sentences with ``separator`` between them, of ``length`` tokens at most.

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
    """Return the tokens of all sentences."""
    return [token for sentence in sentences for token in sentence]
