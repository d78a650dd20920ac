"""Invented documents for ``profile=embedded``: what one person did, or what a film was like and how it was met.

Most masked words can be guessed from the others: a document keeps to one person, and the viewers of a good film liked
it. Whether one sentence follows another can be guessed in the same way.
"""

from __future__ import annotations

import random

from sparse_xp.synthetic.split import check_split, pick, split_of
from sparse_xp.synthetic.words import (
    ADVERBS,
    ASPECTS,
    BAD,
    DISLIKED,
    FILLINGS,
    GOOD,
    LIKED,
    PEOPLE,
    TOPICS,
    VIEWERS,
)

#: how many sentences a document may have
SENTENCES = range(3, 9)


def document_rows(split: str, rows: int, seed: int = 0) -> list[str]:
    """Return ``rows`` texts. ``split``: ``train`` or ``validation``, which share none; ValueError for another."""
    check_split(split)
    rng = random.Random(f"documents/{split}/{seed}")
    texts: list[str] = []
    while len(texts) < rows:
        length = pick(rng, SENTENCES)
        generate = _life if rng.random() < 0.5 else _criticism
        text = generate(rng, length)
        if split_of(text) == split:
            texts.append(text)
    return texts


def document_words() -> list[str]:
    """Return texts that hold every word of the documents."""
    texts = [*PEOPLE, *VIEWERS, *LIKED, *DISLIKED, *ASPECTS, *ADVERBS, *GOOD, *BAD, *FILLINGS, "the is it and then"]
    for forms, _, kinds in TOPICS:
        texts += [*forms, *(word for words in kinds.values() for word in words)]
    return texts


def _life(rng: random.Random, length: int) -> str:
    """Return ``length`` sentences about what one person did."""
    person, sentences = pick(rng, PEOPLE), list[str]()
    for _ in range(length):
        deeds = []
        for _ in range(1 + (rng.random() < 0.5)):
            forms, _, kinds = pick(rng, TOPICS)
            deeds.append(pick(rng, forms).format(pick(rng, kinds[pick(rng, list(kinds))])))
        sentences.append(f"{'Then ' if sentences and rng.random() < 0.3 else ''}{person} {' and '.join(deeds)}.")
    return " ".join(sentences)


def _criticism(rng: random.Random, length: int) -> str:
    """Return ``length`` sentences about one film and how its viewers liked it."""
    good, sentences = rng.random() < 0.5, []
    for _ in range(length):
        if rng.random() < 0.6:
            words = ["The", pick(rng, ASPECTS), "is"]
            words += [pick(rng, ADVERBS)] if rng.random() < 0.5 else []
            words += [pick(rng, GOOD if good else BAD)]
            words += [pick(rng, FILLINGS)] if rng.random() < 0.3 else []
        else:
            words = [pick(rng, VIEWERS).capitalize(), pick(rng, LIKED if good else DISLIKED), "it"]
        sentences.append(" ".join(words) + ".")
    return " ".join(sentences)
