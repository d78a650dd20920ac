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


@pytest.mark.parametrize("label", [3, -1, None, "fine"])
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
        ({"classes": ["one"]}, r"task\.classes: name at least two"),
        ({"metric": "f2"}, r"task\.metric='f2': want one of accuracy, f1, f1_macro for task\.problem=single_label"),
        ({"metric": "f1"}, r"task\.metric=f1 is for two classes, and there are 3: take f1_macro"),
        ({"metrics": ["pearson"]}, r"task\.metric='pearson': want one of accuracy"),
        ({"problem": "multilabel"}, r"task\.problem=multilabel: .* Did you mean 'multi_label'\?"),
        ({"problem": "regression"}, r"a task of regression has none"),
        ({"max_length": 4}, r"task\.max_length=4: want at least 8"),
        ({"max_eval_samples": 0}, r"task\.max_eval_samples=0"),
    ],
)
def test_refusals_name_the_key(fields, message):
    with pytest.raises(ValueError, match=message):
        make_task(**fields)


# Several labels, numbers, several splits


def test_several_labels():
    task = make_task(problem="multi_label")
    rows = {"sentence": ["the cat", "dogs", "hat"], "label": [[0, 2], [], ["good"]]}
    assert task.features(rows, TOKENIZER, 0, train=True)["labels"] == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert (task.logits_are, task.model_options) == ("labels", {"problem_type": "multi_label_classification"})
    features = Dataset.from_dict({"labels": [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]})
    outputs = {"logits": [np.array([2.0, -1.0, 0.5]), np.array([-1.0, 3.0, -2.0])]}
    task = make_task(problem="multi_label", metrics=["accuracy", "f1_macro"])
    assert task.score(features, features, outputs) == pytest.approx(
        {"f1_micro": 80, "accuracy": 50, "f1_macro": 200 / 3}  # micro: 2 right, 1 too many
    )


@pytest.mark.parametrize("label", [1, "good", None])
def test_labels_that_are_no_list(label):
    with pytest.raises(UserError, match=r"row 7 has label=.*, want a list of labels"):
        make_task(problem="multi_label").features({"sentence": ["a"], "label": [label]}, TOKENIZER, 7, train=True)


def test_numbers():
    task = make_task(problem="regression", classes=[], metrics=["spearman"])
    assert task.features({"sentence": ["the cat", "a"], "label": [2, 0.5]}, TOKENIZER, 0, True)["labels"] == [2.0, 0.5]
    assert task.label_names is None
    assert (task.logits_are, task.model_options) == ("values", {"problem_type": "regression", "num_labels": 1})
    features = Dataset.from_dict({"labels": [1.0, 2.0, 3.0]})
    outputs = {"logits": [np.array([value]) for value in (1.0, 90.0, 7.0)]}
    found = task.score(features, features, outputs)
    assert list(found) == ["pearson", "spearman"]
    assert found["spearman"] == pytest.approx(50)


@pytest.mark.parametrize("label", ["much", None, True, float("nan")])
def test_what_is_no_number(label):
    task = make_task(problem="regression", classes=[])
    with pytest.raises(UserError, match=r"row 0 has label=.*, want a number"):
        task.features({"sentence": ["a"], "label": [label]}, TOKENIZER, 0, train=True)


def test_every_split_has_its_own_score():
    task = make_task(classes=["bad", "good"], metrics=["accuracy", "f1"])
    features = Dataset.from_dict({"labels": [1, 0, 1, 1]})
    rows = Dataset.from_dict({"split": ["validation_matched"] * 2 + ["validation_mismatched"] * 2})
    outputs = {"logits": [np.array(row) for row in ([0, 1], [1, 0], [0, 1], [1, 0])]}
    assert task.score(rows, features, outputs) == pytest.approx(
        {"accuracy": 100, "f1": 100, "accuracy_mismatched": 50, "f1_mismatched": 200 / 3}
    )


def test_names_as_labels():
    features = make_task().features({"sentence": ["a", "b"], "label": ["so so", "bad"]}, TOKENIZER, 0, train=True)
    assert features["labels"] == [2, 0]
    with pytest.raises(UserError, match=r"row 5 has label=godd, .* Did you mean 'good'\?"):
        make_task().features({"sentence": ["a"], "label": ["godd"]}, TOKENIZER, 5, train=True)


@pytest.mark.parametrize(
    ("labels", "changes", "expected"),
    [
        (["up", "down", "up"], {}, ["down", "up"]),
        ([0, 2, 1], {}, ["0", "1", "2"]),
        ([["x"], ["b", "x"]], {"problem": "multi_label"}, ["b", "x"]),
    ],
)
def test_classes_are_found_in_the_rows(labels, changes, expected):
    rows = Dataset.from_dict({"sentence": ["a"] * len(labels), "label": labels})
    assert make_task(classes=[], **changes).resolved(rows).classes == expected


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 2], r"has the labels \[0, 2\], but not 1: name task\.classes"),
        ([1.5, 2.5], r"has 1\.5, which is neither a number nor a name|has 2\.5"),
        (["one", "one"], "has one label only, one: there is nothing to tell apart"),
    ],
)
def test_classes_that_cannot_be_found(labels, message):
    rows = Dataset.from_dict({"sentence": ["a"] * len(labels), "label": labels})
    with pytest.raises(UserError, match=message):
        make_task(classes=[]).resolved(rows)
