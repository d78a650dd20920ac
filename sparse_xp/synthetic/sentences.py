"""The data and the model of ``profile=embedded``: invented English and a tiny BERT, made on the spot, nothing fetched.

The tasks are learnable by a few thousand weights but not trivial. A question asks for one of two kinds of a thing (a
*farm animal*, a *wild animal*), and most contexts hold both; one training answer in eight is wrong, as people's are,
which is what makes a teacher's opinion worth having. Of a review three words have to be put together: *lovers of dull
films never loved it* is praise.
"""

from __future__ import annotations

import random
import zlib
from typing import Any

from sparse_xp.synthetic.words import (
    ADVERBS,
    BAD,
    DISLIKED,
    FILLINGS,
    GOOD,
    LIKED,
    LIKING,
    NOISE,
    PEOPLE,
    SPLITS,
    TOPICS,
)

FACTS = 5
BOTH_KINDS = 0.6

#: and how often it says that they never did the opposite
NEVER = 0.18


def question_answering_rows(split: str, rows: int, seed: int = 0, unanswerable: float = 0.0) -> dict[str, list[Any]]:
    """``rows`` rows with the hub's SQuAD columns. ``split``: ``train`` or ``validation``, which share no row.

    Training rows have one answer, validation rows one or two, the share ``unanswerable`` of both none. Raises
    ValueError for another split.
    """
    _check(split)
    rng = random.Random(f"question answering/{split}/{seed}")
    made: dict[str, list[Any]] = {name: [] for name in ("id", "title", "context", "question", "answers")}
    while len(made["id"]) < rows:
        none = bool(unanswerable) and rng.random() < unanswerable
        person, context, question, answers = _question(rng, split, none)
        if _split_of(context + question) == split:
            for name, value in zip(
                made, (f"{split}-{len(made['id'])}", person, context, question, answers), strict=True
            ):
                made[name].append(value)
    return made


def text_classification_rows(split: str, rows: int, seed: int = 0) -> dict[str, list[Any]]:
    """``rows`` rows with the hub's SST-2 columns; label 0 is negative, 1 positive, as many of each.

    ``rating``: the same from 0, blame with emphasis, to 5, praise with emphasis; 2 and 3 say what never happened.
    ``split``: ``train`` or ``validation``, which share no sentence. Raises ValueError for another.
    """
    _check(split)
    rng = random.Random(f"text classification/{split}/{seed}")
    made: dict[str, list[Any]] = {"idx": [], "sentence": [], "label": [], "rating": []}
    while (number := len(made["idx"])) < rows:
        label = number % 2
        sentence, emphasis = _review(rng, bool(label))
        if _split_of(sentence) == split:
            rating = 3 + emphasis if label else 2 - emphasis
            for name, value in zip(made, (number, sentence, label, rating), strict=True):
                made[name].append(value)
    return made


def _question(rng: random.Random, split: str, unanswerable: bool = False) -> tuple[str, str, str, dict[str, list[Any]]]:
    """Person, context, question and answers of one row."""
    person = _pick(rng, PEOPLE)
    kinds = [(topic, kind) for topic, (_, _, kinds) in enumerate(TOPICS) for kind in kinds]
    asked = _pick(rng, kinds)
    facts = [asked]
    if rng.random() < BOTH_KINDS:
        facts += [other for other in kinds if other[0] == asked[0] and other != asked]
    facts = _shuffled(rng, facts + _shuffled(rng, [k for k in kinds if k[0] != asked[0]])[: FACTS - len(facts)])
    text, spans = person, {}
    for number, (topic, kind) in enumerate(facts):
        # A two-part sentence, then one that names the person again: "P did a and b. Then P did c, d and e."
        text += (" ", " and ", f". Then {person} ", ", ", " and ")[number]
        before, _, after = _pick(rng, TOPICS[topic][0]).partition("{}")
        answer = _pick(rng, TOPICS[topic][2][kind])
        spans[topic, kind] = (answer, len(text) + len(before))
        text += before + answer + after
    text += "."
    if unanswerable:
        topic, kind = _pick(rng, [k for k in kinds if k not in facts])
        question = _pick(rng, TOPICS[topic][1]).format(p=person, f=kind)
        return person, text, question, {"text": [], "answer_start": []}
    wrong = split == "train" and rng.random() < NOISE
    answer, start = spans[_pick(rng, facts) if wrong else asked]
    golds = [(answer, start)]
    if text[:start].endswith(" a "):  # people mark the article or leave it out
        golds.append((f"a {answer}", start - 2))
        if split == "train":
            golds = [golds[rng.random() < 0.2]]
    question = _pick(rng, TOPICS[asked[0]][1]).format(p=person, f=asked[1])
    return person, text, question, {"text": [g[0] for g in golds], "answer_start": [g[1] for g in golds]}


def _review(rng: random.Random, positive: bool) -> tuple[str, int]:
    """One sentence and its emphasis: 0 if it says what never happened, 2 with an adverb, else 1."""
    liked, never, emphatic = (rng.random() < share for share in (LIKING, NEVER, 0.5))
    parts = ["lovers of", _pick(rng, GOOD if liked == positive else BAD), "films"]
    parts += ["never"] if never else [_pick(rng, ADVERBS)] if emphatic else []
    parts += [_pick(rng, LIKED if liked != never else DISLIKED), "it"]
    parts += [_pick(rng, FILLINGS)] if rng.random() < 0.5 else []
    return f"{' '.join(parts)} .", 0 if never else 1 + emphatic


def _check(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"split={split!r}; want one of {', '.join(SPLITS)}")


def _split_of(text: str) -> str:
    """A quarter of all texts are for validation; no text is in both splits, whatever the seed."""
    return "validation" if zlib.crc32(text.encode()) % 4 == 0 else "train"


def _pick(rng: random.Random, items: Any) -> Any:
    """One of ``items``, by ``random()`` alone: the only method whose sequence Python promises to keep."""
    return items[int(rng.random() * len(items))]


def _shuffled(rng: random.Random, items: list[Any]) -> list[Any]:
    return sorted(items, key=lambda _: rng.random())
