"""Whole runs of embedding models: from texts, scored pairs, pairs and triplets to a checked file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sparse_xp.deployment.pipeline import Pipeline
from sparse_xp.errors import UserError
from sparse_xp.export_command import export_run
from sparse_xp.result import Result
from sparse_xp.run import run
from tests.runs import SHORT, configure, history, without_export

TRIPLETS = ("task=custom_embedding", "task.text_pair=right", "task.negative=wrong")


def test_pairs_with_scores_end_in_a_file_that_embeds(tmp_path: Path):
    result = run(configure(*SHORT, "task=stsb", "recipe=structured50_quant"), tmp_path / "run")

    assert result.teacher == "self"
    assert list(result.metrics) == ["spearman", "pearson", "teacher_overlap_10", "teacher_cosine"]
    assert result.deployment.metrics == pytest.approx(result.metrics, abs=3)
    assert result.deployment.integers
    pipeline = Pipeline(tmp_path / "run/deployment")
    texts = ["the plot is dull", "a very long and rather dull plot indeed", "fine"]
    vectors = pipeline(texts)
    assert vectors.shape == (3, 64)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert pipeline(texts[1]) == pytest.approx(vectors[1], abs=0.1)  # 8 bits: a batch has one range
    modules = json.loads((tmp_path / "run/model/modules.json").read_text())
    assert [entry["type"].rpartition(".")[2] for entry in modules] == ["Transformer", "Pooling", "Normalize"]


def test_a_run_is_exported_again_with_the_same_scores(tmp_path: Path):
    words = (*SHORT, "task=custom_embedding", "recipe=gradual80", "task.dimensions=16")
    result = run(configure(*words), tmp_path / "run")

    again = export_run(tmp_path / "run", [], out=tmp_path / "again")

    assert list(again.metrics) == ["teacher_overlap_10"]  # the teacher's vectors are not cut: no cosine
    assert again.metrics == pytest.approx(result.deployment.metrics)
    assert Pipeline(tmp_path / "again")("a fine film").shape == (16,)


@pytest.mark.parametrize(
    "words",
    [("task=custom_embedding",), ("task=squad_retrieval",), TRIPLETS, ("task=stsb", "recipe=dense")],
    ids=["texts", "pairs", "triplets", "dense"],
)
def test_a_student_comes_nearer_to_its_teacher(tmp_path: Path, words: tuple[str, ...]):
    with without_export():
        result = run(configure(*SHORT, "recipe=structured50", *words), tmp_path / "run")

    losses = [line["loss_distillation"] for line in history(tmp_path / "run") if "loss_distillation" in line]
    if "recipe=dense" in words:
        assert losses[0] < 0.1  # it begins as its own teacher, but for dropout
    else:
        assert losses[-1] < max(losses)
    assert result.metrics["teacher_cosine"] > 80


def test_pairs_are_learned_without_a_teacher(tmp_path: Path):
    with without_export():
        result = run(configure(*SHORT, "task=stsb", "recipe=dense", "teacher=none", "train.epochs=6"), tmp_path / "run")

    scores = [line["metrics"]["spearman"] for line in history(tmp_path / "run") if "metrics" in line]
    assert result.metrics["spearman"] > scores[0]
    assert result.metrics["teacher_cosine"] < 100  # compared with the model that training began with


def test_texts_alone_without_a_teacher_are_refused():
    from sparse_xp.config import check_promise

    words = (*SHORT, "task=custom_embedding", "recipe=dense", "teacher=none")

    with pytest.raises(UserError, match="has texts alone, which teach nothing without a teacher"):
        check_promise(configure(*words), words)


@pytest.mark.parametrize(
    ("words", "source"), [((), "self"), (("teacher=none",), "none"), (("teacher=dense",), "dense")]
)
def test_the_model_is_its_own_teacher_unless_the_command_says_otherwise(words: tuple[str, ...], source: str):
    for recipe in ("dense", "pruned80", "structured75_quant"):
        assert configure("task=stsb", f"recipe={recipe}", *words).teacher.source == source
    assert configure("task=sst2", "recipe=pruned80").teacher.source == "dense"


def test_a_finished_run_is_read_again(tmp_path: Path):
    words = (*SHORT, "task=custom_embedding", "recipe=dense", "train.epochs=1")
    with without_export():
        result = run(configure(*words), tmp_path / "run")

    assert run(configure(*words), tmp_path / "run") == result == Result.read(tmp_path / "run/result.json")
