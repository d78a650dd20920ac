"""Spans of tokens and characters, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sparse_xp.tasks.spans import answer_position, best_span, context_span, nearest_occurrence, without_blanks

OFFSETS = [(0, 0), (0, 3), (0, 0), (0, 3), (4, 7), (7, 8), (9, 12), (13, 15), (0, 0)]  # [CLS] who [SEP] the dog ##s ...


SPAN = (3, 8)


@pytest.mark.parametrize(
    ("text", "start", "expected"),
    [
        ("the", 0, (3, 3)),  # the first token
        ("dogs", 4, (4, 5)),
        ("the dogs sat on", 0, (3, 7)),  # the whole window
        ("on", 13, (7, 7)),  # the last token
        ("og", 5, (4, 4)),  # inside a token: all of it
        ("gs sa", 6, (4, 6)),
        ("on the", 13, (0, 0)),  # cut at the end
        ("mat", 20, (0, 0)),  # behind the window
    ],
)
def test_answer_position(text, start, expected):
    assert answer_position({"text": [text], "answer_start": [start]}, OFFSETS, SPAN) == expected


@pytest.mark.parametrize(
    ("text", "start", "expected"),
    [
        ("dogs", 4, (0, 0)),  # cut at the beginning: the window starts with "##s"
        ("the", 0, (0, 0)),  # before the window
        ("s", 7, (3, 3)),
        ("sat on", 9, (4, 5)),
    ],
)
def test_answer_position_in_a_later_window(text, start, expected):
    offsets = [(0, 0), (0, 3), (0, 0), (7, 8), (9, 12), (13, 15), (0, 0)]
    assert answer_position({"text": [text], "answer_start": [start]}, offsets, (3, 6)) == expected


def test_the_first_of_several_gold_answers_is_learnt():
    answers = {"text": ["sat", "dogs"], "answer_start": [9, 4]}
    assert answer_position(answers, OFFSETS, SPAN) == (6, 6)


def test_a_window_without_context_holds_no_answer():
    assert answer_position({"text": ["the"], "answer_start": [0]}, [(0, 0), (0, 3), (0, 0)], (0, 0)) == (0, 0)


@pytest.mark.parametrize(
    ("sequence_ids", "expected"),
    [([None, 0, 0, None, 1, 1, 1, None], (4, 7)), ([None, 0, None, None], (0, 0))],
)
def test_context_span(sequence_ids, expected):
    assert context_span(sequence_ids) == expected


@pytest.mark.parametrize(
    ("start", "end", "n_best", "max_length", "expected"),
    [
        ([0, 5, 1], [0, 1, 4], 20, 30, (1, 2, 9)),
        ([0, 5, 1], [6, 1, 2], 20, 30, (1, 2, 7)),  # the best end lies before the best start
        ([3, 1, 5], [9, 0, 0], 20, 30, (0, 0, 12)),  # one token long
        ([5, 1, 1, 1], [0, 0, 1, 4], 20, 3, (0, 2, 6)),  # 0 to 3 would be 9, and is four tokens long
        ([5, 1, 1, 1], [0, 0, 1, 4], 20, 4, (0, 3, 9)),
        ([5, 1, 1, 2], [0, 0, 1, 4], 20, 1, (3, 3, 6)),
        ([4, 5, 0], [6, 0, 0], 1, 30, None),  # start 1, end 0: nothing else takes part
        ([4, 5, 0], [6, 0, 0], 2, 30, (0, 0, 10)),
        ([9, 8, 0, 0], [0, 0, 7, 8], 1, 3, None),  # 0 to 3 is too long, and nothing else takes part
        ([2, 2, 0], [1, 1, 1], 20, 30, (0, 0, 3)),  # of equals the earliest
        ([0, 2, 2], [3, 3, 3], 20, 30, (1, 1, 5)),
        ([-9.0], [-9.5], 20, 30, (0, 0, -18.5)),
        ([], [], 20, 30, None),
    ],
)
def test_best_span(start, end, n_best, max_length, expected):
    assert best_span(np.array(start, float), np.array(end, float), n_best, max_length) == expected


@pytest.mark.parametrize(
    ("text", "start", "expected"),
    [("ab", 3, 3), ("ab", 2, 3), ("ab", 1, 0), ("ab", 99, 6), ("ab", -5, 0), ("zz", 0, None)],
)
def test_the_nearest_place_of_an_answer(text, start, expected):
    assert nearest_occurrence("ab ab ab", text, start) == expected


def test_without_blanks():
    text = "the goat \n sleeps"
    assert without_blanks(text, 3, 8) == (4, 8)
    assert without_blanks(text, 3, 10) == (4, 8)
    assert without_blanks(text, 4, 8) == (4, 8)
    begin, end = without_blanks(text, 8, 11)
    assert text[begin:end] == ""
