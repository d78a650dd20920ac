"""Answers out of logits worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sparse_xp.errors import UserError
from sparse_xp.tasks import QuestionAnswering, TextClassification, TokenClassification
from sparse_xp.tasks.answers import EncodedRow, NamedText, encode_texts, softmax
from sparse_xp.tasks.token_classification import WORD
from tests.tiny import make_tokenizer

TOKENIZER = make_tokenizer().backend_tokenizer
CLASSES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def qa(**changes):
    return QuestionAnswering(name="t", dataset=None, folder="t", **{"max_length": 12, "doc_stride": 2} | changes)


def classes(**changes):
    return TextClassification(name="t", dataset=None, folder="t", **{"classes": ["a", "b", "c"]} | changes)


def tagging(**changes):
    return TokenClassification(name="t", dataset=None, folder="t", **{"classes": CLASSES} | changes)


def question(task, question, context):
    texts = [NamedText("question", question), NamedText("context", context)]
    return task.encode_row(texts, TOKENIZER, 12)


def test_softmax():
    np.testing.assert_allclose(softmax(np.array([0.0, math.log(3)])), [0.25, 0.75])
    np.testing.assert_allclose(softmax(np.array([[1000.0, 1000.0]])), [[0.5, 0.5]])


def test_a_span_and_its_score():
    row = question(qa(), "who?", "the dog sat")
    # [CLS] who ? [SEP] the dog sat [SEP]; three context tokens and [CLS] share the probability
    starts, ends = np.zeros(8, np.float32), np.zeros(8, np.float32)
    starts[5], ends[6], starts[1] = math.log(5), math.log(3), 99
    answer = qa().decode(row, {"start_logits": [starts], "end_logits": [ends]}, TOKENIZER, None)
    assert answer == {"score": pytest.approx(5 / 8 * 3 / 6), "start": 4, "end": 11, "answer": "dog sat"}


def test_the_best_window_wins_and_an_empty_answer_needs_all_of_them():
    task = qa(version_2_with_negative=True)
    row = question(task, "who?", "the dog sat on the red mat in the hat .")
    assert len(row.encodings) > 1
    starts = [np.zeros(len(encoding), np.float32) for encoding in row.encodings]
    ends = [logits.copy() for logits in starts]
    starts[0][0] = ends[0][0] = 9
    starts[1][4] = ends[1][4] = 2
    outputs = {"start_logits": starts, "end_logits": ends}
    word = row.text[slice(*row.encodings[1].offsets[4])]
    assert task.decode(row, outputs, TOKENIZER, None)["answer"] == word
    for logits in (*starts, *ends):
        logits[0] = 9
    empty = task.decode(row, outputs, TOKENIZER, None)
    assert (empty["answer"], empty["start"], empty["end"]) == ("", 0, 0)
    assert empty["score"] > 0.9
    assert qa().decode(row, outputs, TOKENIZER, None)["answer"] == word


def test_a_question_that_leaves_no_room():
    with pytest.raises(UserError, match=r"has 8 tokens and leaves 1 of 12"):
        question(qa(), " ".join(["who"] * 8), "the dog")


def labels(task, logits, top=None):
    return task.decode(EncodedRow("a", []), logits, TOKENIZER, top)


def test_labels():
    logits = {"logits": [np.log(np.array([1.0, 3.0, 4.0]))]}
    assert labels(classes(), logits) == {"label": "c", "score": pytest.approx(0.5)}
    assert [each["label"] for each in labels(classes(), logits, 2)] == ["c", "b"]
    several = classes(problem="multi_label")
    assert [each["label"] for each in labels(several, logits)] == ["c", "b"]  # a: exactly 0, which is not above
    assert labels(several, logits, 3)[2] == {"label": "a", "score": pytest.approx(0.5)}
    assert labels(classes(problem="regression", classes=[]), {"logits": [np.array([2.5])]}) == {"value": 2.5}


def test_a_text_that_is_cut_says_so():
    assert encode_texts([NamedText("text", "the dog sat")], TOKENIZER, 4).truncated
    pair = [NamedText("text", "the dog"), NamedText("second", "sat")]
    assert not encode_texts(pair, TOKENIZER, 8).truncated


def test_words_of_running_text():
    text = "Jean-Paul's dog (3.5 kg) sat."
    assert WORD.findall(text) == ["Jean-Paul's", "dog", "(", "3.5", "kg", ")", "sat", "."]


def test_tags_are_those_of_first_tokens_and_unseen_words_are_outside():
    row = tagging().encode_row([NamedText("tokens", ["the", "dogs", "sat", "mat"])], TOKENIZER, 5)
    assert row.encodings[0].tokens == ["[CLS]", "the", "dog", "##s", "[SEP]"]
    logits = np.zeros((5, 5), np.float32)
    logits[2, 1], logits[3, 3] = 9, 99
    assert [tag for tag, _ in tagging().word_tags(row, {"logits": [logits]})] == ["O", "B-PER", "O", "O"]
    assert row.truncated


def test_words_of_one_entity_are_joined():
    row = tagging().encode_row([NamedText("text", "the dog. sat")], TOKENIZER, 12)
    assert row.encodings[0].tokens == ["[CLS]", "the", "dog", ".", "sat", "[SEP]"]
    logits = np.zeros((6, 5), np.float32)
    logits[1, 1] = logits[2, 2] = logits[3, 0] = logits[4, 3] = math.log(6)
    person, place = tagging().decode(row, {"logits": [logits]}, TOKENIZER, None)
    assert person == {"entity": "PER", "score": pytest.approx(0.6), "word": "the dog", "start": 0, "end": 7}
    assert (place["entity"], place["word"]) == ("LOC", "sat")
