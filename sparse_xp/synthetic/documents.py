"""Invented documents for ``profile=embedded``: what one person did, or what a film was like and how it was met.

Most masked words can be guessed from the others: a document keeps to its person, and the viewers of a good film liked
it. Which sentence comes next can be told by the same.
"""

from __future__ import annotations

import random
import zlib
from typing import Any

from sparse_xp.synthetic.words import (
    ADVERBS,
    ASPECTS,
    BAD,
    DISLIKED,
    FILLINGS,
    GOOD,
    LIKED,
    PEOPLE,
    SPLITS,
    TOPICS,
    VIEWERS,
)

SENTENCES = range(3, 9)


def document_rows(split: str, rows: int, seed: int = 0) -> list[str]:
    """``rows`` texts. ``split``: ``train`` or ``validation``, which share none. Raises ValueError for another."""
    if split not in SPLITS:
        raise ValueError(f"split={split!r}; want one of {', '.join(SPLITS)}")
    rng = random.Random(f"documents/{split}/{seed}")
    made: list[str] = []
    while len(made) < rows:
        length = SENTENCES[int(rng.random() * len(SENTENCES))]
        tell = _person if rng.random() < 0.5 else _film
        text = tell(rng, length)
        if (zlib.crc32(text.encode()) % 4 == 0) == (split == "validation"):
            made.append(text)
    return made


def _person(rng: random.Random, length: int) -> str:
    person, sentences = str(_pick(rng, PEOPLE)), list[str]()
    for _ in range(length):
        deeds = []
        for _ in range(1 + (rng.random() < 0.5)):
            forms, _, kinds = _pick(rng, TOPICS)
            deeds.append(_pick(rng, forms).format(_pick(rng, kinds[_pick(rng, list(kinds))])))
        sentences.append(f"{'Then ' if sentences and rng.random() < 0.3 else ''}{person} {' and '.join(deeds)}.")
    return " ".join(sentences)


def _film(rng: random.Random, length: int) -> str:
    good, sentences = rng.random() < 0.5, []
    for _ in range(length):
        if rng.random() < 0.6:
            words = ["The", _pick(rng, ASPECTS), "is"]
            words += [_pick(rng, ADVERBS)] if rng.random() < 0.5 else []
            words += [_pick(rng, GOOD if good else BAD)]
            words += [_pick(rng, FILLINGS)] if rng.random() < 0.3 else []
        else:
            words = [_pick(rng, VIEWERS).capitalize(), _pick(rng, LIKED if good else DISLIKED), "it"]
        sentences.append(" ".join(words) + ".")
    return " ".join(sentences)


def _pick(rng: random.Random, items: Any) -> Any:
    """One of ``items``, by ``random()`` alone: the only method whose sequence Python promises to keep."""
    return items[int(rng.random() * len(items))]
