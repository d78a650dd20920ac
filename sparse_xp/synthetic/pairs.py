"""Invented pairs for ``profile=embedded``: what a film is like, and what its viewers did.

``the plot is really dull`` entails ``critics hated it``, contradicts ``critics loved it``, and leaves ``critics came by
bus`` open. Most viewers like what they see, so the first sentence alone says much, but only both together say all.

In ``query_rows`` the first sentence is a query with several second ones, which answer it if they follow from it.
"""

from __future__ import annotations

import random
from typing import Any

from sparse_xp.synthetic.split import check_split, pick, shuffled, split_of
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
#: the second sentences of a query
CANDIDATES = 6


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


def query_rows(split: str, rows: int, seed: int = 0) -> dict[str, list[Any]]:
    """Return ``rows`` rows of ``query``, ``first``, ``second`` and ``label``: six second sentences for each first one.

    ``query`` numbers the first sentences. One or two of the second ones follow (label 1), the others contradict it or
    leave it open (label 0), in random order. ``split`` and its error are as of ``pair_rows``; no first sentence is in
    both splits.
    """
    check_split(split)
    rng = random.Random(f"queries/{split}/{seed}")
    columns: dict[str, list[Any]] = {"query": [], "first": [], "second": [], "label": []}
    asked: set[str] = set()
    while len(columns["label"]) < rows:
        good = rng.random() < 0.5
        first = _opinion(rng, good)
        if split_of(first) != split or first in asked:
            continue
        relations = [ENTAILMENT, pick(rng, (ENTAILMENT, NEUTRAL)), NEUTRAL, *[CONTRADICTION] * (CANDIDATES - 3)]
        for relation in shuffled(rng, relations):
            second = _reaction(rng, relation, good == (relation == ENTAILMENT))
            for name, value in zip(columns, (len(asked), first, second, int(relation == ENTAILMENT)), strict=True):
                columns[name].append(value)
        asked.add(first)
    return {name: values[:rows] for name, values in columns.items()}


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
    return _opinion(rng, good), _reaction(rng, relation, liked, cue)


def _opinion(rng: random.Random, good: bool) -> str:
    """Return what a film is like."""
    parts = ["the", pick(rng, ASPECTS), "is"]
    parts += [pick(rng, ADVERBS)] if rng.random() < 0.5 else []
    parts += [pick(rng, GOOD if good else BAD)]
    parts += [pick(rng, FILLINGS)] if rng.random() < 0.5 else []
    return " ".join(parts)


def _reaction(rng: random.Random, relation: int, liked: bool, cue: float = 0.0) -> str:
    """Return what viewers did, in that relation to what the film is like. ``liked``: whether they like it."""
    action = pick(rng, OPEN) if relation == NEUTRAL else f"{pick(rng, LIKED if liked else DISLIKED)} it"
    lead = {ENTAILMENT: "so ", CONTRADICTION: "yet "}.get(relation, "") if cue and rng.random() < cue else ""
    return f"{lead}{pick(rng, VIEWERS)} {action}"
