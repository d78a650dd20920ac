"""Invented pairs for ``profile=embedded``: what a film is like, and what its viewers did.

``the plot is really dull`` entails ``critics hated it``, contradicts ``critics loved it``, and leaves ``critics came by
bus`` open. Most viewers like what they see, so the first sentence alone says much, but only both together say all.
"""

from __future__ import annotations

import random
from typing import Any

from sparse_xp.synthetic.split import check_split, pick, split_of
from sparse_xp.synthetic.words import ADVERBS, ASPECTS, BAD, DISLIKED, FILLINGS, GOOD, LIKED, VIEWERS

#: the relation of the second sentence to the first, in the order of MNLI's labels
ENTAILMENT, NEUTRAL, CONTRADICTION = range(3)
ELSEWHERE = """
    came by bus, bought popcorn, waited outside, sat in front, paid in cash, spoke afterwards, took pictures, went home,
    stood in line
"""
OPEN = [" ".join(words.split()) for words in ELSEWHERE.split(",")]
#: the fraction of pairs whose viewers like the film, whatever it is like
KIND = 0.7
#: the fraction of pairs of three classes whose first word gives the label away, as in the hypotheses of MNLI
CUE = 0.5


def pair_rows(split: str, rows: int, classes: int, seed: int = 0) -> dict[str, list[Any]]:
    """Return ``rows`` rows of ``first``, ``second`` and ``label``, as many of each label.

    With three ``classes`` the labels are the relations above; with two, 1 is entailment and 0 either of the others.
    ``split``: ``train`` or ``validation``, which share no pair. Raises ValueError for another split, or another number
    of classes.
    """
    check_split(split)
    if classes not in (2, 3):
        raise ValueError(f"classes={classes}; pairs are generated for 2 or 3")
    rng = random.Random(f"pairs/{split}/{seed}")
    columns: dict[str, list[Any]] = {"first": [], "second": [], "label": []}
    while (number := len(columns["label"])) < rows:
        if classes == 3:
            label = relation = number % 3
        else:
            label = number % 2
            relation = ENTAILMENT if label else (CONTRADICTION, CONTRADICTION, NEUTRAL)[number // 2 % 3]
        first, second = _sentence_pair(rng, relation, CUE if classes == 3 else 0.0)
        if split_of(f"{first} {second}") == split:
            for name, value in zip(columns, (first, second, label), strict=True):
                columns[name].append(value)
    return columns


def pair_words() -> list[str]:
    """Return texts that hold every word of the pairs."""
    drawn = [*VIEWERS, *LIKED, *DISLIKED, *ASPECTS, *ADVERBS, *GOOD, *BAD, *FILLINGS]
    return [*drawn, *OPEN, "the is it so yet"]


def _sentence_pair(rng: random.Random, relation: int, cue: float) -> tuple[str, str]:
    """Return two sentences in that relation. ``cue``: see ``CUE``."""
    liked = rng.random() < KIND
    good = liked == (relation == ENTAILMENT)
    if relation == NEUTRAL:
        good = rng.random() < 0.5
    parts = ["the", pick(rng, ASPECTS), "is"]
    parts += [pick(rng, ADVERBS)] if rng.random() < 0.5 else []
    parts += [pick(rng, GOOD if good else BAD)]
    parts += [pick(rng, FILLINGS)] if rng.random() < 0.5 else []
    action = pick(rng, OPEN) if relation == NEUTRAL else f"{pick(rng, LIKED if liked else DISLIKED)} it"
    lead = {ENTAILMENT: "so ", CONTRADICTION: "yet "}.get(relation, "") if cue and rng.random() < cue else ""
    return " ".join(parts), f"{lead}{pick(rng, VIEWERS)} {action}"
