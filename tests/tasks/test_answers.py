"""Answers out of logits worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sparse_xp.errors import UserError
from sparse_xp.tasks import QuestionAnswering, TextClassification
from sparse_xp.tasks.answers import (
    WORD,
    Asked,
    entities,
    labels,
    placed,
    sentence,
    softmax,
    span,
    tags,
    windows,
    words_of,
)
from tests.tiny import make_tokenizer

TOKENIZER = make_tokenizer().backend_tokenizer
CLASSES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def qa(**changes):
    return QuestionAnswering(name="t", dataset=None, folder="t", **{"max_length": 12, "doc_stride": 2} | changes)


def classes(**changes):
    return TextClassification(name="t", dataset=None, folder="t", **{"classes": ["a", "b", "c"]} | changes)


def test_softmax():
    np.testing.assert_allclose(softmax(np.array([0.0, math.log(3)])), [0.25, 0.75])
    np.testing.assert_allclose(softmax(np.array([[1000.0, 1000.0]])), [[0.5, 0.5]])


def test_a_span_and_its_score():
    asked = windows(qa(), TOKENIZER, ["who?", "the dog sat"], 12)
    # [CLS] who ? [SEP] the dog sat [SEP]; three context tokens and [CLS] share the probability
    starts, ends = np.zeros(8, np.float32), np.zeros(8, np.float32)
    starts[5], ends[6], starts[1] = math.log(5), math.log(3), 99
    found = span(qa(), asked, {"start_logits": [starts], "end_logits": [ends]})
    assert found == {"score": pytest.approx(5 / 8 * 3 / 6), "start": 4, "end": 11, "answer": "dog sat"}


def test_the_best_window_wins_and_an_empty_answer_needs_all_of_them():
    task = qa(no_answer=True)
    asked = windows(task, TOKENIZER, ["who?", "the dog sat on the red mat in the hat ."], 12)
    assert len(asked.encodings) > 1
    starts = [np.zeros(len(each), np.float32) for each in asked.encodings]
    ends = [logits.copy() for logits in starts]
    starts[0][0] = ends[0][0] = 9
    starts[1][4] = ends[1][4] = 2
    outputs = {"start_logits": starts, "end_logits": ends}
    word = asked.text[slice(*asked.encodings[1].offsets[4])]
    assert span(task, asked, outputs)["answer"] == word
    for logits in (*starts, *ends):
        logits[0] = 9
    empty = span(task, asked, outputs)
    assert (empty["answer"], empty["start"], empty["end"]) == ("", 0, 0)
    assert empty["score"] > 0.9
    assert span(qa(), asked, outputs)["answer"] == word


def test_a_question_that_leaves_no_room():
    with pytest.raises(UserError, match=r"has 8 tokens and leaves 1 of 12"):
        windows(qa(), TOKENIZER, [" ".join(["who"] * 8), "the dog"], 12)


def test_labels():
    logits = {"logits": [np.log(np.array([1.0, 3.0, 4.0]))]}
    assert labels(classes(), logits, None) == {"label": "c", "score": pytest.approx(0.5)}
    assert [each["label"] for each in labels(classes(), logits, 2)] == ["c", "b"]
    several = classes(problem="multi_label")
    assert [each["label"] for each in labels(several, logits, None)] == ["c", "b"]  # a: exactly 0, which is not above
    assert labels(several, logits, 3)[2] == {"label": "a", "score": pytest.approx(0.5)}
    assert labels(classes(problem="regression", classes=[]), {"logits": [np.array([2.5])]}, None) == {"value": 2.5}


def test_a_text_that_is_cut_says_so():
    assert sentence(TOKENIZER, ["the dog sat"], 4).cut
    assert not sentence(TOKENIZER, ["the dog", "sat"], 8).cut


def test_words_of_running_text():
    text = "Jean-Paul's dog (3.5 kg) sat."
    assert WORD.findall(text) == ["Jean-Paul's", "dog", "(", "3.5", "kg", ")", "sat", "."]


def test_tags_are_those_of_first_tokens_and_unseen_words_are_outside():
    asked = words_of(TOKENIZER, *placed(["the", "dogs", "sat", "mat"]), max_length=5)
    assert asked.encodings[0].tokens == ["[CLS]", "the", "dog", "##s", "[SEP]"]
    logits = np.zeros((5, 5), np.float32)
    logits[2, 1], logits[3, 3] = 9, 99
    assert [tag for tag, _ in tags(CLASSES, asked, {"logits": [logits]})] == ["O", "B-PER", "O", "O"]
    assert asked.cut


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ("O O O", []),
        ("B-PER I-PER O", [("PER", "ab cd")]),
        ("B-PER B-PER I-PER", [("PER", "ab"), ("PER", "cd ef")]),
        ("I-PER I-LOC I-LOC", [("PER", "ab"), ("LOC", "cd ef")]),
        ("I-PER O I-PER", [("PER", "ab"), ("PER", "ef")]),
    ],
)
def test_words_of_one_entity_are_joined(told, wanted):
    text, places = placed(["ab", "cd", "ef"])
    found = entities(Asked(text, [], words=places), [(tag, 0.5) for tag in told.split()])
    assert [(each["entity"], each["word"]) for each in found] == wanted
    assert all(text[each["start"] : each["end"]] == each["word"] and each["score"] == 0.5 for each in found)
