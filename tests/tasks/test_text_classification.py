"""Sentences and pairs of sentences with a class, with several labels, or with a number."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from sparse_xp.data.batches import collate
from sparse_xp.errors import UserError
from sparse_xp.settings import Data
from sparse_xp.synthetic.words import ADVERBS
from sparse_xp.tasks import TextClassification
from sparse_xp.tasks.rows import load_rows
from tests.runs import configure
from tests.tiny import make_tokenizer

TOKENIZER = make_tokenizer()
REAL = Path(os.environ.get("SPARSE_XP_DATA", "data"))


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


def rows_of(labels: list[Any], names: list[str] | None = None) -> Dataset:
    """Rows with these labels, of a column that names its classes if ``names`` are given."""
    rows = {"sentence": ["the cat"] * len(labels), "label": labels}
    if not names:
        return Dataset.from_dict(rows)
    label = ClassLabel(names=names)
    several = isinstance(labels[0], list)
    return Dataset.from_dict(rows, Features({"sentence": Value("string"), "label": List(label) if several else label}))


@pytest.mark.parametrize("label", [3, -1, None, "god", 1.5])
def test_a_label_outside_the_classes_is_an_error_that_names_row_and_classes(label):
    rows = {"sentence": ["the cat", "the hat"], "label": [0, label]}
    message = rf"task toy: row 1001 has label={label}, but task\.classes names 3: bad, good, so so\."
    with pytest.raises(UserError, match=message + (" Did you mean 'good'\\?" if label == "god" else "$")):
        make_task().features(rows, TOKENIZER, 1000, train=True)


@pytest.mark.parametrize("text", ["sentence", "other"])
def test_a_text_that_is_missing_is_an_error_that_names_row_and_column(text):
    rows = {"sentence": ["the cat", "the hat"], "other": ["the cat", "the hat"], "label": [0, 0]}
    rows[text][1] = None
    with pytest.raises(UserError, match=rf"task toy: row 6 has {text}=None, expected a text\."):
        make_task(text_pair="other").features(rows, TOKENIZER, 5, train=True)


def labels_of(task: TextClassification, labels: list[Any]) -> list[Any]:
    rows = {"sentence": ["the cat"] * len(labels), "label": labels}
    return task.features(rows, TOKENIZER, 0, train=True)["labels"]


def test_labels_may_be_numbers_or_names():
    assert labels_of(make_task(), ["so so", 0, "good", 2]) == [2, 0, 1, 2]


def test_a_number_that_is_a_name_is_taken_for_the_name():
    stars = make_task(classes=["1", "2", "3"])
    assert labels_of(stars, [1, 3, "2"]) == [0, 2, 1]
    with pytest.raises(UserError, match=r"row 0 has label=0, but task\.classes names 3: 1, 2, 3"):
        labels_of(stars, [0])


def test_several_labels_are_one_number_for_each_class():
    task = make_task(problem="multi_label")
    labels = labels_of(task, [[2, 0], ["good"], [], [1, "good"]])
    assert labels == [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    # the loss of several labels wants floats
    features = Dataset.from_dict({"labels": labels})
    batch = collate(features, [0, 2], ["labels"], {})
    assert batch["labels"].tolist() == [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    assert str(batch["labels"].dtype) == "torch.float32"


def test_numbers_stay_numbers():
    task = make_task(problem="regression", classes=[])
    labels = labels_of(task, [3, -0.25])
    assert labels == [3.0, -0.25]
    assert [type(label) for label in labels] == [float, float]


@pytest.mark.parametrize(
    ("problem", "label", "message"),
    [
        ("multi_label", 1, r"row 1 has label=1, expected a list of labels"),
        ("multi_label", [0, 3], r"row 1 has label=3, but task\.classes names 3"),
        ("multi_label", None, r"row 1 has label=None, expected a list of labels"),
        ("regression", "2", r"row 1 has label='2', expected a number"),
        ("regression", None, r"row 1 has label=None, expected a number"),
        ("regression", True, r"row 1 has label=True, expected a number"),
        ("regression", float("nan"), r"row 1 has label=nan, expected a number"),
    ],
)
def test_a_label_of_another_problem_is_an_error_that_names_the_row(problem, label, message):
    task = make_task(problem=problem, **({"classes": []} if problem == "regression" else {}))
    with pytest.raises(UserError, match=message):
        labels_of(task, [[0] if problem == "multi_label" else 0.5, label])


# The label map


def test_classes_of_the_task_are_kept():
    task = make_task()
    for rows in (rows_of([0, 1]), rows_of([0, 1], ["bad", "good", "so so"]), rows_of(["good", "bad"])):
        assert task.with_labels_from(rows) is task
        task.check_labels(rows)


@pytest.mark.parametrize(
    ("problem", "labels", "names", "classes"),
    [
        ("single_label", [1, 0, 1], ["no", "yes", "maybe"], ["no", "yes", "maybe"]),
        ("single_label", ["no", "yes", "maybe", "no"], None, ["maybe", "no", "yes"]),
        ("single_label", [10, 2, 10], None, ["2", "10"]),
        ("multi_label", [[1], [], [0, 1]], ["no", "yes"], ["no", "yes"]),
        ("multi_label", [["b"], None, ["c", "a"]], None, ["a", "b", "c"]),
        ("multi_label", [[1], [], [0, 1]], None, ["0", "1"]),
    ],
)
def test_classes_come_from_the_data_where_the_task_names_none(problem, labels, names, classes):
    task = make_task(problem=problem, classes=[])
    assert task.label_names is None
    assert task.with_labels_from(rows_of(labels, names)).label_names == classes


@pytest.mark.parametrize("labels", [[0, 1], [[0], [1]]])
def test_classes_in_another_order_than_the_data_are_refused(labels):
    task = make_task(classes=["yes", "no"], problem="multi_label" if isinstance(labels[0], list) else "single_label")
    message = r"task\.classes is \['yes', 'no'\], but column label of the data has \['no', 'yes'\]\. Write them"
    with pytest.raises(UserError, match=message):
        task.check_labels(rows_of(labels, ["no", "yes"]))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 1], r"task toy: column label of the data has 1 only"),
        ([None, "a"], r"task toy: column label of the data has None, which is neither a whole number nor the name"),
        ([0.5, 1.0], r"column label of the data has (0\.5|1\.0), which is neither a whole number"),
    ],
)
def test_data_without_usable_classes_are_refused(labels, message):
    with pytest.raises(UserError, match=message):
        make_task(classes=[]).with_labels_from(rows_of(labels))


def test_several_labels_of_which_no_row_has_any_are_refused():
    features = Features({"sentence": Value("string"), "label": List(Value("int64"))})
    rows = Dataset.from_dict({"sentence": ["a", "b"], "label": [[], []]}, features)
    with pytest.raises(UserError, match="column label of the data has no label only"):
        make_task(classes=[], problem="multi_label").with_labels_from(rows)


def test_a_metric_that_does_not_fit_the_classes_of_the_data_is_refused():
    with pytest.raises(UserError, match=r"task\.metric=f1 is for two classes, and there are 3: take f1_macro"):
        make_task(classes=[], metric="f1").with_labels_from(rows_of(["a", "b", "c"]))


def test_a_regression_has_no_classes():
    task = make_task(classes=[], problem="regression")
    assert task.with_labels_from(rows_of([0.5, 1.5])) is task
    task.check_labels(rows_of([0.5, 1.5]))
    assert task.label_names is None


@pytest.mark.parametrize(
    ("problem", "problem_type", "options"),
    [
        ("single_label", "single_label_classification", {"problem_type": "single_label_classification"}),
        ("multi_label", "multi_label_classification", {"problem_type": "multi_label_classification"}),
        ("regression", "regression", {"problem_type": "regression", "num_labels": 1}),
    ],
)
def test_what_the_model_and_distillation_are_told(problem, problem_type, options):
    task = make_task(problem=problem, classes=[] if problem == "regression" else ["a", "b"])
    assert (task.problem_type, task.model_options) == (problem_type, options)


# Scores


def test_a_perfect_prediction_scores_100():
    labels = [2, 0, 1, 1, 0]
    features = Dataset.from_dict({"labels": labels})
    outputs = {"logits": [np.eye(3)[label] for label in labels]}
    assert make_task().score(features, features, outputs) == {"accuracy": 100.0}


def test_the_largest_logit_is_the_prediction():
    features = Dataset.from_dict({"labels": [0, 1, 2, 2]})
    logits = [[-1.0, -2.0, -3.0], [0.0, 0.5, 0.6], [0.0, 0.0, 9.0], [1.0, 0.0, 0.5]]  # 0, 2, 2, 0
    assert make_task().score(features, features, {"logits": [np.array(row) for row in logits]}) == {"accuracy": 50.0}


def score(task: TextClassification, labels: list[Any], logits: list[list[float]], **columns: Any) -> dict[str, float]:
    rows = Dataset.from_dict({"label": labels, **columns})
    outputs = {"logits": [np.array(row) for row in logits]}
    return task.score(rows, Dataset.from_dict({"labels": labels}), outputs)


def test_two_classes_have_the_f1_of_the_second():
    task = make_task(classes=["no", "yes"], metrics=["accuracy", "f1", "f1_macro"])
    # predicted 1 1 0 0 1: of the second class 2 of 3 are right and 2 of 3 found, of the first 1 of 2 and 1 of 2
    logits = [[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    found = score(task, [1, 1, 0, 1, 0], logits)
    assert list(found) == ["accuracy", "f1", "f1_macro"]
    assert found == pytest.approx({"accuracy": 60.0, "f1": 100 * 2 / 3, "f1_macro": 100 * (2 / 3 + 1 / 2) / 2})


def test_several_labels_hold_where_their_logits_are_positive():
    task = make_task(problem="multi_label", metrics=["f1_micro", "f1_macro", "accuracy"])
    logits = [[2.0, -1.0, 0.5], [-1.0, 3.0, -0.1], [-2.0, -2.0, 0.0]]  # 0 and 2; 1; none
    golds = [[1.0, 0.0, 1.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    # 3 of 3 predicted are right, 3 of 4 found; by class: F1 of 2/3, 1, 1; the second row is not whole
    assert score(task, golds, logits) == pytest.approx(
        {"f1_micro": 100 * 6 / 7, "f1_macro": 100 * 8 / 9, "accuracy": 100 * 2 / 3}
    )


def test_numbers_are_compared_by_correlation():
    task = make_task(problem="regression", classes=[], metrics=["pearson", "spearman"])
    # deviations -1, 0, 1 and -2, -1, 3: 5 / sqrt(2 * 14)
    found = score(task, [1.0, 2.0, 3.0], [[0.0], [1.0], [5.0]])
    assert found == pytest.approx({"pearson": 100 * 5 / 28**0.5, "spearman": 100.0})


def test_each_evaluation_split_has_metrics_of_its_own():
    task = make_task(metrics=["accuracy", "f1_macro"], classes=["a", "b"], eval_split="validation_x+validation_y+test")
    logits = [[1.0, 0.0]] * 6  # always a
    splits = ["validation_x", "validation_x", "validation_y", "validation_y", "validation_y", "test"]
    found = score(task, [0, 1, 0, 0, 1, 0], logits, split=splits)
    assert list(found) == ["accuracy", "f1_macro", "accuracy_y", "f1_macro_y", "accuracy_test", "f1_macro_test"]
    assert found == pytest.approx(
        {
            "accuracy": 50.0,
            "f1_macro": 100 * (2 / 3) / 2,
            "accuracy_y": 100 * 2 / 3,
            "f1_macro_y": 100 * (4 / 5) / 2,
            "accuracy_test": 100.0,
            "f1_macro_test": 50.0,  # a class that is not there counts, with 0
        }
    )


# The configuration


def test_the_classes_are_the_names_of_the_outputs():
    assert make_task().label_names == ["bad", "good", "so so"]
    assert make_task().columns() == ["sentence", "label"]


@pytest.mark.parametrize(
    ("problem", "metric", "metrics"),
    [("single_label", "accuracy", []), ("multi_label", "f1_micro", ["f1_macro"]), ("regression", "pearson", [])],
)
def test_the_metric_that_counts_goes_by_the_problem_and_is_reported_first(problem, metric, metrics):
    task = make_task(problem=problem, classes=[], metrics=metrics)
    assert (task.metric, task.metrics) == (metric, [metric, *metrics])
    task = make_task(metric="f1_macro", metrics=["accuracy", "f1_macro"])
    assert (task.metric, task.metrics) == ("f1_macro", ["accuracy", "f1_macro"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": ["one"]}, r"task\.classes: name at least two"),
        ({"classes": ["one", "two", "one"]}, r"task\.classes: one is named twice"),
        ({"classes": ["a", "b"], "problem": "regression"}, r"task\.classes: a task of regression has none"),
        ({"problem": "multilabel"}, r"task\.problem=multilabel: expected one of .*Did you mean 'multi_label'"),
        ({"metric": "acuracy"}, r"task\.metric='acuracy': expected one of accuracy, .*Did you mean 'accuracy'"),
        ({"metric": "pearson"}, r"task\.metric='pearson': expected one of accuracy, .*task\.problem=single_label"),
        ({"metrics": ["f1_micro"]}, r"task\.metric='f1_micro': expected one of accuracy"),
        ({"metric": "f1"}, r"task\.metric=f1 is for two classes, and there are 3: take f1_macro"),
        ({"max_length": 4}, r"task\.max_length=4: expected at least 8"),
        ({"max_eval_samples": 0}, r"task\.max_eval_samples=0"),
        ({"text": "label"}, r"task\.text=label and task\.label=label name the same column"),
        ({"text_pair": "sentence"}, r"task\.text=sentence and task\.text_pair=sentence name the same"),
    ],
)
def test_refusals_name_the_key(fields, message):
    with pytest.raises(ValueError, match=message):
        make_task(**fields)


# Generated rows


@pytest.mark.parametrize(
    ("fields", "labels"),
    [
        ({}, set(range(3))),
        ({"classes": ["no", "yes"]}, {0, 1}),
        ({"classes": []}, {0, 1}),
        ({"classes": list("abcdef")}, set(range(6))),
        ({"problem": "regression", "classes": []}, {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}),
        ({"text_pair": "other"}, {0, 1, 2}),
        ({"text_pair": "other", "classes": ["no", "yes"]}, {0, 1}),
        ({"text_pair": "other", "classes": [], "problem": "regression"}, {0.0, 1.0}),
    ],
)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_generated_rows_have_the_columns_and_labels_of_the_task(split, fields, labels):
    task = make_task(**fields)
    rows = task.generated_rows(split, 120)
    assert list(rows) == task.columns()
    assert set(rows["label"]) == labels
    labelled = task.with_labels_from(Dataset.from_dict(rows))
    assert len(labelled.features(rows, TOKENIZER, 0, train=True)["labels"]) == 120


def test_generated_reviews_with_several_labels():
    made = make_task(problem="multi_label", text="review").generated_rows("validation", 200)
    for review, labels in zip(made["review"], made["label"], strict=True):
        assert (2 in labels) == bool(set(ADVERBS) & set(review.split()))
        assert len({0, 1} & set(labels)) == 1
    assert {tuple(labels) for labels in made["label"]} == {(0,), (1,), (0, 2), (1, 2)}
    two = make_task(problem="multi_label", classes=["blames", "praises"]).generated_rows("validation", 200)
    assert {tuple(labels) for labels in two["label"]} == {(0,), (1,)}
    pairs = make_task(problem="multi_label", text_pair="other").generated_rows("validation", 6)
    assert pairs["label"] == [[0], [1], [2], [0], [1], [2]]


# The real data sets


@pytest.mark.slow
@pytest.mark.skipif(not (REAL / "mnli").is_dir(), reason="needs SPARSE_XP_DATA=DIR with DIR/mnli/*.parquet")
@pytest.mark.parametrize("name", ["sst2", "qqp", "qnli", "mnli"])
def test_columns_and_labels_of_the_real_data_sets(name):
    task = configure(f"task={name}").task
    for train in (True, False):
        rows = load_rows(task, Data(root=str(REAL)), train=train).rows
        task.check_labels(rows)  # the names and their order are the data's
        assert set(rows["label"]) == set(range(len(task.classes)))
        table = rows.select(range(50)).to_dict()
        assert task.features(table, TOKENIZER, 0, train)["labels"] == table["label"]
    if name == "mnli":
        assert set(rows["split"]) == {"validation_matched", "validation_mismatched"}


@pytest.mark.parametrize(
    ("words", "metric", "count"),
    [
        (["task=sst2"], "accuracy", 5),
        (["task=qqp"], "f1", 2),
        (["task=qqp", "task.metrics=[accuracy,f1_macro]"], "f1_macro", 4),  # the rarer of two classes, twice
        (["task=sst2", "task.problem=regression", "task.classes=[]"], "pearson", None),
        (["task=mnli"], "accuracy", 3),
        (["task=mnli"], "accuracy_mismatched", 2),
    ],
)
def test_of_how_many_answers_a_metric_is_the_mean(words, metric, count):
    from datasets import Dataset

    columns = {"labels": [0, 1, 0, 1, 0]}
    if "task=mnli" in words:
        columns["split"] = ["validation_matched"] * 3 + ["validation_mismatched"] * 2
    rows = Dataset.from_dict(columns)
    assert configure("profile=embedded", *words).task.answer_count(metric, rows, rows) == count
