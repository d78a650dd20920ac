"""Gold answers in every layout that files have them in: right, or a reason."""

from __future__ import annotations

import math
import re

import pytest

from sparse_xp.tasks.gold_answers import gold_answers, says_impossible

CONTEXT = "It was Ada. She met Bob, and Bob left."
ADA = {"text": ["Ada"], "answer_start": [7]}
NONE = {"text": [], "answer_start": []}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (ADA, ADA),
        ([{"text": "Ada", "answer_start": 7}], ADA),
        ({"text": "Ada", "answer_start": 7}, ADA),
        ({"text": ["Ada"], "answer_start": 7}, ADA),
        ({"text": "Ada", "answer_start": [7]}, ADA),
        ({"text": "Ada"}, ADA),
        ([{"text": "Ada"}, {"text": "It was", "answer_start": 0}], {"text": ["Ada", "It was"], "answer_start": [7, 0]}),
        ("Ada", ADA),
        (["Ada", "It"], {"text": ["Ada", "It"], "answer_start": [7, 0]}),
        ({"text": ["Bob", "Bob"], "answer_start": [20, 29]}, {"text": ["Bob", "Bob"], "answer_start": [20, 29]}),
        # as pandas writes numbers, and as others mark a missing position
        *[
            ({"text": ["Ada"], "answer_start": [start]}, ADA)
            for start in (7.0, "7", " 7.0 ", None, math.nan, "", "nan", -1)
        ],
        # wrong positions are mended where the rows are cleaned
        ({"text": ["Ada"], "answer_start": [3]}, {"text": ["Ada"], "answer_start": [3]}),
        # no answer
        *[(value, NONE) for value in (None, "", "  ", [], {}, NONE, [""], {"text": [""], "answer_start": [0]})],
        ({"text": None, "answer_start": None}, NONE),
        # printed into a cell of CSV
        ("{'text': ['Ada'], 'answer_start': [7]}", ADA),
        ('{"text": ["Ada"], "answer_start": [7]}', ADA),
        ("[{'text': 'Ada', 'answer_start': 7}]", ADA),
        ("{'text': array(['Ada'], dtype=object), 'answer_start': array([7], dtype=int32)}", ADA),
        ("['Ada']", ADA),
        ("[]", NONE),
        ("{'text': [], 'answer_start': []}", NONE),
    ],
)
def test_answers_of_every_layout(value, found):
    assert gold_answers(value, None, None, CONTEXT) == found


@pytest.mark.parametrize("start", [20, 20.0, "20", [20], "[20]"])
def test_a_column_of_positions_beside_one_of_texts(start):
    assert gold_answers("Bob", start, None, CONTEXT) == {"text": ["Bob"], "answer_start": [20]}


def test_positions_count_code_points():
    context = "\U0001f600 cafe\u0301\r\nAda"
    assert gold_answers("Ada", None, None, context)["answer_start"] == [9]
    assert context[9:] == "Ada"


def test_an_answer_in_brackets_that_the_context_holds_is_a_text():
    assert gold_answers("[Ada]", None, None, "It was [Ada].") == {"text": ["[Ada]"], "answer_start": [7]}


def test_an_answer_of_digits():
    assert gold_answers(1843, None, None, "In 1843.") == {"text": ["1843"], "answer_start": [3]}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("Bob", "the answer 'Bob' without answer_start, and the context holds it more than once, at 20 and 29"),
        ({"text": "Eve"}, "the answer 'Eve' without answer_start, and the context does not hold it"),
        ({"text": ["Ada", ""], "answer_start": [7, 0]}, "an empty text beside an answer"),
        ({"text": ["Ada"], "answer_start": []}, "not as many of answer_start as of text (0 and 1)"),
        ({"text": "Ada", "answer_start": [7, 8]}, "one text and 2 of answer_start"),
        ({"text": ["Ada"], "answer_start": [7.5]}, "answer_start=7.5, expected a whole number"),
        ({"text": ["Ada"], "answer_start": ["x"]}, "answer_start='x', expected a whole number"),
        ({"text": ["Ada"], "answer_start": [True]}, "answer_start=True, expected a whole number"),
        ({"text": ["Ada"], "answer_start": [10**30]}, "expected a whole number"),
        ({"start": [7]}, "an object without 'text', but start"),
        (1.5, "1.5 for an answer, expected a text"),
        (True, "True for an answer, expected a text"),
        (["Ada", None], "None for an answer, expected a text"),
        ([["Ada"]], "[...] for an answer, expected a text"),
        ("{'text': '\\ud83d'}", "half of a character"),
        *[
            (text, "an object or a list that cannot be read")
            for text in ("{x", "[Eve]", "[print(1)]", "{1: 2}", "[" * 999)
        ],
    ],
)
def test_answers_that_cannot_be_read(value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        gold_answers(value, None, None, CONTEXT)


def test_a_row_that_contradicts_itself():
    with pytest.raises(ValueError, match="the answer 'Ada', and is_impossible says that there is none"):
        gold_answers("Ada", None, True, CONTEXT)
    with pytest.raises(ValueError, match="no answer, and is_impossible says that there is one"):
        gold_answers([], None, False, CONTEXT)
    assert gold_answers([], None, True, CONTEXT) == NONE
    assert gold_answers(ADA, None, False, CONTEXT) == ADA


def test_what_a_column_says_of_impossible_questions():
    assert [says_impossible(value) for value in (True, "True", 1, "1", 1.0)] == [True] * 5
    assert [says_impossible(value) for value in (False, "false", 0, "0", 0.0)] == [False] * 5
    assert [says_impossible(value) for value in (None, "", math.nan)] == [None] * 3
    with pytest.raises(ValueError, match="'maybe', expected true or false"):
        says_impossible("maybe")
