"""Generated questions and reviews for ``profile=embedded``: invented English, made on the spot, nothing fetched.

The tasks are learnable by a few thousand weights but not trivial. A question asks for one of two kinds of a thing (a
*farm animal*, a *wild animal*), and most contexts hold both. One training answer in eight is wrong, like those of human
annotators, so that distillation from a teacher helps. To classify a review a model has to combine three words: *lovers
of dull films never loved it* is praise.
"""

from __future__ import annotations

import random
from typing import Any

from sparse_xp.synthetic.split import check_split, pick, shuffled, split_of
from sparse_xp.synthetic.words import (
    ADVERBS,
    BAD,
    DISLIKED,
    FILLINGS,
    GOOD,
    LIKED,
    LIKING,
    PEOPLE,
    TOPICS,
)

#: the facts of a context
FACTS = 5
#: the fraction of contexts with both kinds of the thing that is asked for
BOTH_KINDS = 0.6
#: the fraction of training questions with a wrong answer; evaluation rows have none
NOISE = 0.12
#: the fraction of reviews that say that viewers never did the opposite
NEVER = 0.18


def question_answering_rows(split: str, rows: int, seed: int = 0, unanswerable: float = 0.0) -> dict[str, list[Any]]:
    """Return ``rows`` rows with the columns of SQuAD on the hub.

    Training rows have one answer, validation rows one or two, the fraction ``unanswerable`` of both none. ``split``:
    ``train`` or ``validation``, which share no row. Raises ValueError for another split.
    """
    check_split(split)
    rng = random.Random(f"question answering/{split}/{seed}")
    columns: dict[str, list[Any]] = {name: [] for name in ("id", "title", "context", "question", "answers")}
    while len(columns["id"]) < rows:
        no_answer = bool(unanswerable) and rng.random() < unanswerable
        person, context, question, answers = _question(rng, split, no_answer)
        if split_of(context + question) == split:
            row = (f"{split}-{len(columns['id'])}", person, context, question, answers)
            for name, value in zip(columns, row, strict=True):
                columns[name].append(value)
    return columns


def text_classification_rows(split: str, rows: int, seed: int = 0) -> dict[str, list[Any]]:
    """Return ``rows`` rows with the columns of SST-2 on the hub, half of them with label 0 (negative), half with 1.

    The further column ``rating`` goes from 0 (blame with emphasis) to 5 (praise with emphasis); 2 and 3 are reviews
    that say what never happened. ``split``: ``train`` or ``validation``, which share no sentence. Raises ValueError for
    another.
    """
    check_split(split)
    rng = random.Random(f"text classification/{split}/{seed}")
    columns: dict[str, list[Any]] = {"idx": [], "sentence": [], "label": [], "rating": []}
    while (number := len(columns["idx"])) < rows:
        label = number % 2
        sentence, emphasis = _review(rng, bool(label))
        if split_of(sentence) == split:
            rating = 3 + emphasis if label else 2 - emphasis
            for name, value in zip(columns, (number, sentence, label, rating), strict=True):
                columns[name].append(value)
    return columns


def question_words() -> list[str]:
    """Return texts that hold every word of the questions and their contexts."""
    texts = [*PEOPLE, "and then"]
    for forms, questions, kinds in TOPICS:
        texts += [*forms, *questions, *kinds, *(word for words in kinds.values() for word in words)]
    return texts


def review_words() -> list[str]:
    """Return texts that hold every word of the reviews."""
    return [*GOOD, *BAD, *ADVERBS, *LIKED, *DISLIKED, *FILLINGS, "lovers of films never it"]


def _question(rng: random.Random, split: str, unanswerable: bool = False) -> tuple[str, str, str, dict[str, list[Any]]]:
    """Return person, context, question and answers of one row."""
    person = pick(rng, PEOPLE)
    kinds = [(topic, kind) for topic, (_, _, kinds) in enumerate(TOPICS) for kind in kinds]
    asked = pick(rng, kinds)
    facts = [asked]  # (topic, kind) each
    if rng.random() < BOTH_KINDS:
        facts += [other for other in kinds if other[0] == asked[0] and other != asked]
    others = shuffled(rng, [other for other in kinds if other[0] != asked[0]])
    facts = shuffled(rng, facts + others[: FACTS - len(facts)])
    text, spans = _context(rng, person, facts)
    if unanswerable:
        topic, kind = pick(rng, [other for other in kinds if other not in facts])
        question = pick(rng, TOPICS[topic][1]).format(p=person, f=kind)
        return person, text, question, {"text": [], "answer_start": []}
    wrong = split == "train" and rng.random() < NOISE
    answer, start = spans[pick(rng, facts) if wrong else asked]
    answers = [(answer, start)]
    if text[:start].endswith(" a "):  # annotators mark the article or leave it out
        answers.append((f"a {answer}", start - 2))
        if split == "train":
            answers = [answers[rng.random() < 0.2]]
    question = pick(rng, TOPICS[asked[0]][1]).format(p=person, f=asked[1])
    texts, starts = [answer for answer, _ in answers], [start for _, start in answers]
    return person, text, question, {"text": texts, "answer_start": starts}


def _context(
    rng: random.Random, person: str, facts: list[tuple[int, str]]
) -> tuple[str, dict[tuple[int, str], tuple[str, int]]]:
    """Return sentences that state the facts of a person, and for each fact its answer and where that starts."""
    text = person
    spans: dict[tuple[int, str], tuple[str, int]] = {}
    for number, (topic, kind) in enumerate(facts):
        # A two-part sentence, then one that names the person again: "P did a and b. Then P did c, d and e."
        text += (" ", " and ", f". Then {person} ", ", ", " and ")[number]
        before, _, after = pick(rng, TOPICS[topic][0]).partition("{}")
        answer = pick(rng, TOPICS[topic][2][kind])
        spans[topic, kind] = (answer, len(text) + len(before))
        text += before + answer + after
    text += "."
    return text, spans


def _review(rng: random.Random, positive: bool) -> tuple[str, int]:
    """Return a review and its emphasis: 0 if it says what never happened, 2 with an adverb, else 1."""
    liked, never, emphatic = (rng.random() < share for share in (LIKING, NEVER, 0.5))
    parts = ["lovers of", pick(rng, GOOD if liked == positive else BAD), "films"]
    parts += ["never"] if never else [pick(rng, ADVERBS)] if emphatic else []
    parts += [pick(rng, LIKED if liked != never else DISLIKED), "it"]
    parts += [pick(rng, FILLINGS)] if rng.random() < 0.5 else []
    return f"{' '.join(parts)} .", 0 if never else 1 + emphatic
