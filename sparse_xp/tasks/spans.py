"""Spans of tokens and characters in extractive question answering. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def context_span(sequence_ids: list[int | None]) -> tuple[int, int]:
    """Return the half-open range of tokens that belong to the second text of a pair; (0, 0) if there is none."""
    tokens = [i for i, sequence in enumerate(sequence_ids) if sequence == 1]
    return (tokens[0], tokens[-1] + 1) if tokens else (0, 0)


def answer_position(answers: dict[str, Any], offsets: list[tuple[int, int]], span: tuple[int, int]) -> tuple[int, int]:
    """Return first and last token of the first gold answer; (0, 0), the [CLS] token, if this window holds none.

    ``offsets``: the characters [from, to) of each token of the window. ``span``: the tokens of the context.
    """
    if not answers["text"]:
        return 0, 0
    begin = answers["answer_start"][0]
    stop = begin + len(answers["text"][0])
    first, last = span[0], span[1] - 1
    if last < first or offsets[first][0] > begin or offsets[last][1] < stop:
        return 0, 0
    # A gold answer may begin or end inside a token: the span then covers the whole token.
    start = max(i for i in range(first, last + 1) if offsets[i][0] <= begin)
    end = min(i for i in range(first, last + 1) if offsets[i][1] >= stop)
    return start, max(start, end)


def nearest_occurrence(context: str, text: str, start: int) -> int | None:
    """Return where ``text`` occurs in ``context``, as near to ``start`` as possible; None if it does not."""
    if context[start : start + len(text)] == text and start >= 0:
        return start
    before, after = context.rfind(text, 0, max(start, 0) + len(text)), context.find(text, max(start, 0))
    positions = [position for position in (before, after) if position >= 0]
    return min(positions, key=lambda position: abs(position - start)) if positions else None


def without_blanks(text: str, begin: int, end: int) -> tuple[int, int]:
    """Return the characters [begin, end) of ``text`` without white space at either end.

    SentencePiece and byte-level BPE count the blank before a word as a part of its first token.
    """
    span = text[begin:end]
    begin += len(span) - len(span.lstrip())
    return begin, begin + len(span.strip())


def best_span(start: np.ndarray, end: np.ndarray, n_best: int, max_length: int) -> tuple[int, int, float] | None:
    """Return (first token, last token, score) of the highest sum of logits, or None if no span is allowed.

    ``start``, ``end``: [tokens]. Only the ``n_best`` starts and ends take part, as in the reference implementation.
    """
    import numpy as np

    starts, ends = (np.argsort(-logits, kind="stable")[:n_best] for logits in (start, end))
    length = ends[None, :] - starts[:, None] + 1
    total = np.where((length >= 1) & (length <= max_length), start[starts][:, None] + end[ends][None, :], -np.inf)
    if total.size == 0 or np.isneginf(total.max()):
        return None
    i, j = np.unravel_index(int(total.argmax()), total.shape)
    return int(starts[i]), int(ends[j]), float(total[i, j])
