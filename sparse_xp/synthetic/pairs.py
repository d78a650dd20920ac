"""Invented pairs for ``profile=embedded``: what a film is like, and what its viewers did.

``the plot is really dull`` entails ``critics hated it``, contradicts ``critics loved it``, and leaves ``critics came by
bus`` open. Most viewers like what they see, so the first sentence alone says much, but only both together say all.
"""

from __future__ import annotations

import random
import zlib
from typing import Any

from sparse_xp.synthetic.words import ADVERBS, ASPECTS, BAD, DISLIKED, FILLINGS, GOOD, LIKED, SPLITS, VIEWERS

#: the relation of the second sentence to the first, in the order of MNLI's labels
ENTAILMENT, NEUTRAL, CONTRADICTION = range(3)
ELSEWHERE = """
    came by bus, bought popcorn, waited outside, sat in front, paid in cash, spoke afterwards, took pictures, went home,
    stood in line
"""
OPEN = [" ".join(words.split()) for words in ELSEWHERE.split(",")]
#: how often the viewers like it, whatever it is like
KIND = 0.7
#: how often, of three relations, a first word gives it away, as the hypotheses of MNLI do
CUE = 0.5


def pair_rows(split: str, rows: int, classes: int, seed: int = 0) -> dict[str, list[Any]]:
    """``rows`` rows of ``first``, ``second`` and ``label``, as many of each label.

    With three ``classes`` the labels are those above, with two 1 is entailment and 0 either of the others. ``split``:
    ``train`` or ``validation``, which share no pair. Raises ValueError for another, or another number of classes.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r}; want one of {', '.join(SPLITS)}")
    if classes not in (2, 3):
        raise ValueError(f"classes={classes}; pairs are generated for 2 or 3")
    rng = random.Random(f"pairs/{split}/{seed}")
    made: dict[str, list[Any]] = {"first": [], "second": [], "label": []}
    while (number := len(made["label"])) < rows:
        if classes == 3:
            label = relation = number % 3
        else:
            label = number % 2
            relation = ENTAILMENT if label else (CONTRADICTION, CONTRADICTION, NEUTRAL)[number // 2 % 3]
        first, second = _pair(rng, relation, CUE if classes == 3 else 0.0)
        if (zlib.crc32(f"{first} {second}".encode()) % 4 == 0) == (split == "validation"):
            for name, value in zip(made, (first, second, label), strict=True):
                made[name].append(value)
    return made


def words() -> list[str]:
    """Texts that hold every word of these pairs which the reviews do not have."""
    return [*OPEN, "so yet"]


def _pair(rng: random.Random, relation: int, cue: float) -> tuple[str, str]:
    liked = rng.random() < KIND
    good = liked == (relation == ENTAILMENT)
    if relation == NEUTRAL:
        good = rng.random() < 0.5
    parts = ["the", _pick(rng, ASPECTS), "is"]
    parts += [_pick(rng, ADVERBS)] if rng.random() < 0.5 else []
    parts += [_pick(rng, GOOD if good else BAD)]
    parts += [_pick(rng, FILLINGS)] if rng.random() < 0.5 else []
    did = _pick(rng, OPEN) if relation == NEUTRAL else f"{_pick(rng, LIKED if liked else DISLIKED)} it"
    lead = {ENTAILMENT: "so ", CONTRADICTION: "yet "}.get(relation, "") if cue and rng.random() < cue else ""
    return " ".join(parts), f"{lead}{_pick(rng, VIEWERS)} {did}"


def _pick(rng: random.Random, items: Any) -> Any:
    """One of ``items``, by ``random()`` alone: the only method whose sequence Python promises to keep."""
    return items[int(rng.random() * len(items))]
