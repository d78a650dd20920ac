"""Pairs of a query and a document: their columns, labels, losses, metrics, and what a CrossEncoder is told."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from sparse_xp.errors import UserError
from sparse_xp.settings import Data
from sparse_xp.tasks import TextClassification
from sparse_xp.tasks.rows import load_rows
from tests.runs import configure
from tests.tiny import make_tokenizer

TOKENIZER = make_tokenizer()


def make_task(**changes: Any) -> TextClassification:
    fields: dict[str, Any] = {
        "name": "toy",
        "dataset": None,
        "text": "query",
        "text_pair": "document",
        "problem": "regression",
        "metric": "ndcg_10",
    }
    return TextClassification(**fields | changes)


def rows_of(labels: list[Any], queries: str = "aabb", **columns: Any) -> Dataset:
    texts = {"query": list(queries[: len(labels)]), "document": [f"document {i}" for i in range(len(labels))]}
    return Dataset.from_dict({**texts, "label": labels, **columns})


def score(task: TextClassification, rows: Dataset, logits: list[list[float]]) -> dict[str, float]:
    targets = [task.target(label, 0) for label in rows["label"]]
    outputs = {"logits": [np.array(row, np.float32) for row in logits]}
    return task.score(rows, Dataset.from_dict({"labels": targets}), outputs)


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_a_number_ranks_the_documents_of_each_query(loss):
    task = make_task(loss=loss, metrics=["mrr_10", "recall_10", "map", "pearson"])
    # a: its answer is second, b: first; the scale of a query does not matter
    found = score(task, rows_of([1.0, 0.0, 0.0, 1.0]), [[-3.0], [-2.0], [7.0], [9.0]])
    assert list(found) == ["ndcg_10", "mrr_10", "recall_10", "map", "pearson"]
    assert found["ndcg_10"] == pytest.approx(100 * (1 + 1 / math.log2(3)) / 2)
    assert found["mrr_10"] == found["map"] == 75


def test_grades_are_gains():
    found = score(make_task(loss="mse"), rows_of([3.0, 1.0, 0.0], "aaa"), [[1.0], [2.0], [0.0]])
    assert found["ndcg_10"] == pytest.approx(100 * (1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)))


def test_of_two_classes_the_last_one_answers_the_query():
    task = make_task(problem="single_label", classes=["other", "answer"], metrics=["accuracy", "mrr_10"])
    # the margins are 1 and 2, so that b is right and a is wrong; all four are taken for answers
    logits = [[0.0, 1.0], [5.0, 7.0], [0.0, 2.0], [0.0, 1.0]]
    found = score(task, rows_of(["answer", "other", "answer", "other"]), logits)
    assert found == {"ndcg_10": pytest.approx(81.546, abs=1e-3), "accuracy": 50.0, "mrr_10": 75.0}


def test_probabilities_near_one_are_told_apart():
    task = make_task(problem="single_label", classes=["0", "1"], metric="mrr_10")
    assert score(task, rows_of([1, 0], "aa"), [[0.0, 25.0], [0.0, 24.0]]) == {"mrr_10": 100.0}


def test_the_rows_of_a_query_have_one_value_in_the_group():
    rows = rows_of([1, 0, 0, 1], "abcd", topic=[7, 7, 8, 8])
    task = make_task(group="topic", metric="mrr_10")
    assert task.columns() == ["query", "document", "topic", "label"]
    assert score(task, rows, [[1.0], [2.0], [1.0], [2.0]]) == {"mrr_10": 75.0}
    assert make_task(group="query").columns() == make_task().columns() == ["query", "document", "label"]


def test_each_split_has_its_own_queries():
    rows = rows_of([1, 0, 0, 1], "aaaa", split=["validation_easy"] * 2 + ["validation_hard"] * 2)
    task = make_task(metric="mrr_10", eval_split="validation_easy+validation_hard")
    logits = [[2.0], [1.0], [2.0], [1.0]]
    assert score(task, rows, logits) == {"mrr_10": 100.0, "mrr_10_hard": 50.0}


def test_of_how_many_queries_a_metric_is_the_mean():
    rows = rows_of([1.0, 0.0, 0.0, 0.0], split=["easy", "easy", "hard", "hard"])
    features = Dataset.from_dict({"labels": rows["label"]})
    task = make_task(metrics=["pearson"])
    assert task.answer_count("ndcg_10", rows.remove_columns("split"), features) == 1
    assert task.answer_count("pearson", rows, features) is None
    more = Dataset.from_dict({"labels": [1.0, 0.0, 1.0, 1.0]})
    assert [task.answer_count(name, rows, more) for name in ("ndcg_10", "ndcg_10_hard")] == [1, 1]
    assert task.answer_count("map", rows_of([1.0, 1.0, 1.0, 0.0]), more) == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"text_pair": None, "metric": "pearson", "metrics": ["map"]},
            r"task\.metric=map: a ranking is of the documents",
        ),
        ({"text_pair": None}, r"task\.metric=ndcg_10: a ranking is of the documents of a query.*task\.text_pair"),
        ({"problem": "multi_label"}, r"task\.metric='ndcg_10': expected one of f1_micro"),
        ({"problem": "single_label", "classes": ["a", "b", "c"]}, r"of the last of two classes, and there are 3"),
        ({"metric": "pearson", "group": "topic"}, r"task\.group=topic is for the metrics of rankings"),
        ({"group": "label"}, r"task\.group=label and task\.label=label name the same column"),
        ({"metric": "ndcg_1"}, r"task\.metric='ndcg_1': expected one of pearson, spearman"),
        ({"metrics": ["mrr_5"]}, r"'mrr_5': expected one of pearson, .*Did you mean 'mrr_10'"),
        ({"loss": "bse"}, r"task\.loss=bse: expected one of mse, bce.*Did you mean 'bce'|'mse'"),
        ({"problem": "single_label", "loss": "mse"}, r"task\.loss=mse is for task\.problem=regression"),
    ],
)
def test_refusals_name_the_key(fields, message):
    with pytest.raises(ValueError, match=message):
        make_task(**fields)


def test_three_classes_of_the_data_are_refused():
    with pytest.raises(UserError, match="a ranking is by the probability of the last of two classes"):
        make_task(problem="single_label").with_labels_from(rows_of(["a", "b", "c"]))


# The loss of a number


@pytest.mark.parametrize(
    ("labels", "loss"), [([0, 1, 1], "bce"), ([0.0, 0.25, 1.0], "bce"), ([0, 1, 3], "mse"), ([0, 2, 2], "mse")]
)
def test_the_loss_goes_by_the_labels(labels, loss):
    task = make_task().with_labels_from(rows_of(labels))
    assert task.loss == loss
    assert task.with_labels_from(rows_of([0, 9])) is task


def test_a_number_that_ranks_nothing_is_learned_as_before():
    task = make_task(metric="pearson")
    assert task.with_labels_from(rows_of([0.0, 1.0])) is task
    assert (task.problem_type, task.target(1, 0)) == ("regression", 1.0)


def test_binary_cross_entropy_is_of_one_label_of_several_to_transformers():
    task = make_task(loss="bce")
    assert task.problem_type == "multi_label_classification"
    assert task.model_options == {"problem_type": "multi_label_classification", "num_labels": 1}
    rows = {"query": ["cat", "cat"], "document": ["the cat", "dogs"], "label": [1, 0.5]}
    assert task.features(rows, TOKENIZER, 0, train=True)["labels"] == [[1.0], [0.5]]


@pytest.mark.parametrize(
    ("fields", "function"),
    [
        ({"loss": "bce"}, "activation.Sigmoid"),
        ({"loss": "mse"}, "linear.Identity"),
        ({"metric": "pearson"}, "linear.Identity"),
    ],
)
def test_what_sentence_transformers_reads_in_the_configuration(fields, function):
    expected = {"sentence_transformers": {"activation_fn": f"torch.nn.modules.{function}"}}
    assert make_task(**fields).config_entries == expected


@pytest.mark.parametrize("fields", [{"text_pair": None, "metric": ""}, {"problem": "single_label"}])
def test_other_models_say_nothing_to_sentence_transformers(fields):
    assert make_task(**fields).config_entries == {}


# Rows


def write_csv(path: Path, lines: list[str]) -> Data:
    path.write_text("\n".join(["query,document,label", *lines]) + "\n")
    return Data(train=str(path))


def test_the_rows_of_a_query_stay_together(tmp_path):
    lines = [f"query {i % 40},document {i},{int(i < 40)}" for i in range(200)]
    data = write_csv(tmp_path / "rows.csv", lines)
    train, held_out = (set(load_rows(make_task(), data, train=side).rows["query"]) for side in (True, False))
    assert len(held_out) == 4
    assert train.isdisjoint(held_out)
    assert len(train) == 36
    subset = load_rows(make_task(max_eval_samples=12), data, train=False)
    assert len(subset.rows) == 10  # two whole queries
    assert len(set(subset.rows["query"])) == 2


def test_features_of_rows_that_were_held_out_otherwise_are_made_again(tmp_path):
    lines = [f"query {i % 40},document {i},{int(i < 40)}" for i in range(200)]
    data = write_csv(tmp_path / "rows.csv", lines)
    ranked, other = (load_rows(make_task(metric=name), data, train=True) for name in ("ndcg_10", "pearson"))
    assert len(ranked.rows) == len(other.rows)
    assert list(ranked.rows["document"]) != list(other.rows["document"])
    assert ranked.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("fields", "lines", "message"),
    [
        (
            {},
            ["a,b,1", "a,c,-1"],
            r"rows\.csv, line 3: label=-1, expected a number of 0 or more: a metric of rankings takes it",
        ),
        ({"loss": "bce"}, ["a,b,1", "a,c,3"], r"line 3: label=3, expected a number from 0 to 1: task\.loss=bce"),
        ({}, ["a,b,1", "b,c,0", "c,d,0", "d,e,1"], "has one document for each query"),
        ({}, ["a,b,yes"], "label='yes', expected a number"),
    ],
)
def test_rows_that_cannot_be_ranked(tmp_path, fields, lines, message):
    data = write_csv(tmp_path / "rows.csv", lines)
    with pytest.raises(UserError, match=message):
        load_rows(make_task(**fields), Data(train=data.train, validation=data.train), train=False)


def test_evaluation_data_without_an_answer_are_refused_before_training():
    task, features = make_task(loss="bce"), Dataset.from_dict({"labels": [[0.0], [0.0]]})
    assert task.warnings(features, train=True) == []
    with pytest.raises(UserError, match="task toy: the evaluation data: no document answers its query"):
        task.warnings(features, train=False)


@pytest.mark.parametrize("group", [None, "topic", "query"])
def test_generated_rows_have_several_documents_for_a_query(group):
    task = make_task(group=group)
    rows = task.generated_rows("train", 60)
    assert list(rows) == task.columns()
    keys = rows[task.query_column]
    assert len(set(keys)) == 10
    assert all(0 < sum(rows["label"][i] for i in range(60) if keys[i] == key) < 3 for key in set(keys))


def test_the_option_for_rows_of_ones_own():
    task = configure("task=custom_reranking", "profile=embedded").task
    assert task.columns() == ["query", "document", "label"]
    assert (task.metric, task.metrics) == ("ndcg_10", ["ndcg_10", "mrr_10", "map", "recall_10"])
