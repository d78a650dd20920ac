"""The kind of task for embeddings: rows, features, losses and scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from sparse_xp.data.limits import DEFAULT_LIMITS
from sparse_xp.errors import UserError
from sparse_xp.files.text_format import RECOGNISED
from sparse_xp.tasks import SentenceEmbedding
from sparse_xp.tasks.answers import NamedText
from tests.tiny import make_tokenizer

TEXTS = SentenceEmbedding(name="texts", dataset=None)
SCORED = SentenceEmbedding(name="scored", dataset=None, text="a", text_pair="b", label="score")
PAIRS = SentenceEmbedding(name="pairs", dataset=None, text="a", text_pair="b")
TRIPLETS = replace(PAIRS, negative="c")


def rows_of(task: SentenceEmbedding, size: int = 6) -> dict[str, list[Any]]:
    return task.generated_rows("train", size)


@pytest.mark.parametrize(
    ("task", "metric", "texts"),
    [(TEXTS, "teacher_cosine", 1), (SCORED, "spearman", 2), (PAIRS, "mrr_10", 2), (TRIPLETS, "mrr_10", 3)],
)
def test_the_columns_say_what_rows_are(task: SentenceEmbedding, metric: str, texts: int):
    assert task.metric == metric
    assert task.features_per_row == texts
    assert set(rows_of(task)) == set(task.columns())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "score"}, "task.label=score is for pairs of texts: add task.text_pair=COLUMN"),
        ({"negative": "c"}, "task.negative=c is for pairs of texts"),
        ({"text_pair": "b", "negative": "c", "label": "s"}, "pairs have scores or wrong answers"),
        ({"text_pair": "text"}, "name the same column"),
        ({"metric": "spearman"}, "task.metric=spearman: expected one of teacher_cosine, teacher_overlap_10"),
        ({"pooling": "meen"}, "Did you mean 'mean'"),
        ({"dimensions": 0}, "task.dimensions=0: expected at least 1"),
        ({"dimensions": 8, "metric": "teacher_cosine"}, "have no cosine .* Write task.metric=teacher_overlap_10"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        replace(TEXTS, **{"metric": "", **options})


def test_each_text_is_a_feature_and_those_of_a_row_follow_each_other():
    tokenizer = make_tokenizer()
    rows = rows_of(TRIPLETS, 3)

    features = TRIPLETS.features(rows, tokenizer, 10, train=True)

    assert features["row"] == [10, 10, 10, 11, 11, 11, 12, 12, 12]
    assert features["part"] == [0, 1, 2] * 3
    assert features["input_ids"][4] == tokenizer(rows["b"][1], truncation=True, max_length=128)["input_ids"]


def test_an_evaluation_embeds_each_document_once():
    rows = {"a": ["one", "two", "three"], "b": ["same", "same", "other"]}

    features = PAIRS.features(rows, make_tokenizer(), 0, train=False)

    assert list(zip(features["row"], features["part"], strict=True)) == [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1)]


def test_prompts_stand_before_the_texts():
    tokenizer, task = make_tokenizer(), replace(PAIRS, prompt="query: ", prompt_pair="passage: ")
    rows = {"a": ["the plot"], "b": ["it is good"]}

    features = task.features(rows, tokenizer, 0, train=True)

    assert features["input_ids"] == [
        tokenizer(text)["input_ids"] for text in ("query: the plot", "passage: it is good")
    ]
    for name, text in (("text", "query: the plot"), ("query", "query: the plot"), ("document", "passage: the plot")):
        encoded = task.encode_row([NamedText(name, "the plot")], tokenizer.backend_tokenizer, 64)
        assert encoded.encodings[0].ids == tokenizer(text)["input_ids"]


def test_texts_alone_have_no_loss_and_pairs_have_one():
    outputs = {"sentence_embedding": torch.nn.functional.normalize(torch.randn(4, 8), dim=-1)}
    batch = {"input_ids": torch.tensor([[1], [2], [3], [4]]), "labels": torch.tensor([1.0, 1.0, 4.0, 4.0])}

    assert TEXTS.own_loss(outputs, batch).item() == 0
    assert SCORED.own_loss(outputs, batch).item() > 0
    assert PAIRS.own_loss(outputs, batch).item() > 0
    assert (TEXTS.loss_counts(batch), PAIRS.loss_counts(batch)) == ((4,), (2,))


def test_the_negative_of_a_row_is_a_wrong_answer_for_all():
    # Two rows, whose documents are right. The negatives are the queries themselves: as near as can be.
    query, document = torch.eye(4)[:2], torch.eye(4)[:2]
    batch = {"input_ids": torch.arange(6)[:, None]}
    near = {"sentence_embedding": torch.stack([query, document, query], 1).flatten(0, 1)}
    far = {"sentence_embedding": torch.stack([query, document, torch.eye(4)[2:]], 1).flatten(0, 1)}

    assert TRIPLETS.own_loss(near, batch).item() == pytest.approx(np.log(2), abs=1e-4)
    assert TRIPLETS.own_loss(far, batch).item() == pytest.approx(0, abs=1e-4)


def test_the_teachers_vectors_are_scored_where_they_are_known():
    vectors = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
    features = Dataset.from_dict({"row": range(12), "part": [0] * 12})
    rows = Dataset.from_dict({"text": [f"text {i}" for i in range(12)]})
    outputs = {"sentence_embedding": list(vectors)}

    assert TEXTS.score(rows, features, outputs) == {}
    known = features.add_column("teacher_sentence_embedding", vectors.tolist())
    assert TEXTS.score(rows, known, outputs) == {"teacher_overlap_10": 100, "teacher_cosine": pytest.approx(100)}


def test_a_teacher_of_another_size_is_named_where_the_metric_needs_one_size():
    features = Dataset.from_dict({"row": range(12), "part": [0] * 12, "teacher_sentence_embedding": [[1.0, 2.0]] * 12})
    outputs = {"sentence_embedding": [np.ones(3)] * 12}

    with pytest.raises(UserError, match="have no cosine with those of a teacher"):
        TEXTS.score(Dataset.from_dict({"text": ["a"] * 12}), features, outputs)
    assert replace(TEXTS, dimensions=3, metric="").metric == "teacher_overlap_10"


def test_a_txt_file_has_a_text_a_line(tmp_path: Path):
    path = tmp_path / "texts.txt"
    path.write_text("One.\n\nTwo.\n")

    assert TEXTS.read(path, tmp_path, DEFAULT_LIMITS, RECOGNISED)["text"] == ["One.", "Two."]


def test_a_right_answer_is_never_on_both_sides_of_a_split():
    keys, stratify = PAIRS.holdout_groups(Dataset.from_dict({"a": ["1", "2"], "b": ["same", "same"]}))

    assert (keys, stratify) == (["same", "same"], False)


def test_the_whole_vector_teaches_a_cut_one():
    assert replace(TEXTS, dimensions=4, metric="").for_teacher().dimensions is None
