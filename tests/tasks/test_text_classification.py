"""Sentences and pairs of sentences with a class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from sparse_xp.errors import UserError
from sparse_xp.tasks import TextClassification
from tests.tiny import make_tokenizer

TOKENIZER = make_tokenizer()


def make_task(**changes: Any) -> TextClassification:
    fields: dict[str, Any] = {"name": "toy", "dataset": "toy", "folder": "toy", "classes": ["bad", "good", "so so"]}
    return TextClassification(**fields | changes)


ROWS = {"sentence": ["The cat sat.", "dogs"], "label": [2, 0]}


@pytest.mark.parametrize("train", [True, False])
def test_features(train):
    assert make_task().features(ROWS, TOKENIZER, 0, train) == {
        "input_ids": [[2, 8, 11, 12, 18, 3], [2, 9, 10, 3]],  # [CLS] the cat sat . [SEP]; [CLS] dog ##s [SEP]
        "token_type_ids": [[0] * 6, [0] * 4],
        "attention_mask": [[1] * 6, [1] * 4],
        "labels": [2, 0],
    }


def test_features_of_a_pair():
    task = make_task(text="premise", text_pair="hypothesis", label="gold")
    assert task.columns() == ["premise", "hypothesis", "gold"]
    rows = {"premise": ["the cat sat"], "hypothesis": ["what?"], "gold": [1]}
    assert task.features(rows, TOKENIZER, 0, train=True) == {
        "input_ids": [[2, 8, 11, 12, 3, 6, 19, 3]],
        "token_type_ids": [[0] * 5 + [1] * 3],
        "attention_mask": [[1] * 8],
        "labels": [1],
    }


def test_long_texts_are_cut_to_max_length():
    single = make_task(max_length=8).features({"sentence": ["cat " * 20], "label": [0]}, TOKENIZER, 0, train=True)
    assert single["input_ids"] == [[2, *[11] * 6, 3]]
    pair = make_task(max_length=9, text_pair="other").features(
        {"sentence": ["cat " * 20], "other": ["hat mat"], "label": [0]}, TOKENIZER, 0, train=True
    )
    assert pair["input_ids"] == [[2, *[11] * 4, 3, 17, 15, 3]]  # the longer of the two gives way


@pytest.mark.parametrize("label", [3, -1, None, "good"])
def test_a_label_outside_the_classes_is_an_error_that_names_row_and_classes(label):
    rows = {"sentence": ["the cat", "the hat"], "label": [0, label]}
    message = rf"task toy: row 1001 has label={label}, but task\.classes names 3: bad, good, so so"
    with pytest.raises(UserError, match=message):
        make_task().features(rows, TOKENIZER, 1000, train=True)


def test_a_perfect_prediction_scores_100():
    labels = [2, 0, 1, 1, 0]
    features = Dataset.from_dict({"labels": labels})
    outputs = {"logits": [np.eye(3)[label] for label in labels]}
    assert make_task().score(features, features, outputs) == {"accuracy": 100.0}


def test_the_largest_logit_is_the_prediction():
    features = Dataset.from_dict({"labels": [0, 1, 2, 2]})
    logits = [[-1.0, -2.0, -3.0], [0.0, 0.5, 0.6], [0.0, 0.0, 9.0], [1.0, 0.0, 0.5]]  # 0, 2, 2, 0
    assert make_task().score(features, features, {"logits": [np.array(row) for row in logits]}) == {"accuracy": 50.0}


def test_the_classes_are_the_names_of_the_outputs():
    assert make_task().label_names == ["bad", "good", "so so"]
    assert make_task().columns() == ["sentence", "label"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": []}, r"task\.classes: name at least two"),
        ({"classes": ["one"]}, r"task\.classes: name at least two"),
        ({"metric": "f1"}, r"task\.metric='f1': want accuracy"),
        ({"max_length": 4}, r"task\.max_length=4: want at least 8"),
        ({"max_eval_samples": 0}, r"task\.max_eval_samples=0"),
    ],
)
def test_refusals_name_the_key(fields, message):
    with pytest.raises(ValueError, match=message):
        make_task(**fields)
