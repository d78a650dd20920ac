"""From texts to tokens and from logits to answers, for each kind of task: what its evaluation does, without torch.

Each kind has two functions. One encodes a row of texts as the ``Encoding`` objects that the model is to see, the other
makes an answer of the outputs for them: by name, one array for each encoding, [tokens] or [tokens, classes] or
[classes], without padding.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

from sparse_xp.errors import UserError
from sparse_xp.tasks import QuestionAnswering, TextClassification
from sparse_xp.tasks.question_answering import best_span, context_span
from sparse_xp.tasks.token_classification import first_tokens

Outputs = dict[str, list[np.ndarray]]
Answer = dict[str, Any] | list[dict[str, Any]]

#: words of running text: letters and digits, with single signs between them (``Jean-Paul``, ``3.5``); other signs alone
WORD = re.compile(r"\w+(?:[^\w\s]\w+)*|[^\w\s]")


@dataclass
class Asked:
    """A row: its texts as given, the tokens that the model sees, the words with their places in ``text``."""

    text: str
    encodings: list[Encoding]
    cut: bool = False
    words: list[tuple[int, int]] = field(default_factory=list)


def windows(task: QuestionAnswering, tokenizer: Tokenizer, texts: list[str], max_length: int) -> Asked:
    """The question with each window of the context. Raises UserError for a question that leaves windows no room."""
    question, context = texts[0].lstrip(), texts[1]
    tokenizer.no_truncation()
    tokens = len(tokenizer.encode(question, add_special_tokens=False).ids)
    room = max_length - tokenizer.num_special_tokens_to_add(True) - tokens
    if room <= task.doc_stride:
        raise UserError(
            f"The question has {tokens} tokens and leaves {room} of {max_length} to the context, which windows that "
            f"overlap by {task.doc_stride} do not fit. Ask a shorter one."
        )
    tokenizer.enable_truncation(max_length, stride=task.doc_stride, strategy="only_second")
    first = tokenizer.encode(question, context)
    return Asked(context, [first, *first.overflowing])


def span(task: QuestionAnswering, asked: Asked, outputs: Outputs) -> dict[str, Any]:
    """The answer: its characters of the context, and the product of the softmaxed start and end.

    The softmax is over the tokens of the context and [CLS] in the answer's own window. With ``no_answer`` an answer may
    be empty, at 0 to 0.
    """
    best, null = -np.inf, np.inf
    found = empty = {"score": 0.0, "start": 0, "end": 0, "answer": ""}
    for encoding, starts, ends in zip(asked.encodings, outputs["start_logits"], outputs["end_logits"], strict=True):
        first, last = context_span(encoding.sequence_ids)
        here = slice(first, last)
        chances = [softmax(np.concatenate([logits[:1], logits[here]])) for logits in (starts, ends)]
        if (none := float(starts[0] + ends[0])) < null:
            null, empty = none, {**empty, "score": float(chances[0][0] * chances[1][0])}
        place = best_span(starts[here], ends[here], task.n_best, task.max_answer_length)
        if place and place[2] > best:
            i, j, best = place
            begin, stop = encoding.offsets[first + i][0], encoding.offsets[first + j][1]
            score = float(chances[0][1 + i] * chances[1][1 + j])
            found = {"score": score, "start": begin, "end": stop, "answer": asked.text[begin:stop]}
    return empty if task.no_answer and null - best > task.null_threshold else found


def sentence(tokenizer: Tokenizer, texts: list[str], max_length: int) -> Asked:
    """One text, or a pair."""
    tokenizer.enable_truncation(max_length)
    encoding = tokenizer.encode(texts[0], texts[1] if len(texts) > 1 else None)
    return Asked(texts[0], [encoding], cut=bool(encoding.overflowing))


def labels(task: TextClassification, outputs: Outputs, top: int | None) -> Answer:
    """The label with its score; the ``top`` best; those that hold, of several; or the value."""
    [logits] = outputs["logits"]
    if task.problem == "regression":
        return {"value": float(logits[0])}
    several = task.problem == "multi_label"
    scores = 1 / (1 + np.exp(-logits)) if several else softmax(logits)
    order = np.argsort(-scores, kind="stable")
    ranked = [{"label": task.classes[i], "score": float(scores[i])} for i in order]
    if top:
        return ranked[:top]
    return [each for each, i in zip(ranked, order, strict=True) if logits[i] > 0] if several else ranked[0]


def guesses(tokenizer: Tokenizer, asked: Asked, outputs: Outputs, mask: int, top: int | None) -> list[dict[str, Any]]:
    """For each masked token of the text its place, and the best token, or the ``top`` best as ``tokens``."""
    [encoding] = asked.encodings
    found: list[dict[str, Any]] = []
    for token, (begin, end), logits in zip(
        encoding.ids, encoding.offsets, next(iter(outputs.values()))[0], strict=True
    ):
        if token != mask:
            continue
        chances = softmax(logits)
        order = np.argsort(-chances, kind="stable")[: top or 1]
        ranked = [{"token": tokenizer.id_to_token(int(i)), "score": float(chances[i])} for i in order]
        found.append({"start": begin, "end": end, **({"tokens": ranked} if top else ranked[0])})
    return found


def words_of(tokenizer: Tokenizer, text: str, places: list[tuple[int, int]], max_length: int) -> Asked:
    """A text of which the words stand at ``places``."""
    tokenizer.enable_truncation(max_length)
    encoding = tokenizer.encode([text[begin:end] for begin, end in places], is_pretokenized=True)
    return Asked(text, [encoding], bool(encoding.overflowing), places)


def placed(words: list[str]) -> tuple[str, list[tuple[int, int]]]:
    """The words with single blanks between them, and where each stands."""
    places, begin = [], 0
    for word in words:
        places.append((begin, begin + len(word)))
        begin += len(word) + 1
    return " ".join(words), places


def tags(classes: list[str], asked: Asked, outputs: Outputs) -> list[tuple[str, float]]:
    """For each word its tag and the tag's probability: the model's for its first token; ``O`` if no token was seen."""
    [logits], [encoding] = outputs["logits"], asked.encodings
    told = [("O", 1.0)] * len(asked.words)
    for word, row in zip(first_tokens(encoding.word_ids), logits, strict=True):
        if word >= 0:
            chances = softmax(row)
            told[word] = (classes[int(row.argmax())], float(chances.max()))
    return told


def entities(asked: Asked, told: list[tuple[str, float]]) -> list[dict[str, Any]]:
    """Words of one entity joined; ``score`` is the mean of theirs.

    An ``I-X`` that does not go on from an X begins one.
    """
    found: list[tuple[str, list[int]]] = []
    before = "O"
    for word, (tag, _) in enumerate(told):
        place, _, kind = tag.partition("-")
        if place == "I" and before.partition("-")[2] == kind:
            found[-1][1].append(word)
        elif place != "O":
            found.append((kind, [word]))
        before = tag
    joined = []
    for kind, words in found:
        begin, end = asked.words[words[0]][0], asked.words[words[-1]][1]
        score = float(np.mean([told[word][1] for word in words]))
        joined.append({"entity": kind, "score": score, "word": asked.text[begin:end], "start": begin, "end": end})
    return joined


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last dimension."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
